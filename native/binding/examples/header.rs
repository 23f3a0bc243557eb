//! Writes `include/bulkhead.h` from the exports of this crate, or, with `--check`, fails if the file is not what would be written.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_directory.join("include/bulkhead.h");
    let mut generated = Vec::new();
    match cbindgen::generate(crate_directory) {
        Ok(bindings) => bindings.write(&mut generated),
        Err(error) => {
            eprintln!("cannot generate the header: {error}");
            return ExitCode::FAILURE;
        }
    }
    if std::env::args().any(|argument| argument == "--check") {
        if std::fs::read(&path).is_ok_and(|current| current == generated) {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "native/binding/include/bulkhead.h is out of date: run `cargo run -p bulkhead-binding --example header`"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = std::fs::write(&path, generated) {
        eprintln!("cannot write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
