//! Conversations that the crate itself never has: what a real runtime does then.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bulkhead_nri::messages::{ConfigureResponse, RegisterPluginRequest};
use bulkhead_nri::mux::{self, Connection};
use bulkhead_nri::ttrpc::{self, Incoming, Kind, Request, Response};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How far a runtime goes with a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// It closed the connection before it configured the plugin.
    Nothing,
    /// It closed the connection after it configured the plugin.
    Configured,
    /// It told what exists.
    Synchronized,
}

/// Registers a plugin whose name has `name` characters, in frames of the crate's making or in a
/// single one, and answers Configure with `events`, whatever they mean.
pub(crate) async fn registration(
    socket: &Path,
    name: usize,
    one_frame: bool,
    events: i32,
) -> Result<Got> {
    let mut stream = UnixStream::connect(socket).await.context("connect to NRI")?;
    let register = RegisterPluginRequest {
        plugin_name: "n".repeat(name),
        plugin_idx: "77".to_owned(),
        nri_version: String::new(),
    };
    let request = Request {
        service: "nri.pkg.api.v1alpha1.Runtime".to_owned(),
        method: "RegisterPlugin".to_owned(),
        payload: register.encode_to_vec(),
        timeout_nano: 0,
    };
    let message = ttrpc::message(1, Kind::Request, &request.encode_to_vec()).context("too long")?;
    let mut wire = Vec::new();
    if one_frame {
        wire.extend(2u32.to_be_bytes());
        wire.extend(u32::try_from(message.len())?.to_be_bytes());
        wire.extend(&message);
    } else {
        mux::write(Connection::Runtime, &message, &mut wire);
    }
    stream.write_all(&wire).await.context("register")?;
    timeout(Duration::from_secs(20), answer(stream, events)).await.context("the runtime hangs")?
}

async fn answer(mut stream: UnixStream, events: i32) -> Result<Got> {
    let mut frames = mux::Reader::new(ttrpc::MAX_MESSAGE);
    let mut requests = ttrpc::Reader::new(ttrpc::MAX_MESSAGE);
    let mut got = Got::Nothing;
    let mut buffer = [0; 4096];
    loop {
        // A runtime that closes with something unread resets the connection.
        let length = stream.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return Ok(got);
        }
        let mut bytes = &buffer[..length];
        while let Some((connection, mut piece)) = frames.next(&mut bytes)? {
            if connection == Connection::Runtime {
                continue;
            }
            while let Some(Incoming::Message(header, payload)) = requests.next(&mut piece) {
                let request = Request::decode(&*payload).context("read a request")?;
                match &*request.method {
                    "Configure" => got = Got::Configured,
                    "Synchronize" => return Ok(Got::Synchronized),
                    other => bail!("the runtime asked for {other}"),
                }
                let payload = ConfigureResponse { events }.encode_to_vec();
                let response = Response { status: None, payload }.encode_to_vec();
                let message = ttrpc::message(header.stream, Kind::Response, &response);
                let mut wire = Vec::new();
                mux::write(Connection::Plugin, &message.context("too long")?, &mut wire);
                stream.write_all(&wire).await.context("answer Configure")?;
            }
        }
    }
}
