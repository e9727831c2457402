//! The log device on real files: what it reports durable is there, it batches its system calls, it wakes the sleeping
//! shard, and its refusals name the file.

use std::{
    ffi::CString,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tickwheel_server::runtime::{
    counters::ShardCounters,
    device::{DeviceOptions, UringDevice},
    idle::{Idle, IdleStrategy, Rest, ShardWaker},
};
use tickwheel_storage::{
    AlignedBuffer,
    device::{Completion, Device, DeviceError, Durability, FileId, OpId, Task},
};

/// A device in a directory of its own, and a sleeper to wait for its completions.
struct Bench {
    device: UringDevice,
    counters: Arc<ShardCounters>,
    idle: Idle,
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

fn bench() -> Bench {
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path().to_owned();
    Bench { _temporary: Some(temporary), ..bench_in(&directory, false) }
}

fn bench_in(directory: &Path, offload: bool) -> Bench {
    let waker = ShardWaker::new().expect("a descriptor");
    let counters = Arc::new(ShardCounters::default());
    let options = DeviceOptions { offload, waker: Some(waker.clone()), ..DeviceOptions::new(directory) };
    let device = UringDevice::new(options, Arc::clone(&counters)).expect("io_uring");
    let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
    let idle = Idle::new(waker, strategy, Arc::clone(&counters)).expect("precise timers");
    Bench { device, counters, idle, directory: directory.to_owned(), _temporary: None }
}

impl Bench {
    /// Polls until `count` operations are over, asleep in between as an idle shard is.
    fn complete(&mut self, count: usize) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.device.poll(&mut completions);
        while completions.len() < count {
            let deadline = Instant::now() + Duration::from_secs(60);
            let has_work = self.device.has_work();
            let rest = self.idle.rest(Instant::now(), Some(deadline), &[self.device.as_fd()], || has_work);
            assert_ne!(rest, Rest::Deadline, "{} of {count} completions came", completions.len());
            self.device.poll(&mut completions);
        }
        assert_eq!(completions.len(), count);
        completions
    }

    fn run(&mut self, task: Task) -> Result<Option<FileId>, DeviceError> {
        let op = self.device.submit_task(task);
        let completion = self.complete(1).remove(0);
        assert_eq!(completion.op, op);
        assert!(completion.buffer.is_none());
        completion.result
    }

    fn prepare(&mut self, name: &str, bytes: u64, head: &[u8]) -> FileId {
        let task = Task::Prepare { path: name.into(), bytes, head: head.to_vec() };
        self.run(task).expect("room on the disk").expect("a prepared file is open")
    }

    fn names(&mut self) -> Vec<String> {
        self.device.list(Path::new("")).expect("readable").into_iter().map(|entry| entry.name).collect()
    }
}

fn filled(bytes: usize, value: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.extend_from_slice(&vec![value; bytes]);
    buffer
}

#[test]
fn a_prepared_file_is_whole_and_has_no_temporary_left() {
    let mut bench = bench();
    bench.prepare("segment", 1 << 20, b"head of the segment");
    let contents = fs::read(bench.directory.join("segment")).expect("it is there");
    assert_eq!(contents.len(), 1 << 20);
    assert_eq!(&contents[..19], b"head of the segment");
    assert!(contents[19..].iter().all(|byte| *byte == 0));
    assert_eq!(bench.names(), ["segment"]);
    // Real zeroes, not a hole: the space is taken. A block counts 512 bytes here.
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(bench.directory.join("segment")).expect("it is there");
    assert!(metadata.blocks() * 512 >= 1 << 20);
}

fn check_writes(mut bench: Bench) {
    let file = bench.prepare("segment", 4 << 20, b"");
    // More than the ring takes at once, so some wait in the device.
    let ops: Vec<OpId> = (0..300_u32)
        .map(|index| {
            let value = u8::try_from(index % 251).expect("below 251");
            bench.device.submit_write(file, u64::from(index) * 8192, filled(8192, value), Durability::Synced)
        })
        .collect();
    let mut completed: Vec<OpId> = Vec::new();
    for completion in bench.complete(300) {
        assert_eq!(completion.result.expect("the write succeeds"), None);
        assert_eq!(completion.buffer.expect("the buffer comes back").len(), 8192);
        completed.push(completion.op);
    }
    completed.sort_unstable();
    assert_eq!(completed, ops, "each operation completes once");
    let contents = fs::read(bench.directory.join("segment")).expect("it is there");
    for (index, block) in contents[..300 * 8192].chunks(8192).enumerate() {
        assert!(block.iter().all(|byte| usize::from(*byte) == index % 251), "block {index} holds something else");
    }
}

#[test]
fn every_write_completes_once_and_is_in_the_file() {
    check_writes(bench());
}

#[test]
fn writes_submitted_by_the_kernels_workers_end_the_same() {
    let temporary = tempfile::tempdir().expect("a directory");
    check_writes(bench_in(temporary.path(), true));
}

#[test]
fn a_turns_writes_take_one_system_call() {
    let mut bench = bench();
    let file = bench.prepare("segment", 1 << 20, b"");
    let before = bench.counters.system_calls.count();
    for index in 0..16 {
        bench.device.submit_write(file, index * 4096, filled(4096, 1), Durability::Unsynced);
    }
    assert_eq!(bench.counters.system_calls.count(), before, "submissions wait for the poll");
    let mut completions = Vec::new();
    bench.device.poll(&mut completions);
    assert_eq!(bench.counters.system_calls.count(), before + 1);
    bench.complete(16 - completions.len());

    let before = bench.counters.system_calls.count();
    for _ in 0..1000 {
        bench.device.poll(&mut completions);
        assert!(!bench.device.has_work());
    }
    assert_eq!(bench.counters.system_calls.count(), before, "polling an idle device is free");
}

#[test]
fn a_shard_that_only_polls_gets_its_completions_too() {
    let mut bench = bench();
    let file = bench.prepare("segment", 1 << 20, b"");
    bench.device.submit_write(file, 0, filled(4096, 1), Durability::Synced);
    let mut completions = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while completions.is_empty() {
        assert!(Instant::now() < deadline, "the completion never showed");
        bench.device.poll(&mut completions);
    }
    completions.remove(0).result.expect("the write succeeds");
}

#[test]
fn a_failed_write_names_file_and_offset_and_returns_the_buffer() {
    let mut bench = bench();
    bench.prepare("segment", 1 << 20, b"");
    let read_only = bench.device.open(Path::new("segment")).expect("it is there");
    bench.device.submit_write(read_only, 8192, filled(4096, 1), Durability::Synced);
    let completion = bench.complete(1).remove(0);
    assert_eq!(completion.buffer.expect("the buffer comes back").len(), 4096);
    let error = completion.result.expect_err("the file is open for reading only");
    assert_eq!((error.path.as_path(), error.offset, error.operation), (Path::new("segment"), 8192, "write"));
    assert!(!error.is_out_of_space());
}

#[test]
fn a_failed_preparation_leaves_nothing_behind() {
    let mut bench = bench();
    let task = Task::Prepare { path: "missing/segment".into(), bytes: 1 << 20, head: Vec::new() };
    let error = bench.run(task).expect_err("its directory does not exist");
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    // A directory of that name stands in the way of the rename.
    bench.device.create_directory(Path::new("taken/inner")).expect("room");
    let task = Task::Prepare { path: "taken".into(), bytes: 1 << 20, head: Vec::new() };
    bench.run(task).expect_err("a directory cannot be replaced by a file");
    assert_eq!(bench.names(), ["taken"]);
}

#[test]
fn a_created_file_appears_under_its_name_when_it_is_published() {
    let mut bench = bench();
    fs::write(bench.directory.join("final"), b"older").expect("written");
    let file = bench.run(Task::Create { path: "draft".into() }).expect("room").expect("open");
    for index in 0..3_u8 {
        bench.device.submit_write(file, u64::from(index) * 4096, filled(4096, index), Durability::Unsynced);
    }
    for completion in bench.complete(3) {
        completion.result.expect("the write succeeds");
    }
    assert_eq!(fs::read(bench.directory.join("final")).expect("it is there"), b"older");
    let publish = Task::Publish { file, from: "draft".into(), to: "final".into() };
    assert_eq!(bench.run(publish).expect("room"), None);
    assert_eq!(bench.names(), ["final"]);
    let contents = fs::read(bench.directory.join("final")).expect("it is there");
    assert!(contents.iter().enumerate().all(|(index, byte)| usize::from(*byte) == index / 4096));

    for _ in 0..2 {
        assert_eq!(bench.run(Task::Remove { path: "final".into() }).expect("gone, or gone already"), None);
        assert!(bench.names().is_empty());
    }
}

#[test]
fn the_cold_side_reads_what_it_wrote() {
    let mut bench = bench();
    let device = &mut bench.device;
    for _ in 0..2 {
        device.create_directory(Path::new("log/7")).expect("made, or there already");
    }
    let file = device.create(Path::new("log/7/map.tmp")).expect("room");
    device.append(file, &[1; 5000]).expect("room");
    device.append(file, &[2; 100]).expect("room");
    device.sync(file).expect("synced");
    device.close(file);
    device.rename(Path::new("log/7/map.tmp"), Path::new("log/7/map")).expect("renamed");
    device.sync_directory(Path::new("log/7")).expect("synced");
    let listed = device.list(Path::new("log/7")).expect("readable");
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].bytes), (1, "map", 5100));

    let file = device.open(Path::new("log/7/map")).expect("it is there");
    let mut buffer = AlignedBuffer::with_capacity(4096);
    device.read_at(file, 0, &mut buffer).expect("readable");
    assert_eq!(buffer.as_slice(), [1; 4096]);
    device.read_at(file, 4096, &mut buffer).expect("readable");
    assert_eq!((buffer.len(), buffer.as_slice()[903], buffer.as_slice()[904]), (1004, 1, 2));
    device.read_at(file, 8192, &mut buffer).expect("the end of the file is no error");
    assert!(buffer.is_empty());
    device.close(file);

    device.truncate(Path::new("log/7/map"), 4096).expect("shortened");
    device.truncate(Path::new("log/7/map"), 8192).expect("never lengthened");
    assert_eq!(device.list(Path::new("log/7")).expect("readable")[0].bytes, 4096);
    assert!(device.remove_directory(Path::new("log/7")).is_err(), "it is not empty");
    for _ in 0..2 {
        device.remove(Path::new("log/7/map")).expect("gone, or gone already");
        device.remove_directory(Path::new("log/7")).expect("gone, or gone already");
    }
    assert!(device.list(Path::new("log/7")).expect("a missing directory is empty").is_empty());
    let missing = device.open(Path::new("log/7/map")).expect_err("it is gone");
    assert_eq!((missing.source.kind(), missing.path.as_path()), (io::ErrorKind::NotFound, Path::new("log/7/map")));
}

