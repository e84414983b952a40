//! Records what a plugin and a runtime say to each other, for `bulkhead_nri::testing`.
//!
//! `record RUNTIME_SOCKET OWN_SOCKET`: waits for one plugin at its own socket, connects it to the
//! runtime, and prints the conversation when one of them closes.

use anyhow::{Context, bail};
use bulkhead_nri::testing::record;
use tokio::net::{UnixListener, UnixStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, own] = &*arguments else { bail!("usage: record RUNTIME_SOCKET OWN_SOCKET") };
    let listener = UnixListener::bind(own).with_context(|| format!("listen at {own}"))?;
    let (plugin, _) = listener.accept().await.context("wait for a plugin")?;
    let runtime = UnixStream::connect(runtime).await.with_context(|| format!("open {runtime}"))?;
    print!("{}", record(plugin, runtime).await.context("record")?);
    Ok(())
}
