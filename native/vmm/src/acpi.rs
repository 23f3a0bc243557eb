//! The ACPI tables: hardware-reduced, with the CPUs, the I/O APIC, the serial port and one `LNRO0005` device for each virtio device.
//!
//! Sources: ACPI 6.5 §5.2.5 (RSDP), §5.2.9 (FADT), §4.8.3.7 (sleep registers of hardware-reduced machines), §5.2.12 (MADT).

use crate::error::{Error, Result};
use crate::layout;
use crate::memory::GuestRam;
use acpi_tables::Aml;
use acpi_tables::aml::{
    self, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress};

const OEM: [u8; 6] = *b"BULKHD";
const OEM_TABLE: [u8; 8] = *b"BHMICROV";
const REVISION: u32 = 1;
const SDT_HEADER_BYTES: u32 = 36;

/// FADT IA-PC boot architecture flags (ACPI 6.5 table 5.11): no VGA to probe, no MSI to try, no CMOS clock.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 3 | 1 << 5;

/// A table and where it is.
pub struct PlacedTable {
    /// Guest-physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All tables of a machine; the first is the root pointer, at [`layout::ACPI_TABLES`].
pub fn build_tables(vcpus: u32, virtio_devices: usize) -> Result<Vec<PlacedTable>> {
    let mut next = layout::ACPI_TABLES + 64;
    let mut tables = Vec::new();
    let mut place = |bytes: Vec<u8>| {
        let address = next;
        next = (next + bytes.len() as u64).next_multiple_of(16);
        tables.push(PlacedTable { address, bytes });
        address
    };
    let dsdt = place(dsdt(virtio_devices));
    let fadt = place(bytes_of(&fadt(dsdt)));
    let madt = place(bytes_of(&madt(vcpus)?));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = place(bytes_of(&xsdt));
    let root = PlacedTable { address: layout::ACPI_TABLES, bytes: bytes_of(&Rsdp::new(OEM, xsdt)) };
    if next > layout::ACPI_TABLES_END {
        return Err(Error::Boot("the ACPI tables do not fit below 1 MiB".into()));
    }
    tables.insert(0, root);
    Ok(tables)
}

/// Writes the tables into guest memory and tells where the root pointer is.
pub fn write_tables(ram: &GuestRam, vcpus: u32, virtio_devices: usize) -> Result<u64> {
    for table in build_tables(vcpus, virtio_devices)? {
        ram.write_slice(&table.bytes, GuestAddress(table.address))
            .map_err(|cause| Error::Boot(format!("an ACPI table at {:#x}: {cause}", table.address)))?;
    }
    Ok(layout::ACPI_TABLES)
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let register = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    table.reset_reg = register(layout::RESET_PORT);
    table.reset_value = layout::RESET_VALUE;
    table.sleep_control_reg = register(layout::SLEEP_CONTROL_PORT);
    table.sleep_status_reg = register(layout::SLEEP_STATUS_PORT);
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    table.hypervisor_vendor_identity = u64::from_le_bytes(*b"BULKHEAD").into();
    table.finalize()
}

fn madt(vcpus: u32) -> Result<MADT> {
    let mut table = MADT::new(OEM, OEM_TABLE, REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    for index in 0..vcpus {
        let id = u8::try_from(index).map_err(|_| Error::Boot(format!("vCPU {index} has no 8-bit APIC id")))?;
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    Ok(table)
}

fn dsdt(virtio_devices: usize) -> Vec<u8> {
    let mut table = Sdt::new(*b"DSDT", SDT_HEADER_BYTES, 2, OEM, OEM_TABLE, REVISION);
    let serial = Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &aml::ZERO),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8),
                    &Interrupt::new(true, true, false, false, layout::SERIAL_GSI),
                ]),
            ),
        ],
    )
    .bytes();
    let devices: Vec<Vec<u8>> = (0..virtio_devices).map(virtio_device).collect();
    let mut scope: Vec<&dyn Aml> = Vec::new();
    let raw: Vec<Raw> = std::iter::once(serial).chain(devices).map(Raw).collect();
    scope.extend(raw.iter().map(|device| device as &dyn Aml));
    table.append_slice(&Scope::new(Path::new("\\_SB_"), scope).bytes());
    let off = Package::new(vec![&layout::SLEEP_TYPE_OFF, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    table.append_slice(&Name::new(Path::new("\\_S5_"), &off).bytes());
    table.as_slice().to_vec()
}

fn virtio_device(index: usize) -> Vec<u8> {
    let base = layout::VIRTIO_MMIO as u32 + index as u32 * layout::VIRTIO_MMIO_STRIDE as u32;
    let gsi = layout::VIRTIO_FIRST_GSI + index as u32;
    Device::new(
        Path::new(&format!("VR{index:02}")),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0005"),
            &Name::new(Path::new("_UID"), &(index as u32)),
            &Name::new(Path::new("_CCA"), &aml::ONE),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, base, layout::VIRTIO_MMIO_STRIDE as u32),
                    // An edge: each event of the device raises it anew, and nobody has to lower it.
                    &Interrupt::new(true, true, false, false, gsi),
                ]),
            ),
        ],
    )
    .bytes()
}

