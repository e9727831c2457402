//! What the log costs the shard's core, apart from the disk: appending batches to a device that completes at once, and replaying
//! a log from the page cache.
//!
//! One event is 64 bytes, about what an execution leaves on the log.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, path::Path, path::PathBuf};
use tickwheel_storage::{
    Admission, AlignedBuffer, CommitLog, Completion, Device, DeviceError, Durability, Entry, FileId, Log, LogOptions,
    OpId, ReplaySink, Section, Task, recover, std_files::StdFiles,
};
use tickwheel_wire::{PartitionCount, PartitionId, StreamId};

const EVENT_BYTES: usize = 64;
const PARTITIONS: u16 = 128;
const LOG_BYTES: usize = 192 << 20;

/// Completes everything at the next poll and keeps nothing.
#[derive(Default)]
struct Nowhere {
    next_op: u64,
    done: Vec<Completion>,
}

impl Nowhere {
    fn report(&mut self, buffer: Option<AlignedBuffer>, file: Option<FileId>) -> OpId {
        self.next_op += 1;
        self.done.push(Completion { op: OpId(self.next_op), buffer, result: Ok(file) });
        OpId(self.next_op)
    }
}

impl Device for Nowhere {
    fn submit_write(&mut self, _: FileId, _: u64, buffer: AlignedBuffer, _: Durability) -> OpId {
        self.report(Some(buffer), None)
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        let opens = matches!(task, Task::Prepare { .. } | Task::Create { .. });
        self.report(None, opens.then_some(FileId(0)))
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }

    fn close(&mut self, _: FileId) {}

    fn create_directory(&mut self, _: &Path) -> Result<(), DeviceError> {
        Ok(())
    }

    fn list(&mut self, _: &Path) -> Result<Vec<Entry>, DeviceError> {
        Ok(Vec::new())
    }

    fn open(&mut self, _: &Path) -> Result<FileId, DeviceError> {
        Ok(FileId(0))
    }

    fn read_at(&mut self, _: FileId, _: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        buffer.clear();
        Ok(())
    }

    fn create(&mut self, _: &Path) -> Result<FileId, DeviceError> {
        Ok(FileId(0))
    }

    fn append(&mut self, _: FileId, _: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn overwrite(&mut self, _: &Path, _: u64, _: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn sync(&mut self, _: FileId) -> Result<(), DeviceError> {
        Ok(())
    }

    fn rename(&mut self, _: &Path, _: &Path) -> Result<(), DeviceError> {
        Ok(())
    }

    fn sync_directory(&mut self, _: &Path) -> Result<(), DeviceError> {
        Ok(())
    }

    fn remove(&mut self, _: &Path) -> Result<(), DeviceError> {
        Ok(())
    }

    fn remove_directory(&mut self, _: &Path) -> Result<(), DeviceError> {
        Ok(())
    }

    fn truncate(&mut self, _: &Path, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Appends one commit of `event_count` events spread over `section_count` partitions; `next` holds their sequences.
fn append<D: Device>(log: &mut Log<D>, next: &mut [u64], events: &[u8], section_count: usize, event_count: usize) {
    let each = (event_count / section_count).max(1);
    let starts: &[u64] = next;
    let sections = (0u16..).zip(&starts[..section_count]).map(|(partition, first_sequence)| Section {
        partition: PartitionId(partition),
        first_sequence: *first_sequence,
        event_count: u32::try_from(each).expect("few"),
        bytes: &events[..each * EVENT_BYTES],
    });
    while log.append(sections.clone(), Admission::Ordinary).is_err() {
        log.poll().expect("nothing fails here");
    }
    next[..section_count].iter_mut().for_each(|sequence| *sequence += each as u64);
    log.poll().expect("nothing fails here");
}

fn bench_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_append");
    let partitions: Vec<_> = (0..PARTITIONS).map(|id| (PartitionId(id), 0)).collect();
    let events = vec![7; 16_384 * EVENT_BYTES];
    for (section_count, event_count) in [(1, 1), (16, 64), (128, 1_024), (128, 16_384)] {
        let mut log = Log::create(Nowhere::default(), StreamId(1), &partitions, LogOptions::default());
        let mut next = vec![1; usize::from(PARTITIONS)];
        group.throughput(Throughput::Elements(event_count as u64));
        group.bench_function(
            BenchmarkId::from_parameter(format!("{event_count}_events_{section_count}_sections")),
            |bencher| {
                bencher.iter(|| {
                    append(&mut log, &mut next, &events, section_count, event_count);
                    // What was logged is covered at once, so that segments are removed as fast as they fill.
                    if log.retained_bytes() > 1 << 30 {
                        (0u16..).zip(&next).for_each(|(id, next)| log.snapshot_taken(PartitionId(id), next - 1));
                    }
                });
            },
        );
    }
    group.finish();
}

/// Reads every byte, as an engine would at the least.
#[derive(Default)]
struct Sum(u64);

impl ReplaySink for Sum {
    type Error = std::convert::Infallible;

    fn snapshot_chunk(&mut self, _: PartitionId, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    fn snapshot_done(&mut self, _: PartitionId, _: u64, _: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    fn snapshot_discarded(&mut self, _: PartitionId) -> Result<(), Self::Error> {
        Ok(())
    }

    fn section(&mut self, _: PartitionId, _: u64, _: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 = bytes.chunks_exact(8).fold(self.0, |sum, word| sum.wrapping_add(u64::from(word[0])));
        Ok(())
    }
}

fn data_with_log(root: &Path, count: PartitionCount, all: &[PartitionId]) {
    std::fs::create_dir_all(root).expect("a directory for the log");
    let mut device = StdFiles::new(root);
    let recovered = recover(&mut device, count).expect("an empty directory");
    let replayed = recovered.replay(&mut device, all, &mut Sum::default()).expect("nothing to replay");
    let (_, starts) = recovered.start(&mut device, &[replayed], &[all.to_vec()]).expect("starts");
    let mut log = Log::create(device, starts[0].stream, &starts[0].partitions, LogOptions::default());
    let (mut next, events) = (vec![1; usize::from(PARTITIONS)], vec![7; 8_192 * EVENT_BYTES]);
    for _ in 0..LOG_BYTES / events.len() {
        append(&mut log, &mut next, &events, usize::from(PARTITIONS), 8_192);
    }
}

fn bench_replay(criterion: &mut Criterion) {
    let root: PathBuf = std::env::temp_dir().join(format!("tickwheel-bench-log-{}", std::process::id()));
    let count = PartitionCount::new(u64::from(PARTITIONS)).expect("a power of two");
    let all: Vec<_> = (0..PARTITIONS).map(PartitionId).collect();
    data_with_log(&root, count, &all);
    let mut group = criterion.benchmark_group("log_replay");
    group.sample_size(10).throughput(Throughput::Bytes(LOG_BYTES as u64));
    group.bench_function("one_shard", |bencher| {
        bencher.iter_batched_ref(
            || StdFiles::new(&root),
            |device| {
                let recovered = recover(device, count).expect("recovers");
                let mut sum = Sum::default();
                recovered.replay(device, &all, &mut sum).expect("replays");
                black_box(sum.0)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    std::fs::remove_dir_all(&root).expect("the directory was made here");
}

criterion_group!(benches, bench_append, bench_replay);
criterion_main!(benches);
