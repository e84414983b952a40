//! The runtime's side of the protocol, for tests of plugins: a runtime that does what the test
//! says, and conversations with real ones, to be recorded and told again.

mod fake;
mod recording;

pub use fake::FakeRuntime;
pub use recording::{BadRecording, Piece, Recording, Speaker, record};
