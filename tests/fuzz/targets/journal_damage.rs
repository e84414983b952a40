//! See `bulkhead_fuzz::journal::damage::any_damage`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::journal::damage::any_damage(data));
