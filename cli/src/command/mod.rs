//! What each command does: ask, turn into a view, write.

#[cfg(feature = "kubernetes")]
mod discover;
pub(crate) mod get;
#[cfg(feature = "kubernetes")]
mod mode;
#[cfg(feature = "kubernetes")]
mod off;
#[cfg(feature = "kubernetes")]
mod preflight;
pub(crate) mod top;
pub(crate) mod usage;
pub(crate) mod watch;

#[cfg(feature = "kubernetes")]
use std::process::ExitCode;

#[cfg(feature = "kubernetes")]
use bulkhead_api::object::Mode;
use jiff::Zoned;

#[cfg(feature = "kubernetes")]
use crate::args::ClusterCommand;
use crate::args::{Global, Output};
use crate::client::Client;
use crate::error::{CliError, Kind};
use crate::help::CalledAs;
use crate::out;
use crate::render::{self, Look, View};

/// The commands that ask the API server itself.
#[cfg(feature = "kubernetes")]
pub(crate) async fn in_cluster(
    global: &Global,
    command: &ClusterCommand,
) -> Result<ExitCode, CliError> {
    match command {
        ClusterCommand::Discover => discover::run(global).await,
        ClusterCommand::Preflight => preflight::run(global).await,
        ClusterCommand::Enforce(args) => mode::run(global, args, Mode::Enforce).await,
        ClusterCommand::Observe(args) => mode::run(global, args, Mode::Observe).await,
        ClusterCommand::Off(args) => off::run(global, args).await,
    }
}

/// A connected controller, and how to answer.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    output: Output,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(global: &Global, called_as: CalledAs) -> Result<Self, CliError> {
        let client = Client::connect(&global.server, called_as, global.timeout).await?;
        Ok(Self { client, output: global.output })
    }

    fn look(&self, details: bool) -> Look {
        Look { now: Zoned::now(), wide: self.output == Output::Wide, details }
    }

    fn write(&self, view: &impl View, details: bool) -> Result<(), CliError> {
        out::write(&render::document(view, self.output, &self.look(details))?)
    }

    /// Fails where one of these virtual clusters does not exist: a misspelt name must not read
    /// like one that used nothing.
    async fn must_exist(&self, names: impl Iterator<Item = &String>) -> Result<(), CliError> {
        let mut missing = Missing::default();
        for name in names {
            missing.keep_found(self.client.virtual_cluster(name).await)?;
        }
        missing.into_result()
    }
}

/// Named objects that do not exist; the others are still shown.
#[derive(Debug, Default)]
struct Missing(Option<CliError>);

impl Missing {
    /// What was found; any other failure ends the command.
    fn keep_found<T>(&mut self, answer: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == Kind::NotFound => {
                if let Some(earlier) = self.0.replace(error) {
                    out::report(&earlier);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn into_result(self) -> Result<(), CliError> {
        self.0.map_or(Ok(()), Err)
    }
}
