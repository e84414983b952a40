//! Writes the generated files below a directory, laid out as in the work tree.
//!
//! `bulkhead-codegen WORK_TREE OUT_DIR`; `cargo xtask codegen` compares and copies.

mod crds;
mod proto;

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [tree, out] = args.as_slice() else {
        bail!("usage: bulkhead-codegen WORK_TREE OUT_DIR");
    };
    proto::generate(&tree.join("proto"), &out.join("proto/src/generated"))?;
    crds::generate(&out.join("deploy/crds"))?;
    crds::generate_for_chart(&out.join("deploy/helm/bulkhead/crds"))
}
