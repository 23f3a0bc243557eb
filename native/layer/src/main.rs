//! `bulkhead-layer build --output PATH [options] < blob`: see the library for what it does. This file reads the command
//! line and prints the one line of JSON; [`job`] runs the confined child.

mod job;

use bulkhead_layer::{BuildSpec, Code, LayerError, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str =
    "usage: bulkhead-layer build --output PATH [--expect-digest sha256:HEX] [--expect-diff-id sha256:HEX]
       [--max-bytes N] [--max-entries N] [--max-compressed-bytes N] < BLOB";

fn main() -> ExitCode {
    let (spec, output) = match parse_arguments(std::env::args_os().skip(1)) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("bulkhead-layer: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match job::run(&spec, &output).and_then(|built| json(&built)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Two strings: this cannot fail.
            eprintln!("{}", json(&error).unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| LayerError::new(Code::Io, format!("cannot write the result: {e}")))
}

fn parse_arguments(mut arguments: impl Iterator<Item = OsString>) -> std::result::Result<(BuildSpec, PathBuf), String> {
    match arguments.next() {
        Some(command) if command == "build" => {}
        Some(command) => return Err(format!("unknown command {}", command.display())),
        None => return Err("no command".into()),
    }
    let mut spec = BuildSpec::default();
    let mut output = None;
    while let Some(option) = arguments.next() {
        let option = option.into_string().map_err(|option| format!("unknown option {}", option.display()))?;
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        if option == "--output" {
            output = Some(PathBuf::from(value));
            continue;
        }
        let value = value.into_string().map_err(|_| format!("{option} has a bad value"))?;
        match option.as_str() {
            "--expect-digest" => spec.expect_digest = Some(parse_digest(&option, value)?),
            "--expect-diff-id" => spec.expect_diff_id = Some(parse_digest(&option, value)?),
            "--max-bytes" => spec.limits.tar_bytes = parse_number(&option, &value)?,
            "--max-entries" => spec.limits.entries = parse_number(&option, &value)?,
            "--max-compressed-bytes" => spec.limits.compressed_bytes = parse_number(&option, &value)?,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok((spec, output.ok_or("--output is missing")?))
}

fn parse_digest(option: &str, value: String) -> std::result::Result<String, String> {
    let is_digest = value
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    if is_digest { Ok(value) } else { Err(format!("{option} wants sha256: and 64 hex digits")) }
}

fn parse_number(option: &str, value: &str) -> std::result::Result<u64, String> {
    // Numbers of bytes are added to each other; far below 2^63 nothing overflows.
    let number = value.parse().ok().filter(|&number: &u64| number <= 1 << 60);
    number.ok_or_else(|| format!("{option} wants a number of at most 2^60"))
}
