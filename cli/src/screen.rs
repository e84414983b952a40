//! A terminal's other screen, on which each frame replaces the one before.

use terminal_size::{Height, Width};

use crate::error::CliError;
use crate::{out, units};

/// The other screen; gone with this value, and what stood before is back.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Changes to the other screen and hides the cursor.
    pub(crate) fn enter() -> Result<Self, CliError> {
        out::write("\x1b[?1049h\x1b[?25l")?;
        Ok(Self(()))
    }

    /// Shows as much as fits.
    #[expect(clippy::unused_self, reason = "only who has entered the screen may draw on it")]
    pub(crate) fn show(&self, text: &str) -> Result<(), CliError> {
        let (width, height) = terminal_size::terminal_size()
            .map_or((80, 24), |(Width(width), Height(height))| (width.into(), height.into()));
        out::write(&fitted(text, width, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = out::write("\x1b[?25h\x1b[?1049l");
    }
}

/// `text` from the upper left corner, each line cut to the width and cleared to its end.
fn fitted(text: &str, width: usize, height: usize) -> String {
    let lines: Vec<String> =
        text.lines().take(height).map(|line| units::truncate(line, width)).collect();
    format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls_the_screen() {
        let frame = fitted("abcdef\nb\nc\n", 4, 2);
        assert_eq!(frame, "\x1b[Habc…\x1b[K\r\nb\x1b[K\x1b[J");
    }
}
