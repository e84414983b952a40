//! See `bulkhead_fuzz::saved::any_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::saved::any_file(data));
