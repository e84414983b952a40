//! What execve(2) needs, made before the fork: after it, nothing may be allocated.

use std::env;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where commands are searched when PATH is not set, as execvp(3) does it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Programs to try in order, arguments and environment.
#[derive(Debug)]
pub(super) struct Image {
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// The same as arrays of pointers, the last of each null. They live as long as the image.
#[derive(Debug)]
pub(super) struct Pointers<'i> {
    pub(super) candidates: Vec<*const c_char>,
    pub(super) arguments: Vec<*const c_char>,
    pub(super) environment: Vec<*const c_char>,
    image: std::marker::PhantomData<&'i Image>,
}

impl Image {
    /// For a command with the environment of this process; `None`: the command is empty or has a
    /// zero byte.
    pub(super) fn new(command: &[OsString]) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        Self::with(command, &path, env::vars_os())
    }

    fn with(
        command: &[OsString],
        path: &OsStr,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Option<Self> {
        let program = command.first()?;
        let bytes = |text: &OsStr| CString::new(text.as_bytes()).ok();
        let candidates = candidates(program, path);
        let candidates = candidates.iter().map(|path| bytes(path.as_os_str()));
        let variable = |(name, value): (OsString, OsString)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend_from_slice(value.as_bytes());
            CString::new(variable).ok()
        };
        Some(Self {
            candidates: candidates.collect::<Option<_>>()?,
            arguments: command.iter().map(|word| bytes(word)).collect::<Option<_>>()?,
            // An environment cannot hold a zero byte: nothing is left out here.
            environment: environment.filter_map(variable).collect(),
        })
    }

    pub(super) fn pointers(&self) -> Pointers<'_> {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        Pointers {
            candidates: pointers(&self.candidates),
            arguments: pointers(&self.arguments),
            environment: pointers(&self.environment),
            image: std::marker::PhantomData,
        }
    }
}

/// A command with a slash is a path; any other is searched in PATH, where an empty element is
/// the working directory. An empty command is nowhere.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.as_bytes().contains(&b'/') {
        return vec![Path::new(program).to_owned()];
    }
    env::split_paths(path)
        .map(|dir| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir })
        .map(|dir| dir.join(program))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    fn made(command: &[&str], path: &str) -> Option<Image> {
        let environment = [("A".into(), "1".into()), ("B".into(), "x=y".into())];
        Image::with(&words(command), OsStr::new(path), environment.into_iter())
    }

    fn texts(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|text| text.to_str().unwrap()).collect()
    }

    #[test]
    fn commands_are_searched_in_path_unless_they_are_paths() {
        let image = made(&["sh", "-c", "true"], "/usr/bin::/bin").unwrap();
        assert_eq!(texts(&image.candidates), ["/usr/bin/sh", "./sh", "/bin/sh"]);
        assert_eq!(texts(&image.arguments), ["sh", "-c", "true"]);
        assert_eq!(texts(&image.environment), ["A=1", "B=x=y"]);
        assert_eq!(texts(&made(&["./sh"], "/bin").unwrap().candidates), ["./sh"]);
        assert!(made(&[""], "/bin").unwrap().candidates.is_empty());
    }

    #[test]
    fn pointers_end_with_null() {
        let image = made(&["sh", "-c"], "/bin").unwrap();
        let pointers = image.pointers();
        assert_eq!(pointers.arguments.len(), 3);
        for list in [&pointers.candidates, &pointers.arguments, &pointers.environment] {
            assert!(list.last().unwrap().is_null());
            assert!(!list[0].is_null());
        }
    }

    #[test]
    fn nothing_and_zero_bytes_are_no_commands() {
        assert!(made(&[], "/bin").is_none());
        assert!(made(&["sh", "a\0b"], "/bin").is_none());
    }
}
