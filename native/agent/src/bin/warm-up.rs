//! `bulkhead-warm-up`: what a pooled machine's first container runs. It does, once or twice, what programs do at their start, so that
//! an emulated guest's kernel has that code translated before anybody waits for it: loading a program, forking, pipes, files, memory,
//! sockets, signals, threads, and an exit that is waited for.

use std::ffi::OsStr;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// Touched once, as a program's heap is.
const HEAP_BYTES: usize = 4 << 20;

fn main() {
    // What fails here costs a few milliseconds later, and nothing else: the machine is as good without it.
    if std::env::args_os().nth(1).is_some_and(|word| word == OsStr::new("child")) {
        let mut words = String::new();
        let _ = std::io::stdin().read_to_string(&mut words);
        println!("{}", words.len());
        return;
    }
    files();
    memory();
    children();
    sockets();
    let _ = std::thread::spawn(|| println!("thread")).join();
    let _ = std::io::stderr().write_all(b"warm\n");
}

fn files() {
    for path in ["/proc/self/maps", "/proc/self/status", "/proc/meminfo", "/proc/mounts", "/etc/hosts", "/etc/passwd"] {
        let _ = std::fs::read(path);
    }
    for directory in ["/", "/etc", "/proc/self/fd", "/sys/fs/cgroup", "/dev"] {
        let _ = std::fs::read_dir(directory)
            .map(|entries| entries.flatten().filter_map(|entry| entry.metadata().ok()).count());
    }
    let _ = std::fs::create_dir_all("/tmp/warm/up");
    let written = std::fs::write("/tmp/warm/up/file", vec![b'x'; 64 << 10]);
    let _ =
        written.and_then(|()| std::fs::set_permissions("/tmp/warm/up/file", std::fs::Permissions::from_mode(0o600)));
    let _ = std::fs::rename("/tmp/warm/up/file", "/tmp/warm/file");
    let _ = std::os::unix::fs::symlink("file", "/tmp/warm/link");
    let _ = std::fs::read("/tmp/warm/link");
    // A file of a read-only layer that is changed is copied up first.
    let _ = std::fs::OpenOptions::new().append(true).open("/etc/passwd").and_then(|mut file| file.write_all(b"#\n"));
    let _ = std::fs::remove_dir_all("/tmp/warm");
    let _ = std::fs::OpenOptions::new().write(true).open("/dev/null").and_then(|mut null| null.write_all(b"x"));
    let _ = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut [0; 32]));
}

fn memory() {
    let mut heap = vec![0_u8; HEAP_BYTES];
    for page in heap.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&heap);
}

fn children() {
    let Ok(program) = std::env::current_exe() else { return };
    for _ in 0..2 {
        let spawned = Command::new(&program).arg("child").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = spawned else { return };
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(b"a few words\n"));
        let mut line = String::new();
        let _ = child.stdout.take().map(|stdout| std::io::BufReader::new(stdout).read_line(&mut line));
        let _ = child.wait();
        print!("{line}");
    }
}

fn sockets() {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return };
    let Ok(address) = listener.local_addr() else { return };
    let Ok(mut client) = TcpStream::connect(address) else { return };
    let Ok((mut server, _)) = listener.accept() else { return };
    let _ = client.write_all(b"hello");
    let _ = server.read(&mut [0; 16]);
    let _ = std::os::unix::net::UnixStream::pair().and_then(|(mut one, mut other)| {
        one.write_all(b"x")?;
        other.read(&mut [0; 1])
    });
}
