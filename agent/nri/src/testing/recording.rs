use std::fmt::{self, Write as _};
use std::io;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a line of a recording.
const LINE: usize = 48;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The runtime.
    Runtime,
    /// The plugin.
    Plugin,
}

/// Something that was said at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Who said it.
    pub speaker: Speaker,
    /// What was said.
    pub bytes: Vec<u8>,
}

/// A conversation between a runtime and a plugin, as text: `#` begins a remark, `runtime` and
/// `plugin` say who speaks, and what is said is in hexadecimal, on as many lines as it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// What was said, in its order.
    pub pieces: Vec<Piece>,
}

impl Recording {
    /// All that `speaker` said.
    pub fn said_by(&self, speaker: Speaker) -> Vec<u8> {
        let pieces = self.pieces.iter().filter(|piece| piece.speaker == speaker);
        pieces.flat_map(|piece| &piece.bytes).copied().collect()
    }

    /// Adds what `speaker` said; joins it to what the same one said just before.
    pub fn add(&mut self, speaker: Speaker, bytes: &[u8]) {
        match self.pieces.last_mut() {
            Some(piece) if piece.speaker == speaker => piece.bytes.extend(bytes),
            _ => self.pieces.push(Piece { speaker, bytes: bytes.to_vec() }),
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Piece { speaker, bytes } in &self.pieces {
            f.write_str(match speaker {
                Speaker::Runtime => "runtime\n",
                Speaker::Plugin => "plugin\n",
            })?;
            for line in bytes.chunks(LINE) {
                f.write_str("  ")?;
                line.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_char('\n')?;
            }
        }
        Ok(())
    }
}

/// A text that is no recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recording is neither a speaker nor what one said: {text:?}")]
pub struct BadRecording {
    /// The line's number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl FromStr for Recording {
    type Err = BadRecording;

    fn from_str(text: &str) -> Result<Self, BadRecording> {
        let mut recording = Self::default();
        let mut speaker = None;
        for (number, line) in text.lines().enumerate() {
            let bad = || BadRecording { line: number + 1, text: line.to_owned() };
            match line.split('#').next().unwrap_or_default().trim() {
                "" => {}
                "runtime" => speaker = Some(Speaker::Runtime),
                "plugin" => speaker = Some(Speaker::Plugin),
                said => {
                    let bytes = from_hexadecimal(said).ok_or_else(bad)?;
                    recording.add(speaker.ok_or_else(bad)?, &bytes);
                }
            }
        }
        Ok(recording)
    }
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Stands between a plugin and a runtime, and records what they say until one of them closes.
pub async fn record<P, R>(mut plugin: P, mut runtime: R) -> io::Result<Recording>
where
    P: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let mut recording = Recording::default();
    let (mut said, mut replied) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            length = plugin.read(&mut said) => match length? {
                0 => break,
                length => {
                    recording.add(Speaker::Plugin, &said[..length]);
                    runtime.write_all(&said[..length]).await?;
                }
            },
            length = runtime.read(&mut replied) => match length? {
                0 => break,
                length => {
                    recording.add(Speaker::Runtime, &replied[..length]);
                    plugin.write_all(&replied[..length]).await?;
                }
            },
        }
    }
    Ok(recording)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_the_same_after_it_was_written() {
        let mut recording = Recording::default();
        recording.add(Speaker::Plugin, &[0; 100]);
        recording.add(Speaker::Runtime, &[0xff, 1]);
        recording.add(Speaker::Runtime, &[2]);
        let text = format!("# a remark\n{recording}");
        assert_eq!(text.parse(), Ok(recording.clone()));
        assert_eq!(recording.said_by(Speaker::Runtime), [0xff, 1, 2]);

        for (line, bad) in [(1, "00"), (2, "plugin\n0"), (2, "plugin\n0g"), (1, "someone")] {
            let error = bad.parse::<Recording>().expect_err("it is no recording");
            assert_eq!(error.line, line, "{bad:?}");
        }
    }
}
