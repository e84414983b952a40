//! The tenancy controller: streams facts to agents, keeps the usage ledger.

fn main() {}
