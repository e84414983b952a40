//! See `bulkhead_fuzz::config::any_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::config::any_text(data));
