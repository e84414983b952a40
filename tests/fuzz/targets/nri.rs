//! See `bulkhead_fuzz::nri::any_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::nri::any_bytes(data));
