//! What a vCPU's accesses to memory without RAM and to I/O ports reach.

use crate::layout;
use crate::machine::Ending;
use crate::virtio::transport::Transport;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// What becomes of a vCPU after an access.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It goes on.
    Continue,
    /// The machine ends.
    End(Ending),
}

/// Command of the keyboard controller that resets the machine.
const KEYBOARD_RESET: u8 = 0xfe;
/// ACPI sleep control: the enable bit, and where the type is.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

/// Raises an interrupt line.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// Where the serial port's bytes go. A reader that does not keep up loses them: the guest must not wait for it.
#[derive(Debug)]
pub struct SerialOutput(Option<File>);

impl SerialOutput {
    /// Into a pipe or file, or nowhere.
    pub fn new(file: Option<File>) -> Self {
        Self(file)
    }
}

impl Write for SerialOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type SerialPort = Serial<Line, NoEvents, SerialOutput>;

/// The machine's devices by their addresses.
pub(crate) struct Bus {
    transports: Vec<Arc<Transport>>,
    serial: Mutex<SerialPort>,
}

/// Registers of the serial port, for a saved state.
fn serial_bytes(state: &SerialState) -> Vec<u8> {
    vec![
        state.baud_divisor_low,
        state.baud_divisor_high,
        state.interrupt_enable,
        state.interrupt_identification,
        state.line_control,
        state.line_status,
        state.modem_control,
        state.modem_status,
        state.scratch,
    ]
}

impl Bus {
    pub(crate) fn new(transports: Vec<Arc<Transport>>, line: EventFd, output: SerialOutput) -> Self {
        Self { transports, serial: Mutex::new(Serial::new(Line(line), output)) }
    }

    fn serial(&self) -> MutexGuard<'_, SerialPort> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn save_serial(&self) -> Vec<u8> {
        serial_bytes(&self.serial().state())
    }

    pub(crate) fn restore_serial(&self, bytes: &[u8], line: EventFd, output: SerialOutput) -> Result<(), String> {
        let [low, high, enable, identification, control, status, modem, modem_status, scratch] =
            <[u8; 9]>::try_from(bytes).map_err(|_| format!("{} registers of a serial port", bytes.len()))?;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: control,
            line_status: status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: Vec::new(),
        };
        *self.serial() =
            Serial::from_state(&state, Line(line), NoEvents, output).map_err(|cause| format!("{cause:?}"))?;
        Ok(())
    }

    fn transport(&self, address: u64) -> Option<(&Transport, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_MMIO)?;
        let index = usize::try_from(offset / layout::VIRTIO_MMIO_STRIDE).ok()?;
        Some((self.transports.get(index)?, offset % layout::VIRTIO_MMIO_STRIDE))
    }

    pub(crate) fn read_memory(&self, address: u64, data: &mut [u8]) -> Outcome {
        match self.transport(address) {
            Some((transport, offset)) => transport.read(offset, data),
            None => data.fill(0xff),
        }
        Outcome::Continue
    }

    pub(crate) fn write_memory(&self, address: u64, data: &[u8]) -> Outcome {
        if let Some((transport, offset)) = self.transport(address) {
            transport.write(offset, data);
        }
        Outcome::Continue
    }

    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) -> Outcome {
        data.fill(0xff);
        let [byte] = data else { return Outcome::Continue };
        match port {
            layout::KEYBOARD_COMMAND_PORT | layout::SLEEP_STATUS_PORT | layout::SLEEP_CONTROL_PORT => *byte = 0,
            _ => {
                if let Some(register) = serial_register(port) {
                    *byte = self.serial().read(register);
                }
            }
        }
        Outcome::Continue
    }

    pub(crate) fn write_port(&self, port: u16, data: &[u8]) -> Outcome {
        if let Some(register) = serial_register(port) {
            // A string instruction brings several bytes for the same register.
            let mut serial = self.serial();
            for byte in data {
                let _ = serial.write(register, *byte);
            }
            return Outcome::Continue;
        }
        match (port, data) {
            (layout::KEYBOARD_COMMAND_PORT, [KEYBOARD_RESET]) | (layout::RESET_PORT, [layout::RESET_VALUE]) => {
                Outcome::End(Ending::Reset)
            }
            (layout::SLEEP_CONTROL_PORT, [value])
                if value & SLEEP_ENABLE != 0 && value >> SLEEP_TYPE_SHIFT & 0b111 == layout::SLEEP_TYPE_OFF =>
            {
                Outcome::End(Ending::PowerOff)
            }
            _ => Outcome::Continue,
        }
    }
}

fn serial_register(port: u16) -> Option<u8> {
    port.checked_sub(layout::SERIAL_PORT).filter(|register| *register < 8).map(|register| register as u8)
}
