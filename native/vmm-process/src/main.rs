//! `bulkhead-vmm [CONFIG_FD]`: one machine; see the library.

use bulkhead_vmm_process::{run, status};

fn main() {
    let default = std::panic::take_hook();
    // A thread that panics leaves a machine that is half there.
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        std::process::exit(status::SYSTEM);
    }));
    let fd = match std::env::args().nth(1).map(|text| text.parse()) {
        None => 3,
        Some(Ok(fd)) => fd,
        Some(Err(_)) => {
            eprintln!("usage: bulkhead-vmm [CONFIG_FD]");
            std::process::exit(status::BAD_CONFIG);
        }
    };
    let code = run::run(fd).unwrap_or_else(|failure| {
        eprintln!("bulkhead-vmm: {}", failure.message);
        failure.status
    });
    std::process::exit(code);
}
