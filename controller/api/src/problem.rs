//! What is wrong with objects: said with the place, the object, the field and the mend.

use std::fmt;

/// Where a text came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// Line, from 1 on; 0: not known.
    pub line: u64,
    /// Column, from 1 on; 0: not known.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { file, line: 0, .. } => f.write_str(file),
            Self { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Where it is written; `None` where the object has no file.
    pub place: Option<Place>,
    /// The object (`VirtualCluster "team-a"`); empty where it is not known.
    pub object: String,
    /// Path of the field ("spec.perNode.limit.cpu"); empty: the object as a whole.
    pub field: String,
    /// What is wrong and what would mend it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with a set of objects, in the order of the files. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
