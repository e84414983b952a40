//! See `bulkhead_fuzz::deltas::any_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::deltas::any_stream(data));
