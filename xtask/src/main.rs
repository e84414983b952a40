//! One verb, one file: build, set up, test, demo, lab.

fn main() {}
