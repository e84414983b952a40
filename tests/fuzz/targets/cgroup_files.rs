//! See `bulkhead_fuzz::cgroup_files::any_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::cgroup_files::any_text(data));
