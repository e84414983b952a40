//! Bearer tokens, as clients send them.

use std::io;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};

/// The key of the metadata that a token goes in.
pub const KEY: &str = "authorization";

/// Longest token, bytes.
const LONGEST: usize = 16 << 10;

/// Why there is no token to send.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// Its file.
    #[error("read the token in {path}; is it readable, and is the volume mounted?")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it should be.
    #[error("{origin} holds no token: it must be one line of printable characters, 16 KiB at most")]
    Unusable {
        /// Whence it came.
        origin: String,
    },
}

/// What is sent for a token; it is shown in no log.
pub fn bearer(token: &str, origin: &str) -> Result<MetadataValue<Ascii>, BearerError> {
    let unusable = || BearerError::Unusable { origin: origin.to_owned() };
    let token = token.trim_end();
    let plain =
        (1..=LONGEST).contains(&token.len()) && token.bytes().all(|it| it.is_ascii_graphic());
    if !plain {
        return Err(unusable());
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The same for the token in a file, which may be another the next time.
pub async fn read(path: &Path) -> Result<MetadataValue<Ascii>, BearerError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| BearerError::Read { path: path.to_owned(), source })?;
    bearer(&text, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_is_not_shown() {
        let value = bearer("abc.def\n", "a file").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc.def");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("abc"));
        let long = "x".repeat(LONGEST + 1);
        for text in ["", "\n", "a b", "a\nb", "a\u{e9}", &long] {
            let refused = bearer(text, "a file").unwrap_err().to_string();
            assert!(refused.contains("a file"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let refused = read(Path::new("/nonexistent/token")).await.unwrap_err().to_string();
        assert!(refused.contains("/nonexistent/token"), "{refused}");
    }
}