#[test]
fn a_dropped_device_has_let_its_writes_end() {
    let mut bench = bench();
    let file = bench.prepare("segment", 16 << 20, b"");
    for index in 0..64 {
        bench.device.submit_write(file, index * (256 << 10), filled(256 << 10, 9), Durability::Synced);
    }
    bench.device.poll(&mut Vec::new());
    let Bench { device, directory, _temporary, .. } = bench;
    drop(device);
    let contents = fs::read(directory.join("segment")).expect("it is there");
    assert!(contents.iter().all(|byte| *byte == 9), "what the kernel had taken was written");
}

#[test]
fn a_directory_is_listed_while_another_thread_changes_it() {
    let mut bench = bench();
    for index in 0..50 {
        fs::write(bench.directory.join(format!("kept-{index}")), b"").expect("room");
    }
    let path = bench.directory.join("passing");
    thread::scope(|scope| {
        // Often enough for the name to go between its listing and the question for its length.
        let changes = scope.spawn(|| {
            for _ in 0..10_000 {
                fs::write(&path, b"").expect("room");
                fs::remove_file(&path).expect("it is there");
            }
        });
        while !changes.is_finished() {
            let entries = bench.device.list(Path::new("")).expect("readable");
            let kept = entries.iter().filter(|entry| entry.name.starts_with("kept-")).count();
            assert_eq!(kept, 50, "what stays is always listed");
        }
    });
}

