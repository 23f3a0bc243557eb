use crate::virtio::block::Block;
use crate::virtio::block_backend::Backend;
use crate::virtio::console::Console;
use crate::virtio::device::{Control, VirtioDevice, Work};
use crate::virtio::entropy::Entropy;
use crate::virtio::net::Net;
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::test_driver::{BUFFERS, Driver, INDIRECT, NEXT, Numbers, RAM_BYTES, WRITE};
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn disk(bytes: u64) -> (File, Box<dyn VirtioDevice>) {
    let file = crate::memory::create_memory_file(bytes).unwrap();
    let backend = Backend::from_file(file.try_clone().unwrap(), false).unwrap();
    (file, Box::new(Block::new(backend, "disk", RateLimit::new(0, 0).unwrap()).unwrap()))
}

fn console() -> (UnixStream, Box<dyn VirtioDevice>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let changes = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let ports = vec![("one".to_owned(), Some(theirs.into())), ("two".to_owned(), None)];
    (ours, Box::new(Console::new(ports, changes).unwrap()))
}

/// A tap, where this user may make one.
fn tap() -> Option<File> {
    use std::os::fd::AsRawFd;
    let file = File::options().read(true).write(true).open("/dev/net/tun").ok()?;
    let mut request = [0_u8; 40];
    request[..8].copy_from_slice(b"bhvmu%d\0");
    request[16..18].copy_from_slice(&0x5002_u16.to_le_bytes());
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    (unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) } == 0).then_some(file)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &[0; 4], &sector.to_le_bytes()].concat()
}

#[test]
fn a_driver_cannot_run_with_features_that_are_not_on_offer() {
    let driver = Driver::untouched(Box::new(Entropy));
    driver.write(0x70, 1);
    driver.write(0x70, 3);
    driver.write(0x24, 1);
    driver.write(0x20, u32::MAX);
    driver.write(0x70, 11);

    assert_eq!(driver.read(0x70), 3);
}

#[test]
fn a_queue_outside_of_memory_stops_its_device() {
    let driver = Driver::untouched(Box::new(Entropy));
    driver.negotiate();
    driver.make_queue(0);
    driver.write(0x44, 0);
    driver.write(0x84, 7);
    driver.write(0x44, 1);
    driver.write(0x70, 15);

    assert!(driver.needs_reset());
    assert_eq!(driver.read(0x60), 2);
}

#[test]
fn an_available_index_that_runs_away_stops_its_device_until_it_is_reset() {
    let mut driver = Driver::running(Box::new(Entropy));
    driver.put(0x1402, &1000_u16.to_le_bytes());
    driver.notify(0);
    assert!(driver.needs_reset());

    driver.restart();
    driver.offer(0, &[(BUFFERS, 32, WRITE, 0)]);
    driver.notify(0);

    assert_eq!(driver.used(0), (1, 32));
    assert_ne!(driver.get(BUFFERS, 32), vec![0; 32]);
}

#[test]
fn one_request_for_entropy_gets_64_kib_at_most() {
    let mut driver = Driver::running(Box::new(Entropy));
    driver.offer(0, &[(BUFFERS, 512 << 10, WRITE, 0)]);
    driver.notify(0);

    assert_eq!(driver.used(0), (1, 64 << 10));
    assert_eq!(driver.read(0x60), 1);
    assert_eq!(driver.interrupt.read().unwrap(), 1);
}

