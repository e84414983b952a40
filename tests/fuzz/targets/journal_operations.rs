//! See `bulkhead_fuzz::journal::operations::any_operations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::journal::operations::any_operations(data));