/// Mounts a small file system in memory that only the calling thread and those it makes see. `false` without the privilege.
#[expect(unsafe_code, reason = "mounting is a system call")]
fn mount_small_memory_disk(directory: &Path) -> bool {
    let target = CString::new(directory.as_os_str().as_encoded_bytes()).expect("no zero byte");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all pointers are null where that is allowed, or to strings that live until the end of the function.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) == 0
            && libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=2m".as_ptr().cast()) == 0
    }
}

#[test]
fn a_full_disk_is_told_apart_and_its_space_comes_back() {
    let temporary = tempfile::tempdir().expect("a directory");
    let in_own_namespace = || {
        if !mount_small_memory_disk(temporary.path()) {
            eprintln!("not shown: mounting needs a privilege");
            return;
        }
        let mut bench = bench_in(temporary.path(), false);
        let file = bench.prepare("first", 1 << 20, b"head");
        let too_large = Task::Prepare { path: "second".into(), bytes: 4 << 20, head: Vec::new() };
        let error = bench.run(too_large).expect_err("the disk holds 2 MiB");
        assert!(error.is_out_of_space(), "{error}");
        assert_eq!(error.path, Path::new("second"));
        assert_eq!(bench.names(), ["first"], "the temporary file is gone, and its space with it");
        // Where there is room, the device works on a file system in memory as on any other.
        bench.device.submit_write(file, 4096, filled(4096, 5), Durability::Synced);
        bench.complete(1).remove(0).result.expect("the file has its space");
        assert_eq!(fs::read(bench.directory.join("first")).expect("it is there")[4096], 5);
    };
    thread::scope(|scope| scope.spawn(in_own_namespace).join().expect("no panic"));
}