/// Bytes that are AML already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

trait AmlBytes {
    fn bytes(&self) -> Vec<u8>;
}

impl<T: Aml> AmlBytes for T {
    fn bytes(&self) -> Vec<u8> {
        bytes_of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_sums_up_to_zero_and_says_its_length() {
        let tables = build_tables(4, 5).unwrap();

        assert_eq!(&tables[0].bytes[..8], b"RSD PTR ");
        assert_eq!(sum(&tables[0].bytes[..20]), 0);
        assert_eq!(sum(&tables[0].bytes), 0);
        for table in &tables[1..] {
            assert_eq!(sum(&table.bytes), 0, "{:?}", &table.bytes[..4]);
            assert_eq!(u32::from_le_bytes(table.bytes[4..8].try_into().unwrap()) as usize, table.bytes.len());
        }
    }

    #[test]
    fn tables_do_not_overlap_and_the_root_leads_to_them() {
        let tables = build_tables(64, layout::VIRTIO_DEVICES_MAX).unwrap();

        let mut end = layout::ACPI_TABLES;
        for table in &tables {
            assert!(table.address >= end, "{:#x}", table.address);
            end = table.address + table.bytes.len() as u64;
        }
        assert!(end <= layout::ACPI_TABLES_END);
        let xsdt = u64::from_le_bytes(tables[0].bytes[24..32].try_into().unwrap());
        let root = tables.iter().find(|table| table.address == xsdt).unwrap();
        assert_eq!(&root.bytes[..4], b"XSDT");
        let named: Vec<&[u8]> = root.bytes[36..]
            .chunks(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()))
            .map(|address| &tables.iter().find(|table| table.address == address).unwrap().bytes[..4])
            .collect();
        assert_eq!(named, [b"FACP", b"APIC"]);
    }

    #[test]
    fn the_machine_is_hardware_reduced_and_can_be_switched_off() {
        let tables = build_tables(1, 1).unwrap();
        let fadt = &tables.iter().find(|table| table.bytes.starts_with(b"FACP")).unwrap().bytes;

        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_ne!(flags & 1 << 20, 0);
        assert_eq!(fadt.len(), 276);
        assert_eq!(u64::from_le_bytes(fadt[248..256].try_into().unwrap()), u64::from(layout::SLEEP_CONTROL_PORT));
    }

    #[test]
    fn each_device_is_described_once_with_its_own_interrupt() {
        let tables = build_tables(1, 3).unwrap();
        let dsdt = &tables.iter().find(|table| table.bytes.starts_with(b"DSDT")).unwrap().bytes;

        let count = dsdt.windows(8).filter(|window| window == b"LNRO0005").count();
        assert_eq!(count, 3);
        for index in 0..3_u32 {
            let interrupt =
                [[0x89, 6, 0, 0b11, 1].as_slice(), &(layout::VIRTIO_FIRST_GSI + index).to_le_bytes()].concat();
            assert_eq!(dsdt.windows(9).filter(|window| *window == interrupt).count(), 1);
        }
    }
}
