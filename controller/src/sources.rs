//! Where objects come from, and how they become what agents are told.

pub(crate) mod files;

use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_api::{Catalogue, Document, Problems};

use crate::ledger::{GoodFile, Ledger, LedgerError};
use crate::reason::chain;
use crate::state::{Findings, State};
use files::{Directory, ReadError};

/// Why the objects, as they are written now, are not what agents are told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// They are wrong.
    #[error("{0}")]
    Wrong(Problems),
    /// They cannot be remembered.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LoadError {
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Wrong(problems) => problems.0.iter().map(ToString::to_string).collect(),
            other => vec![chain(other)],
        }
    }
}

/// Reads objects and keeps the last state in which all of them were valid.
#[derive(Debug)]
pub(crate) struct Loader {
    directory: Directory,
    ledger: Arc<Ledger>,
    state: Arc<State>,
    /// What was tried last.
    tried: Mutex<Option<Vec<GoodFile>>>,
}

impl Loader {
    pub(crate) fn new(directory: Directory, ledger: Arc<Ledger>, state: Arc<State>) -> Self {
        Self {
            directory,
            ledger,
            state,
            tried: Mutex::default(),
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Loads the objects for the first time. Where they are wrong, the state that was valid last
    /// stands, from before the controller ended; where there never was one, that is an error:
    /// with nothing to tell, agents would take down what stands.
    pub(crate) fn start(&self) -> Result<(), LoadError> {
        let Err(error) = self.load() else {
            return Ok(());
        };
        let remembered = self.ledger.good_files()?;
        if remembered.is_empty() {
            return Err(error);
        }
        let catalogue = catalogue(&remembered).map_err(|_| error)?;
        self.state.set_catalogue(&catalogue)?;
        tracing::warn!("the objects that were valid last stand, as remembered");
        Ok(())
    }

    /// Loads the objects again if they changed. What is wrong is logged and shown to operators,
    /// and nothing else changes. Blocks.
    pub(crate) fn reload(&self) {
        // It is logged and shown already.
        let _ = self.load();
    }

    fn load(&self) -> Result<(), LoadError> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self
            .directory
            .read()
            .map_err(LoadError::from)
            .and_then(|files| {
                if tried.as_ref() == Some(&files) {
                    return Ok(None);
                }
                let taken = self.take(&files);
                // What could not be stored is worth another try; what is wrong stays wrong.
                *tried = if matches!(taken, Err(LoadError::Ledger(_))) {
                    None
                } else {
                    Some(files)
                };
                taken.map(Some)
            });
        match loaded {
            Ok(None) => Ok(()),
            Ok(Some(warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                self.state.found(Findings {
                    problems: Vec::new(),
                    warnings,
                });
                Ok(())
            }
            Err(error) => {
                let problems = error.lines();
                let mut findings = Findings::clone(&self.state.findings().borrow());
                if findings.problems != problems {
                    for problem in &problems {
                        tracing::error!("{problem}");
                    }
                    findings.problems = problems;
                    self.state.found(findings);
                }
                Err(error)
            }
        }
    }

    fn take(&self, files: &[GoodFile]) -> Result<Vec<String>, LoadError> {
        let catalogue = catalogue(files).map_err(LoadError::Wrong)?;
        self.state.set_catalogue(&catalogue)?;
        self.ledger.remember_files(files)?;
        Ok(catalogue.warnings.iter().map(ToString::to_string).collect())
    }
}

/// Everything that the files say, or all that is wrong with them.
fn catalogue(files: &[GoodFile]) -> Result<Catalogue, Problems> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match Document::parse_all(&file.name, &file.content) {
            Ok(of_file) => documents.extend(of_file),
            Err(wrong) => problems.extend(wrong.0),
        }
    }
    if problems.is_empty() {
        Catalogue::build(&documents)
    } else {
        Err(Problems(problems))
    }
}
