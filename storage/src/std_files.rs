//! A device on plain files of the standard library, everything blocking: for tools, for the control thread, for tests.
//!
//! Operations of the hot side run at their submission and are reported by the next `poll`. A shard never uses it: it would stop for
//! every sync. Deliberately absent: direct I/O.

use crate::{AlignedBuffer, Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task, layout};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A device over the files below one directory.
#[derive(Debug)]
pub struct StdFiles {
    root: PathBuf,
    files: HashMap<FileId, (File, PathBuf)>,
    next_file: u32,
    next_op: u64,
    done: Vec<Completion>,
}

impl StdFiles {
    /// A device over the data directory `root`, which exists.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), files: HashMap::new(), next_file: 0, next_op: 0, done: Vec::new() }
    }

    fn keep(&mut self, file: File, path: &Path) -> FileId {
        self.next_file += 1;
        self.files.insert(FileId(self.next_file), (file, path.to_owned()));
        FileId(self.next_file)
    }

    fn report(&mut self, buffer: Option<AlignedBuffer>, result: Result<Option<FileId>, DeviceError>) -> OpId {
        self.next_op += 1;
        self.done.push(Completion { op: OpId(self.next_op), buffer, result });
        OpId(self.next_op)
    }

    fn with<T>(
        &mut self,
        operation: &'static str,
        file: FileId,
        offset: u64,
        act: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> Result<T, DeviceError> {
        let (open, path) = self.files.get_mut(&file).expect("the file is open");
        act(open).map_err(|source| DeviceError::new(operation, &*path, source).at(offset))
    }

    fn at<T>(
        &self,
        operation: &'static str,
        path: &Path,
        act: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<T, DeviceError> {
        act(&self.root.join(path)).map_err(|source| DeviceError::new(operation, path, source))
    }

    fn create_file(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = self.at("create", path, |path| options.open(path))?;
        Ok(self.keep(file, path))
    }

    fn prepare(&mut self, path: &Path, bytes: u64, head: &[u8]) -> Result<FileId, DeviceError> {
        let temporary = layout::temporary(path);
        let file = self.create_file(&temporary)?;
        let filled = self
            .with("prepare", file, 0, |file| fill(file, bytes, head).and_then(|()| file.sync_all()))
            .and_then(|()| self.rename(&temporary, path))
            .and_then(|()| self.sync_directory(path.parent().unwrap_or(Path::new(""))));
        if let Err(error) = filled {
            self.close(file);
            // The first failure is what matters; a file left over is removed by recovery.
            let _ = self.remove(&temporary);
            return Err(error);
        }
        self.files.get_mut(&file).expect("it is open").1 = path.to_owned();
        Ok(file)
    }

    fn publish(&mut self, file: FileId, from: &Path, to: &Path) -> Result<(), DeviceError> {
        let synced = self.sync(file);
        self.close(file);
        synced?;
        self.rename(from, to)?;
        self.sync_directory(to.parent().unwrap_or(Path::new("")))
    }

    fn remove_durably(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.remove(path)?;
        self.sync_directory(path.parent().unwrap_or(Path::new("")))
    }
}

fn fill(file: &mut File, bytes: u64, head: &[u8]) -> io::Result<()> {
    file.write_all(head)?;
    let mut left = bytes - head.len() as u64;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES.len());
        file.write_all(&ZEROES[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Device for StdFiles {
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId {
        let result = self.with("write", file, offset, |file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(buffer.as_slice())?;
            if durability == Durability::Synced { file.sync_data() } else { Ok(()) }
        });
        self.report(Some(buffer), result.map(|()| None))
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        let result = match task {
            Task::Prepare { path, bytes, head } => self.prepare(&path, bytes, &head).map(Some),
            Task::Create { path } => self.create_file(&path).map(Some),
            Task::Publish { file, from, to } => self.publish(file, &from, &to).map(|()| None),
            Task::Remove { path } => self.remove_durably(&path).map(|()| None),
        };
        self.report(None, result)
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.at("create", path, |path| fs::create_dir_all(path))?;
        for parent in path.ancestors().skip(1) {
            self.sync_directory(parent)?;
        }
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        let read = |path: &Path| -> io::Result<Vec<Entry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let is_directory = metadata.is_dir();
                let bytes = if is_directory { 0 } else { metadata.len() };
                entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), is_directory, bytes });
            }
            entries.sort();
            Ok(entries)
        };
        match self.at("list", path, read) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let file = self.at("open", path, |path| File::open(path))?;
        Ok(self.keep(file, path))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        self.with("read", file, offset, |file| {
            file.seek(SeekFrom::Start(offset))?;
            buffer.set_len(buffer.capacity());
            let mut length = 0;
            while length < buffer.capacity() {
                match file.read(&mut buffer.as_mut_slice()[length..]) {
                    Ok(0) => break,
                    Ok(read) => length += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.set_len(length);
            Ok(())
        })
    }

    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        self.create_file(path)
    }

    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.with("write", file, 0, |file| {
            file.seek(SeekFrom::End(0))?;
            file.write_all(bytes)
        })
    }

    fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let overwritten = self.at("overwrite", path, |path| {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)?;
            file.sync_all()
        });
        overwritten.map_err(|error| error.at(offset))
    }

    fn sync(&mut self, file: FileId) -> Result<(), DeviceError> {
        self.with("sync", file, 0, |file| file.sync_all())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        self.at("rename", from, |path| fs::rename(path, self.root.join(to)))
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.at("sync", path, |path| File::open(path)?.sync_all())
    }

    fn remove(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.at("remove", path, |path| missing_is_fine(fs::remove_file(path)))
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.at("remove", path, |path| missing_is_fine(fs::remove_dir(path)))
    }

    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        self.at("truncate", path, |path| {
            let file = OpenOptions::new().write(true).open(path)?;
            if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
        })
    }
}
