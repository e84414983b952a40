//! See `bulkhead_fuzz::conversions::any_values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::conversions::any_values(data));
