//! Standard output.

use std::io::{self, Write as _};

use crate::error::{CliError, Kind};
use crate::units;

/// Writes it out now. A reader that has gone (`| head`) is no failure, but the end.
pub(crate) fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe => Kind::ReaderGone,
            _ => Kind::Output,
        };
        CliError::new(kind, "write to standard output", error)
    })
}

/// One line about a failure to standard error.
pub(crate) fn report(error: &CliError) {
    note(&error.to_string());
}

/// One line to standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told where this fails.
    let _ = writeln!(io::stderr(), "bulkheadctl: {}", units::plain(text));
}
