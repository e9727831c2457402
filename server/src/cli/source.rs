//! Text that the command line reads: a file, or the standard input.

use super::error::CliError;
use crate::jobs_file::FILE_BYTES_MAX;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The path that stands for the standard input.
pub(super) const STDIN: &str = "-";

/// What messages call the file.
pub(super) fn name(path: &Path) -> String {
    if path == STDIN { "standard input".to_owned() } else { path.display().to_string() }
}

/// Where the files lie that the file names: beside it, or in the current folder.
pub(super) fn folder(path: &Path) -> PathBuf {
    let folder = if path == STDIN { None } else { path.parent() };
    folder.map(Path::to_owned).unwrap_or_default()
}

/// # Errors
///
/// What the operating system says, a file beyond [`FILE_BYTES_MAX`], or one that is not UTF-8.
pub(super) fn read(path: &Path) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {error}", name(path)));
    let source: io::Result<Box<dyn Read>> = if path == STDIN {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&format_args!("longer than {FILE_BYTES_MAX} bytes; split it")));
    }
    String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8; convert it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_long_or_no_text_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("long");
        File::create(&path).and_then(|file| file.set_len(FILE_BYTES_MAX + 1)).expect("a sparse file");
        let refused = |path: &Path| read(path).expect_err("refused").line().expect("a line");
        assert!(refused(&path).ends_with("long: longer than 67108864 bytes; split it"), "{}", refused(&path));
        std::fs::write(&path, b"\xff\xfe").expect("written");
        assert!(refused(&path).ends_with("long: it is not UTF-8; convert it first"), "{}", refused(&path));
        std::fs::write(&path, "# \u{e4}\n").expect("written");
        assert_eq!(read(&path).expect("text"), "# \u{e4}\n");
    }
}
