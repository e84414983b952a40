//! See `bulkhead_fuzz::probe_files::any_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::probe_files::any_files(data));
