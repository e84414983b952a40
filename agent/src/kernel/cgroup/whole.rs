//! Reading files that are kept open.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

/// Most text of one file; io.stat has about 100 bytes for each device.
const MOST_TEXT: usize = 1 << 20;
/// Room for most files.
const TEXT: usize = 4_096;

/// The whole text of a file that is kept open. The kernel prints such a file at once, as far as
/// there is room: less than the room is all of it.
pub(super) fn whole<'b>(file: &File, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Errno> {
    buffer.resize(buffer.len().max(TEXT), 0);
    loop {
        match file.read_at(buffer, 0) {
            Ok(count) if count < buffer.len() => return Ok(&buffer[..count]),
            Ok(_) if buffer.len() >= MOST_TEXT => return Err(Errno::EFBIG),
            Ok(_) => buffer.resize(buffer.len() * 2, 0),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(super::errno_of(&error)),
        }
    }
}
