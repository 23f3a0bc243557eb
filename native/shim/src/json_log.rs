//! A container's log, as Docker's json-file driver writes it (moby `daemon/logger/copier.go`, `jsonfilelog`, `loggerutils`):
//! one JSON object a line; a line longer than 16 KiB is cut into parts of which only the last ends with a newline; a
//! file that has reached its size is rotated before the next write.

use crate::phases::realtime_ns;
use bulkhead_protocol::Log;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;

/// A line is cut here (moby `copier.go` defaultBufSize).
const LINE_BYTES: usize = 16 * 1024;

/// An open log. Trouble with the disk never reaches the container: it is counted and told once.
pub struct JsonLog {
    path: String,
    max_size_bytes: u64,
    max_files: u32,
    file: Option<File>,
    size_bytes: u64,
    lines: [Line; 2],
    /// Whole entries that were not written yet, and where each ends.
    pending: Vec<u8>,
    ends: Vec<usize>,
    lost_entries: u64,
}

#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// Time of the first part of a line that is longer than one.
    first_part: Option<String>,
}

impl JsonLog {
    /// Opens the log for appending; none if the driver writes no file.
    pub fn open(log: &Log) -> Result<Option<Self>> {
        if log.driver != "json-file" {
            return Ok(None);
        }
        let file = open_append(&log.path)?;
        Ok(Some(Self {
            path: log.path.clone(),
            max_size_bytes: log.max_size_bytes,
            max_files: log.max_files.max(1),
            size_bytes: file.metadata()?.len(),
            file: Some(file),
            lines: Default::default(),
            pending: Vec::new(),
            ends: Vec::new(),
            lost_entries: 0,
        }))
    }

    /// Adds output of a stream (1 or 2). Whole lines are written by [`JsonLog::flush`].
    pub fn add(&mut self, stream: u8, payload: &[u8]) {
        let (index, name) = if stream == 2 { (1, "stderr") } else { (0, "stdout") };
        let mut rest = payload;
        while !rest.is_empty() {
            let line = &mut self.lines[index];
            let room = LINE_BYTES - line.bytes.len();
            let window = &rest[..rest.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(newline) => {
                    line.bytes.extend_from_slice(&rest[..=newline]);
                    rest = &rest[newline + 1..];
                    let time = line.first_part.take().unwrap_or_else(now);
                    encode_entry(&mut self.pending, &line.bytes, name, &time);
                    line.bytes.clear();
                }
                None => {
                    line.bytes.extend_from_slice(window);
                    rest = &rest[window.len()..];
                    if line.bytes.len() < LINE_BYTES {
                        continue;
                    }
                    let time = line.first_part.get_or_insert_with(now);
                    encode_entry(&mut self.pending, &line.bytes, name, time);
                    line.bytes.clear();
                }
            }
            self.ends.push(self.pending.len());
        }
    }

    /// Writes what was added. Rotation happens between entries only.
    pub fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let ends = std::mem::take(&mut self.ends);
        let mut written = 0;
        let mut next = 0;
        while next < ends.len() {
            if self.max_size_bytes > 0 && self.size_bytes >= self.max_size_bytes {
                self.rotate();
            }
            // As many entries as start below the limit go in one write.
            let mut last = next;
            while last + 1 < ends.len()
                && (self.max_size_bytes == 0 || self.size_bytes + ((ends[last] - written) as u64) < self.max_size_bytes)
            {
                last += 1;
            }
            self.write(&pending[written..ends[last]], last + 1 - next);
            written = ends[last];
            next = last + 1;
        }
        // Keep the allocations, unless a burst made them large.
        if pending.capacity() <= 4 * LINE_BYTES {
            self.pending = pending;
            self.pending.clear();
        }
    }

    /// Writes what is left: a line without its newline is written as it is.
    pub fn finish(&mut self) {
        for (line, name) in self.lines.iter_mut().zip(["stdout", "stderr"]) {
            if !line.bytes.is_empty() {
                let time = line.first_part.take().unwrap_or_else(now);
                encode_entry(&mut self.pending, &line.bytes, name, &time);
                self.ends.push(self.pending.len());
                line.bytes.clear();
            }
        }
        self.flush();
        if self.lost_entries > 0 {
            eprintln!("log {}: {} entries were lost", self.path, self.lost_entries);
        }
    }

    fn write(&mut self, entries: &[u8], count: usize) {
        let outcome = match &mut self.file {
            Some(file) => file.write_all(entries),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        match outcome {
            Ok(()) => self.size_bytes += entries.len() as u64,
            Err(cause) => {
                // No torn entry stays behind.
                if let Some(file) = &self.file {
                    let _ = file.set_len(self.size_bytes);
                }
                self.lose(count as u64, &cause);
            }
        }
    }

    fn lose(&mut self, count: u64, cause: &std::io::Error) {
        if self.lost_entries == 0 {
            eprintln!("log {}: cannot write: {cause}; the container goes on, entries are lost", self.path);
        }
        self.lost_entries += count;
    }

    fn rotate(&mut self) {
        let rotated = |number: u32| format!("{}.{number}", self.path);
        if self.max_files > 1 {
            for number in (1..self.max_files - 1).rev() {
                let _ = std::fs::rename(rotated(number), rotated(number + 1));
            }
            let _ = std::fs::rename(&self.path, rotated(1));
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
        match open_append(&self.path) {
            Ok(file) => {
                self.size_bytes = file.metadata().map_or(0, |facts| facts.len());
                self.file = Some(file);
            }
            Err(cause) => {
                self.file = None;
                self.size_bytes = 0;
                self.lose(0, &cause);
            }
        }
    }
}

fn open_append(path: &str) -> Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// One entry, byte for byte as moby's jsonlog writes it.
fn encode_entry(into: &mut Vec<u8>, line: &[u8], stream: &str, time: &str) {
    into.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => into.extend_from_slice(b"\\\""),
                '\\' => into.extend_from_slice(b"\\\\"),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(into, "\\u{:04x}", u32::from(character));
                }
                _ => into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
    let _ = writeln!(into, "\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}");
}

