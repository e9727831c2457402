//! The thread that does a device's slow work: preparing segments, publishing and removing files.
//!
//! Invariants: jobs run one after the other in the order of their submission; each has one outcome. Zeroing writes one piece
//! at a time, so that the log's own writes never queue behind a whole segment.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use tickwheel_storage::{
    ALIGNMENT_BYTES, AlignedBuffer, align_up,
    device::{DeviceError, OpId},
};

use super::{ShardWaker, files::Root};
use crate::runtime::sys;

/// Most jobs that wait: the callers keep far fewer in flight.
const JOBS_MAX: usize = 1024;
/// One write of zeroes.
const ZEROES_BYTES: usize = 256 << 10;

/// Work for the helper: [`tickwheel_storage::device::Task`] with the open file instead of its id.
#[derive(Debug)]
pub(super) enum Job {
    Prepare { path: PathBuf, bytes: u64, head: Vec<u8> },
    Create { path: PathBuf },
    Publish { file: Arc<File>, from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) op: OpId,
    pub(super) result: Result<Option<(File, PathBuf)>, DeviceError>,
}

/// The thread, as the device sees it. Dropping it waits for the job that runs and drops the others.
#[derive(Debug)]
pub(super) struct Helper {
    jobs: Option<mpsc::SyncSender<(OpId, Job)>>,
    outcomes: mpsc::Receiver<Outcome>,
    /// Outcomes that were sent and not taken: lets the device look without taking.
    ready_count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(root: Root, cores: Vec<usize>, waker: Option<ShardWaker>) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel::<(OpId, Job)>(JOBS_MAX);
        let (sender, outcomes) = mpsc::channel();
        let ready_count = Arc::new(AtomicUsize::new(0));
        let ready = Arc::clone(&ready_count);
        let work = move || {
            leave_the_shards_core(&cores);
            for (op, job) in waiting {
                let result = run(&root, job);
                if sender.send(Outcome { op, result }).is_err() {
                    return;
                }
                ready.fetch_add(1, Ordering::Release);
                if let Some(waker) = &waker {
                    waker.wake();
                }
            }
        };
        let thread = thread::Builder::new().name("tw-files".into()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), outcomes, ready_count, thread: Some(thread) })
    }

    /// # Panics
    /// If [`JOBS_MAX`] jobs wait already.
    pub(super) fn submit(&self, op: OpId, job: Job) {
        let jobs = self.jobs.as_ref().expect("the channel is open until the drop");
        jobs.try_send((op, job)).expect("the callers bound their tasks far below the queue's length");
    }

    #[inline]
    pub(super) fn has_outcomes(&self) -> bool {
        self.ready_count.load(Ordering::Acquire) > 0
    }

    #[inline]
    pub(super) fn take_outcomes(&self, outcomes: &mut Vec<Outcome>) {
        let ready_count = self.ready_count.load(Ordering::Acquire);
        if ready_count > 0 {
            self.ready_count.fetch_sub(ready_count, Ordering::Relaxed);
            outcomes.extend(self.outcomes.try_iter().take(ready_count));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A helper that panicked has nothing left to tell.
            let _ = thread.join();
        }
    }
}

/// A thread starts on the core of the one that made it, which here is a pinned shard.
fn leave_the_shards_core(cores: &[usize]) {
    if cores.is_empty() {
        return;
    }
    if let Err(error) = sys::run_on(cores) {
        tracing::warn!(%error, ?cores, "the log's helper thread stays on the shard's core");
    }
}

fn run(root: &Root, job: Job) -> Result<Option<(File, PathBuf)>, DeviceError> {
    match job {
        Job::Prepare { path, bytes, head } => prepare(root, &path, bytes, &head).map(|file| Some((file, path))),
        Job::Create { path } => root.create_direct(&path).map(|file| Some((file, path))),
        Job::Publish { file, from, to } => publish(root, file, &from, &to).map(|()| None),
        Job::Remove { path } => root.remove(&path).and_then(|()| root.sync_parent(&path)).map(|()| None),
    }
}

/// Builds the file beside its place and moves it there when it is whole and durable.
fn prepare(root: &Root, path: &Path, bytes: u64, head: &[u8]) -> Result<File, DeviceError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let built = root.create_direct(&temporary).and_then(|file| {
        let failed = |source| DeviceError::new("prepare", path, source);
        fill(&file, bytes, head).and_then(|()| file.sync_all()).map_err(failed)?;
        root.rename(&temporary, path)?;
        root.sync_parent(path)?;
        Ok(file)
    });
    if built.is_err() {
        // The space matters more than a second error, which would say the same.
        let _ = root.remove(&temporary);
    }
    built
}

/// Writes `head` and zeroes up to `bytes`, in aligned pieces as direct I/O wants them.
fn fill(file: &File, bytes: u64, head: &[u8]) -> io::Result<()> {
    let head_bytes = align_up(head.len());
    assert!(
        bytes.is_multiple_of(ALIGNMENT_BYTES as u64) && head_bytes as u64 <= bytes,
        "an aligned file with its head"
    );
    sys::reserve_space(file, bytes)?;
    let mut buffer = AlignedBuffer::with_capacity(head_bytes.max(ZEROES_BYTES));
    buffer.extend_from_slice(head);
    buffer.pad();
    file.write_all_at(buffer.as_slice(), 0)?;
    let mut offset = buffer.len() as u64;
    buffer.set_len(ZEROES_BYTES);
    buffer.as_mut_slice().fill(0);
    while offset < bytes {
        let length = usize::try_from(bytes - offset).map_or(ZEROES_BYTES, |left| left.min(ZEROES_BYTES));
        file.write_all_at(&buffer.as_slice()[..length], offset)?;
        offset += length as u64;
    }
    Ok(())
}

fn publish(root: &Root, file: Arc<File>, from: &Path, to: &Path) -> Result<(), DeviceError> {
    file.sync_all().map_err(|source| DeviceError::new("sync", from, source))?;
    drop(file);
    root.rename(from, to)?;
    root.sync_parent(to)
}
