//! The gRPC contract: messages, clients, servers, and the descriptor set for reflection.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;

/// The contract's files, below the proto directory.
const FILES: [&str; 5] = [
    "bulkhead/v1/agents.proto",
    "bulkhead/v1/node_agent.proto",
    "bulkhead/v1/nodes.proto",
    "bulkhead/v1/usage.proto",
    "bulkhead/v1/virtual_clusters.proto",
];

/// Generates code and descriptors of the files below `proto` into `out`.
pub(crate) fn generate(proto: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let descriptors =
        protox::compile(FILES, [proto]).with_context(|| format!("compile {}", proto.display()))?;
    // Comments become documentation of the code, but no part of what reflection serves.
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    let path = out.join("descriptors.bin");
    fs::write(&path, bare.encode_to_vec()).with_context(|| format!("write {}", path.display()))?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .out_dir(out)
        .compile_fds(descriptors)
        .with_context(|| format!("generate code into {}", out.display()))
}
