//! Appending and polling do not allocate once the buffers have grown.

#![expect(unsafe_code, reason = "counting allocations needs an allocator of our own")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use support::options;
use tickwheel_storage::{Admission, AppendError, CommitLog, Device, Log, LogOptions, Section, std_files::StdFiles};
use tickwheel_wire::{PartitionId, StreamId};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One commit of two sections; the events of both partitions start at `first_sequence`.
fn commit(log: &mut Log<StdFiles>, first_sequence: u64) {
    let bytes = [7; 300];
    let sections =
        [0, 1].map(|id| Section { partition: PartitionId(id), first_sequence, event_count: 1, bytes: &bytes });
    while let Err(error) = log.append(sections, Admission::Ordinary) {
        assert!(matches!(error, AppendError::Full), "{error}");
        log.poll().expect("nothing fails here");
    }
    log.poll().expect("nothing fails here");
}

#[test]
fn commits_do_not_allocate_in_steady_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut device = StdFiles::new(directory.path());
    device.create_directory("log/1".as_ref()).expect("a directory");
    let options = LogOptions { segment_bytes: 1 << 20, ..options() };
    let mut log = Log::create(device, StreamId(1), &[(PartitionId(0), 0), (PartitionId(1), 0)], options);
    (1..=20).for_each(|sequence| commit(&mut log, sequence));
    let before = ALLOCATIONS.get();
    (21..=120).for_each(|sequence| commit(&mut log, sequence));
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