fn now() -> String {
    format_time(realtime_ns())
}

/// Go's RFC3339Nano in UTC: trailing zeros of the fraction are left out.
fn format_time(realtime_ns: u64) -> String {
    let (seconds, nanoseconds) = (realtime_ns / 1_000_000_000, realtime_ns % 1_000_000_000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date in the proleptic Gregorian calendar, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds > 0 {
        text += format!(".{nanoseconds:09}").trim_end_matches('0');
    }
    text + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(format_time(1_709_251_199_120_000_000), "2024-02-29T23:59:59.12Z");
        assert_eq!(format_time(1_735_689_600_000_000_001), "2025-01-01T00:00:00.000000001Z");
    }

    #[test]
    fn entries_are_escaped_as_moby_escapes_them() {
        let mut entry = Vec::new();
        encode_entry(&mut entry, b"a\t\"\\<\xff\xe2\x80\xa8\xc3\xa9\r\n", "stdout", "T");
        let expected =
            "{\"log\":\"a\\u0009\\\"\\\\\\u003c\\ufffd\\u2028é\\r\\n\",\"stream\":\"stdout\",\"time\":\"T\"}\n";
        assert_eq!(String::from_utf8(entry).unwrap(), expected);
    }

    fn logged(directory: &std::path::Path, max_size_bytes: u64, max_files: u32, parts: &[(u8, &[u8])]) -> Vec<String> {
        let path = directory.join("log").to_str().unwrap().to_owned();
        let log = Log { driver: "json-file".into(), path: path.clone(), max_size_bytes, max_files };
        let mut log = JsonLog::open(&log).unwrap().unwrap();
        for (stream, part) in parts {
            log.add(*stream, part);
            log.flush();
        }
        log.finish();
        let files = [path.clone(), format!("{path}.1"), format!("{path}.2"), format!("{path}.3")];
        files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect()
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("bulkhead-json-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn long_lines_are_cut_and_an_unfinished_one_is_kept() {
        let directory = scratch("cut");
        let long = vec![b'x'; LINE_BYTES + 5];
        let files = logged(&directory, 0, 1, &[(1, &long), (2, b"err\n"), (1, b"\nend")]);
        std::fs::remove_dir_all(&directory).unwrap();
        let texts: Vec<String> = files[0]
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(texts, ["x".repeat(LINE_BYTES), "err\n".into(), "xxxxx\n".into(), "end".into()]);
    }

    #[test]
    fn a_full_file_is_rotated_and_only_so_many_are_kept() {
        let directory = scratch("rotate");
        let lines: Vec<u8> = (0..40).flat_map(|number| format!("line {number:02}\n").into_bytes()).collect();
        let files = logged(&directory, 400, 3, &[(1, &lines)]);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(files.len(), 3);
        assert!(files[0].contains("line 39"));
        assert!(!files[0].contains("line 00"));
        assert!(files[1..].iter().all(|file| (400..500).contains(&file.len())), "{files:?}");
    }
}
