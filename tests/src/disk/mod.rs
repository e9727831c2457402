//! A disk whose platter lies in the test's hands: it remembers every write and flush in order, and fails when it is told to.
//!
//! Below a real ext4 there is a loop device, whose backing file is served by this process (FUSE, `fuse.rs`). So whatever the code
//! under test does, through `io_uring`, the page cache or the file system's journal, arrives here as the writes and flushes that a
//! drive would see; and what is answered here comes up as a drive's answer does: a refused write is an EIO of the file.
//!
//! Invariants: a write is remembered before it is answered, so what somebody was told to be durable by then lies before
//! [`Disk::position`]; while the disk fails nothing changes on the platter.
//!
//! Deliberately absent: time. It is a drive with a volatile cache that never writes back by itself.

mod fuse;

use crate::confine::mount;
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a drive promises to write whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// What a file system lays out by; untouched ones are left as holes.
const BLOCK_BYTES: usize = 4096;

/// Something that the disk was asked to do.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes for the cache.
    Write { offset: usize, bytes: Vec<u8> },
    /// The cache goes to the platter.
    Flush,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It refuses to write and to flush.
    Writes,
    /// It takes writes and refuses to flush.
    Flushes,
    /// It refuses the next flush, then all is well: who tries again is told that all is durable.
    OneFlush,
}

#[derive(Debug)]
struct Platter {
    /// All that was written, flushed or not.
    contents: Vec<u8>,
    /// What it was made with, from which images are rebuilt.
    blank: Vec<u8>,
    steps: Vec<Step>,
    fault: Fault,
}

impl Platter {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let range = offset..offset + bytes.len();
        if self.fault == Fault::Writes || range.end > self.contents.len() {
            return false;
        }
        self.contents[range].copy_from_slice(bytes);
        self.steps.push(Step::Write { offset, bytes: bytes.to_vec() });
        true
    }

    fn flush(&mut self) -> bool {
        let fault = self.fault;
        if fault == Fault::OneFlush {
            self.fault = Fault::None;
        }
        if fault == Fault::None {
            self.steps.push(Step::Flush);
        }
        fault == Fault::None
    }

    fn lose_cache(&mut self) {
        self.contents = self.image(self.steps.len(), || false);
        self.steps.truncate(self.flushed(self.steps.len()));
    }

    /// How many of the first `position` steps the last flush among them covers.
    fn flushed(&self, position: usize) -> usize {
        self.steps[..position].iter().rposition(|step| matches!(step, Step::Flush)).map_or(0, |flush| flush + 1)
    }

    /// What was flushed by `position`, and of what was written after that the sectors of which `keeps` says so.
    fn image(&self, position: usize, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
        let flushed = self.flushed(position);
        let mut image = self.blank.clone();
        for (index, step) in self.steps[..position].iter().enumerate() {
            let Step::Write { offset, bytes } = step else { continue };
            for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if index < flushed || keeps() {
                    let start = offset + number * SECTOR_BYTES;
                    image[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }
}

type Shared = Arc<Mutex<Platter>>;

fn lock(platter: &Shared) -> MutexGuard<'_, Platter> {
    platter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk with an ext4 on it. Used within [`with_own_mounts`](crate::confine::with_own_mounts).
#[derive(Debug)]
pub struct Disk {
    platter: Shared,
    device: PathBuf,
    data: PathBuf,
}

impl Disk {
    /// A disk of `size_mib` MiB with an empty file system, not mounted yet; its files are in `folder`. `None`, with a word about why,
    /// where the machine has no FUSE or no tools for file systems.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn make(folder: &Path, size_mib: u32) -> anyhow::Result<Option<Self>> {
        let (image, device, data) = (folder.join("blank"), folder.join("platter"), folder.join("data"));
        File::create(&device)?;
        fs::create_dir(&data)?;
        if !make_image(&image, size_mib)? {
            return Ok(None);
        }
        let blank = fs::read(&image)?;
        fs::remove_file(image)?;
        let platter = Platter { contents: blank.clone(), blank, steps: Vec::new(), fault: Fault::None };
        let disk = Self { platter: Arc::new(Mutex::new(platter)), device, data };
        if let Err(error) = fuse::serve(&disk.device, Arc::clone(&disk.platter)) {
            eprintln!("skipped: a file of this process's own cannot be mounted: {error:#}");
            return Ok(None);
        }
        if let Err(error) = disk.mount() {
            eprintln!("skipped: a file system on a loop device cannot be made here: {error:#}");
            return Ok(None);
        }
        disk.unmount()?;
        Ok(Some(disk))
    }

    /// The folder on which its file system is mounted.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Mounts its file system, which replays its journal.
    ///
    /// # Errors
    /// When that fails.
    pub fn mount(&self) -> anyhow::Result<()> {
        mount_image(&self.device, &self.data)
    }

    /// Unmounts its file system.
    ///
    /// # Errors
    /// When somebody uses it.
    pub fn unmount(&self) -> anyhow::Result<()> {
        unmount(&self.data)
    }

    /// From now on it has this fault.
    pub fn set_fault(&self, fault: Fault) {
        lock(&self.platter).fault = fault;
    }

    /// How many writes and flushes there were.
    pub fn position(&self) -> usize {
        lock(&self.platter).steps.len()
    }

    /// What a loss of power after the first `position` steps may leave: all that was flushed, and of each sector that was written after the last
    /// flush what `keeps` says.
    pub fn crash(&self, position: usize, keeps: impl FnMut() -> bool) -> Vec<u8> {
        lock(&self.platter).image(position, keeps)
    }

    /// The power fails now: what was not flushed is gone. The file system is not mounted.
    pub fn lose_cache(&self) {
        lock(&self.platter).lose_cache();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Failing or not mounted: what is left goes with the process.
        self.set_fault(Fault::None);
        let _ = self.unmount();
        let _ = unmount(&self.device);
    }
}

/// Makes a file of `size_mib` MiB with an empty file system. `false`, with a word about why, where there are no tools for that.
///
/// # Errors
/// When the file cannot be written.
pub fn make_image(path: &Path, size_mib: u32) -> anyhow::Result<bool> {
    File::create(path)?.set_len(u64::from(size_mib) << 20)?;
    let arguments = ["-q", "-F", "-b", "4096", "-m", "0", "-E", "nodiscard,lazy_itable_init=0"];
    let status =
        Command::new("mkfs.ext4").args(arguments).arg(path).stdin(Stdio::null()).stderr(Stdio::null()).status();
    let is_made = status.is_ok_and(|status| status.success());
    if !is_made {
        eprintln!("skipped: there is no mkfs.ext4");
    }
    Ok(is_made)
}

/// Mounts the file system in the file `image` on `directory`.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount_image(image: &Path, directory: &Path) -> anyhow::Result<()> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("tests use UTF-8");
    mount(&["-o", "loop,noatime", "-t", "ext4", &text(image)?, &text(directory)?])
}

/// Unmounts what is mounted on `path`.
///
/// # Errors
/// When somebody uses it.
pub fn unmount(path: &Path) -> anyhow::Result<()> {
    let output = Command::new("umount").arg(path).output().context("there is no `umount`")?;
    ensure!(output.status.success(), "umount {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes `image` as a sparse file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_image(image: &[u8], path: &Path) -> anyhow::Result<()> {
    let file = File::create(path)?;
    file.set_len(image.len() as u64)?;
    for (number, block) in image.chunks(BLOCK_BYTES).enumerate() {
        if *block != [0; BLOCK_BYTES][..block.len()] {
            file.write_all_at(block, (number * BLOCK_BYTES) as u64)?;
        }
    }
    Ok(())
}
