//! `bulkhead-agent`: see the library.
//!
//! There is no Rust start-up code here (`no_main`): it aborts where file descriptors 0 to 2 are closed and /dev/null
//! does not exist yet, which is what PID 1 of a guest without a console sees.
#![no_main]

/// Entry from the C start-up code.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argument_count: i32, _arguments: *const *const std::ffi::c_char) -> i32 {
    bulkhead_agent::run()
}