#[test]
fn a_disk_reads_what_was_written_through_it() {
    let (file, device) = disk(1 << 20);
    let mut driver = Driver::running(device);
    driver.put(BUFFERS, &header(1, 3));
    driver.put(BUFFERS + 0x1000, &[0xab; 1024]);
    driver.offer(0, &[(BUFFERS, 16, NEXT, 1), (BUFFERS + 0x1000, 1024, NEXT, 2), (BUFFERS + 0x2000, 1, WRITE, 0)]);
    driver.notify(0);
    assert_eq!((driver.used(0), driver.get(BUFFERS + 0x2000, 1)), ((1, 1), vec![0]));

    let mut bytes = [0; 1024];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 3 * 512).unwrap();
    assert_eq!(bytes, [0xab; 1024]);

    // Through an indirect table, the answer in two pieces.
    driver.put(BUFFERS, &header(0, 3));
    driver.put_descriptor(BUFFERS + 0x100, (BUFFERS, 16, NEXT, 1));
    driver.put_descriptor(BUFFERS + 0x110, (BUFFERS + 0x4000, 1000, NEXT | WRITE, 2));
    driver.put_descriptor(BUFFERS + 0x120, (BUFFERS + 0x6000, 25, WRITE, 0));
    driver.offer(0, &[(BUFFERS + 0x100, 48, INDIRECT, 0)]);
    driver.notify(0);
    assert_eq!(driver.used(0), (2, 1025));
    assert_eq!(driver.get(BUFFERS + 0x4000, 1000), vec![0xab; 1000]);
    assert_eq!(driver.get(BUFFERS + 0x6000, 25), [vec![0xab; 24], vec![0]].concat());
}

#[test]
fn impossible_requests_to_a_disk_end_in_an_error_and_the_next_one_is_served() {
    let (_file, device) = disk(1 << 20);
    let mut driver = Driver::running(device);
    let status = BUFFERS + 0x2000;
    let mut count = 0;
    for (request, length, expected) in [
        (header(0, 1 << 11), 512, 1),
        (header(0, u64::MAX), 512, 1),
        (header(0, 0), 511, 1),
        (header(1, 2047), 1024, 1),
        (header(99, 0), 512, 2),
        (header(11, 0), 15, 1),
        (header(13, 0), 0x8000, 1),
        (header(0, 0), 512, 0),
    ] {
        driver.put(BUFFERS, &request);
        driver.put(status, &[0xee]);
        let direction = if request[0] == 0 { WRITE } else { 0 };
        driver.offer(
            0,
            &[(BUFFERS, 16, NEXT, 1), (BUFFERS + 0x1000, length, NEXT | direction, 2), (status, 1, WRITE, 0)],
        );
        driver.notify(0);
        count += 1;
        assert_eq!(driver.used(0).0, count);
        assert_eq!(driver.get(status, 1), [expected], "{request:?}");
    }
    assert!(!driver.needs_reset());
}

#[test]
fn chains_that_are_no_requests_are_given_back() {
    let (_file, device) = disk(1 << 20);
    let mut driver = Driver::running(device);
    let chains: [&[(u64, u32, u16, u16)]; 6] = [
        &[(BUFFERS, 16, 0, 0)],
        &[(BUFFERS, 15, NEXT, 1), (BUFFERS, 1, WRITE, 0)],
        &[(BUFFERS, 16, NEXT, 0)],
        &[(RAM_BYTES, 16, NEXT, 1), (BUFFERS, 1, WRITE, 0)],
        &[(BUFFERS, 1, NEXT | WRITE, 1), (BUFFERS, 16, 0, 0)],
        &[(BUFFERS, u32::MAX, WRITE, 0)],
    ];
    for (count, chain) in (1..).zip(chains) {
        driver.offer(0, chain);
        driver.notify(0);
        assert_eq!(driver.used(0), (count, 0), "{chain:?}");
    }
    assert!(!driver.needs_reset());
}

