//! The operators' hand.

fn main() {}
