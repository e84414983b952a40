//! See `bulkhead_fuzz::snapshots::any_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::snapshots::any_stream(data));
