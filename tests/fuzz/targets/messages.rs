//! See `bulkhead_fuzz::messages::any_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::messages::any_bytes(data));
