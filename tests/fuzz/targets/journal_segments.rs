//! See `bulkhead_fuzz::journal::segments::any_segments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::journal::segments::any_segments(data));
