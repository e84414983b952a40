//! See `bulkhead_fuzz::words::any_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::words::any_text(data));
