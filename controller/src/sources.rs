//! Where objects come from, and how they become what agents are told.

pub(crate) mod files;

use std::collections::BTreeMap;
use std::path::PathBuf;
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
    /// There are none where there were some: the directory may not be mounted yet.
    #[error(
        "{path} holds no objects, which would take every virtual cluster down; put its files \
         back, or, to have none, a file none.yaml that says so by a comment or by \"---\""
    )]
    Gone {
        /// The directory.
        path: PathBuf,
    },
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
    parsed: Mutex<Parsed>,
}

/// What each file says, as it was when it was parsed last: a change is of few files, and parsing
/// takes most of the time.
#[derive(Debug, Default)]
struct Parsed(BTreeMap<String, (String, Vec<Document>)>);

impl Parsed {
    /// Every object of the files, or all that is wrong with how they are written.
    fn documents(&mut self, files: &[GoodFile]) -> Result<Vec<Document>, Problems> {
        let mut before = std::mem::take(&mut self.0);
        let mut problems = Vec::new();
        for GoodFile { name, content } in files {
            let known = before.remove(name).filter(|(known, _)| known == content);
            match known.map_or_else(|| Document::parse_all(name, content), |(_, said)| Ok(said)) {
                Ok(said) => drop(self.0.insert(name.clone(), (content.clone(), said))),
                Err(wrong) => problems.extend(wrong.0),
            }
        }
        if problems.is_empty() {
            Ok(self.0.values().flat_map(|(_, said)| said.iter().cloned()).collect())
        } else {
            Err(Problems(problems))
        }
    }
}

impl Loader {
    pub(crate) fn new(directory: Directory, ledger: Arc<Ledger>, state: Arc<State>) -> Self {
        Self { directory, ledger, state, tried: Mutex::default(), parsed: Mutex::default() }
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
        let Ok(catalogue) = catalogue(&remembered) else {
            return Err(error);
        };
        self.state.set_catalogue(&catalogue)?;
        self.complain(&error);
        tracing::warn!("the objects that were valid last stand, as remembered");
        Ok(())
    }

    /// Loads the objects again if they changed. What is wrong is logged and shown to operators,
    /// and nothing else changes. Blocks.
    pub(crate) fn reload(&self) {
        if let Err(error) = self.load() {
            self.complain(&error);
        }
    }

    fn load(&self) -> Result<(), LoadError> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be read or stored is worth another try; what is wrong stays wrong.
        let before = tried.take();
        let files = self.directory.read()?;
        if before.as_ref() == Some(&files) {
            *tried = before;
            return Ok(());
        }
        self.check_not_gone(&files)?;
        let taken = self.take(&files);
        if !matches!(taken, Err(LoadError::Ledger(_))) {
            *tried = Some(files);
        }
        let warnings = taken?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        if !self.state.findings().borrow().problems.is_empty() {
            tracing::info!("the objects are valid again");
        }
        self.state.found(Findings { problems: Vec::new(), warnings });
        Ok(())
    }

    /// Refuses to take a directory without any text for the end of all objects.
    fn check_not_gone(&self, files: &[GoodFile]) -> Result<(), LoadError> {
        if files.iter().any(|file| !file.content.trim().is_empty()) {
            return Ok(());
        }
        match documents(&self.ledger.good_files()?) {
            Ok(remembered) if remembered.is_empty() => Ok(()),
            _ => Err(LoadError::Gone { path: self.directory.path().to_owned() }),
        }
    }

    /// Logs what is wrong, once, and shows it to operators.
    fn complain(&self, error: &LoadError) {
        let problems = error.lines();
        let mut findings = Findings::clone(&self.state.findings().borrow());
        if findings.problems == problems {
            return;
        }
        for problem in &problems {
            tracing::error!("{problem}");
        }
        findings.problems = problems;
        self.state.found(findings);
    }

    fn take(&self, files: &[GoodFile]) -> Result<Vec<String>, LoadError> {
        let said = self.parsed.lock().unwrap_or_else(PoisonError::into_inner).documents(files);
        let catalogue = said.and_then(|said| Catalogue::build(&said)).map_err(LoadError::Wrong)?;
        self.state.set_catalogue(&catalogue)?;
        self.ledger.remember_files(files)?;
        Ok(catalogue.warnings.iter().map(ToString::to_string).collect())
    }
}

/// Everything that the files say, or all that is wrong with them.
fn catalogue(files: &[GoodFile]) -> Result<Catalogue, Problems> {
    Catalogue::build(&documents(files)?)
}

/// Every object of the files, or all that is wrong with how they are written.
fn documents(files: &[GoodFile]) -> Result<Vec<Document>, Problems> {
    Parsed::default().documents(files)
}