#[test]
fn a_disk_grows_while_it_is_used_and_does_not_shrink() {
    let directory = std::env::temp_dir().join(format!("bulkhead-vmm-grow-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&directory).unwrap();
    file.set_len(1 << 20).unwrap();
    let backend = Backend::from_file(file.try_clone().unwrap(), false).unwrap();
    let device = Block::new(backend, "disk", RateLimit::new(0, 0).unwrap()).unwrap();
    let driver = Driver::running(Box::new(device));
    assert_eq!(driver.read(0x100), 2048);
    let generation = driver.read(0xfc);

    file.set_len(2 << 20).unwrap();
    driver.transport.control(Control::Resize).unwrap();
    assert_eq!((driver.read(0x100), driver.read(0x60)), (4096, 2));
    assert_ne!(driver.read(0xfc), generation);

    file.set_len(1 << 20).unwrap();
    let refusal = driver.transport.control(Control::Resize).unwrap_err();
    std::fs::remove_file(directory).unwrap();
    assert!(refusal.to_string().contains("cannot shrink to 1048576"), "{refusal}");
}

#[test]
fn a_port_holds_the_host_s_bytes_until_the_guest_has_opened_it() {
    use std::io::Write;
    let (mut host, device) = console();
    let mut driver = Driver::running(device);
    let say = |driver: &mut Driver, id: u32, event: u16, value: u16| {
        let message = [id.to_le_bytes().as_slice(), &event.to_le_bytes(), &value.to_le_bytes()].concat();
        driver.put(BUFFERS, &message);
        driver.offer(3, &[(BUFFERS, 8, 0, 0)]);
        driver.notify(3);
    };
    host.write_all(b"hello").unwrap();
    driver.offer(4, &[(BUFFERS + 0x1000, 64, WRITE, 0)]);
    driver.notify(4);
    driver.transport.process(Work::Source(0));
    assert_eq!(driver.used(4).0, 0);

    say(&mut driver, 0, 0, 1);
    say(&mut driver, 1, 3, 1);
    say(&mut driver, 1, 6, 1);
    assert_eq!(driver.used(4), (1, 5));
    assert_eq!(driver.get(BUFFERS + 0x1000, 5), b"hello");

    driver.put(BUFFERS + 0x3000, b"answer");
    driver.offer(5, &[(BUFFERS + 0x3000, 6, 0, 0)]);
    driver.notify(5);
    let mut answer = [0; 6];
    host.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, driver.used(5).0), (b"answer", 1));
}

#[test]
fn a_guest_that_writes_garbage_everywhere_harms_only_itself() {
    let mut devices: Vec<Box<dyn VirtioDevice>> = vec![Box::new(Entropy), disk(1 << 20).1, console().1];
    if let Some(tap) = tap() {
        let limit = RateLimit::new(0, 0).unwrap();
        devices.push(Box::new(Net::new(tap, [2, 0, 0, 0, 0, 1], 1500, limit).unwrap()));
    }
    let registers =
        [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x100, 0x108];
    for (seed, device) in (1..).zip(devices) {
        let mut driver = Driver::running(device);
        let queues = driver.transport.events.len();
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 * seed);
        for round in 0..30_000_u32 {
            match numbers.next() % 16 {
                0 => {
                    driver.write(numbers.near(&registers), numbers.near(&[0, 1, 3, 11, 15, 0x1000, 0x1400, 16]) as u32)
                }
                1 => drop(driver.read(numbers.near(&registers))),
                2..=7 => {
                    let at = 0x1000 + numbers.next() % (queues as u64 * 256) * 16;
                    let address = numbers.near(&[BUFFERS, 0x1000, RAM_BYTES - 8, 0, u64::MAX]);
                    let length = numbers.near(&[1, 8, 16, 512, 4096, 1 << 19]) as u32;
                    let (flags, next) = (numbers.near(&[0, 1, 2, 3, 4]) as u16, numbers.near(&[0, 1, 2, 3, 15]) as u16);
                    driver.put_descriptor(at.min(RAM_BYTES - 16), (address, length, flags, next));
                }
                8 => driver.put(BUFFERS + numbers.next() % 4096, &numbers.next().to_le_bytes()),
                9..=11 => {
                    driver.offer_head((numbers.next() % queues as u64) as usize, numbers.near(&[0, 1, 2, 3]) as u16)
                }
                _ => driver.notify((numbers.next() % queues as u64) as usize),
            }
            if round % 64 == 0 && driver.needs_reset() {
                driver.restart();
            }
        }
    }
}
