//! What each command does: ask, turn into a view, write.

pub(crate) mod get;
pub(crate) mod top;
pub(crate) mod usage;
pub(crate) mod watch;

use jiff::Zoned;

use crate::args::{Global, Output};
use crate::client::Client;
use crate::error::{CliError, Kind};
use crate::out;
use crate::render::{self, Look, View};

/// A connected controller, and how to answer.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    output: Output,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(global: &Global) -> Result<Self, CliError> {
        let client = Client::connect(&global.server, global.timeout).await?;
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
