//! Blocking operations on the files of a data directory, with errors that name the file.
//!
//! Invariants: paths are relative to the root and never leave it; nothing here retries. Shared by the device (cold
//! side) and its helper thread.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use tickwheel_storage::device::{DeviceError, Entry};

/// A data directory.
#[derive(Clone, Debug)]
pub(super) struct Root(Arc<Path>);

impl Root {
    /// The directory at `path`, which exists.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::canonicalize(path)?.into()))
    }

    /// # Panics
    /// If `path` is absolute or climbs out of the directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        let stays_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        assert!(stays_inside, "{} is not a path below the data directory", path.display());
        self.0.join(path)
    }

    /// Makes an empty file, replacing, open for direct writes where the file system has them.
    pub(super) fn create_direct(&self, path: &Path) -> Result<File, DeviceError> {
        let resolved = self.resolve(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        match options.custom_flags(libc::O_DIRECT).open(&resolved) {
            // The file system knows no direct I/O; the page cache and the same sync serve as well, only slower.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.custom_flags(0).open(&resolved),
            result => result,
        }
        .map_err(|source| DeviceError::new("create", path, source))
    }

    pub(super) fn create_buffered(&self, path: &Path) -> Result<File, DeviceError> {
        File::create(self.resolve(path)).map_err(|source| DeviceError::new("create", path, source))
    }

    pub(super) fn open_for_reading(&self, path: &Path) -> Result<File, DeviceError> {
        File::open(self.resolve(path)).map_err(|source| DeviceError::new("open", path, source))
    }

    pub(super) fn create_directory(&self, path: &Path) -> Result<(), DeviceError> {
        let mut made = PathBuf::new();
        for part in path.components() {
            let parent = made.clone();
            made.push(part);
            match fs::create_dir(self.resolve(&made)) {
                Ok(()) => self.sync_directory(&parent)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(DeviceError::new("create the directory", made, source)),
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        let failed = |source| DeviceError::new("list", path, source);
        let directory = match fs::read_dir(self.resolve(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut entries = Vec::new();
        for found in directory {
            let found = found.map_err(failed)?;
            let metadata = match found.metadata() {
                // Another thread renamed or removed it since its name was read, as a helper does with a snapshot: it is no longer here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result.map_err(failed)?,
            };
            let is_directory = metadata.is_dir();
            let bytes = if is_directory { 0 } else { metadata.len() };
            // The names that Tickwheel gives are ASCII; another one is shown as well as it can be and matches none.
            entries.push(Entry { name: found.file_name().to_string_lossy().into_owned(), is_directory, bytes });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        fs::rename(self.resolve(from), self.resolve(to)).map_err(|source| DeviceError::new("rename", from, source))
    }

    pub(super) fn sync_directory(&self, path: &Path) -> Result<(), DeviceError> {
        let directory = File::open(self.resolve(path)).and_then(|directory| directory.sync_all());
        directory.map_err(|source| DeviceError::new("sync the directory", path, source))
    }

    pub(super) fn sync_parent(&self, path: &Path) -> Result<(), DeviceError> {
        self.sync_directory(path.parent().unwrap_or(Path::new("")))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), DeviceError> {
        missing_is_fine(fs::remove_file(self.resolve(path))).map_err(|source| DeviceError::new("remove", path, source))
    }

    pub(super) fn remove_directory(&self, path: &Path) -> Result<(), DeviceError> {
        missing_is_fine(fs::remove_dir(self.resolve(path)))
            .map_err(|source| DeviceError::new("remove the directory", path, source))
    }

    pub(super) fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let overwrite = || {
            let file = OpenOptions::new().write(true).open(self.resolve(path))?;
            file.write_all_at(bytes, offset)?;
            file.sync_all()
        };
        overwrite().map_err(|source| DeviceError::new("overwrite", path, source).at(offset))
    }

    pub(super) fn truncate(&self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        let shorten = || {
            let file = OpenOptions::new().write(true).open(self.resolve(path))?;
            if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
        };
        shorten().map_err(|source| DeviceError::new("truncate", path, source).at(bytes))
    }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Reads until `bytes` is full or the file ends; how many bytes that were.
pub(super) fn read_full(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
