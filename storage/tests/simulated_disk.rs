//! The simulated disk behaves as badly as it says, when it says, and the same way for the same seed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tickwheel_storage::{
    AlignedBuffer, Completion, Device, DeviceError, Durability, FileId, OpId, Task,
    simulated_disk::{DiskFaults, DiskOptions, Latency, LieKind, SimulatedDevice, SimulatedDisk},
};

const ALWAYS: u32 = 100_000;
const BLOCK: usize = 4096;
const BLOCKS: usize = 8;
const SEEDS: u64 = 60;
const FILE: &str = "a";

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn latency(min: u64, max: u64) -> Latency {
    Latency { min: milliseconds(min), max: milliseconds(max) }
}

/// A disk that counts polls.
fn disk(seed: u64) -> SimulatedDisk {
    SimulatedDisk::new(DiskOptions { seed, ..DiskOptions::default() })
}

fn timed_disk(seed: u64, latency: Latency) -> SimulatedDisk {
    SimulatedDisk::new(DiskOptions { seed, latency: Some(latency), ..DiskOptions::default() })
}

/// A file of [`BLOCKS`] blocks of zeroes, durable with its name.
fn make(disk: &SimulatedDisk, path: &str) -> (SimulatedDevice, FileId) {
    let mut device = disk.device();
    let file = device.create(Path::new(path)).expect("creates");
    device.append(file, &[0; BLOCK * BLOCKS]).expect("appends");
    device.sync(file).expect("syncs");
    device.sync_directory(Path::new("")).expect("syncs");
    (device, file)
}

fn submit(device: &mut SimulatedDevice, file: FileId, block: usize, byte: u8, durability: Durability) -> OpId {
    let mut buffer = AlignedBuffer::with_capacity(BLOCK);
    buffer.extend_from_slice(&[byte; BLOCK]);
    device.submit_write(file, (block * BLOCK) as u64, buffer, durability)
}

fn poll(device: &mut SimulatedDevice) -> Vec<Completion> {
    let mut completions = Vec::new();
    device.poll(&mut completions);
    completions
}

/// Polls until `op` is over. Nothing else is pending.
fn outcome(device: &mut SimulatedDevice, op: OpId) -> Result<Option<FileId>, DeviceError> {
    for _ in 0..100 {
        if let Some(completion) = poll(device).pop() {
            assert_eq!(completion.op, op);
            return completion.result;
        }
    }
    panic!("the operation is never over");
}

fn write(
    device: &mut SimulatedDevice,
    file: FileId,
    block: usize,
    byte: u8,
    durability: Durability,
) -> Result<Option<FileId>, DeviceError> {
    let op = submit(device, file, block, byte, durability);
    outcome(device, op)
}

fn task(device: &mut SimulatedDevice, task: Task) -> Result<Option<FileId>, DeviceError> {
    let op = device.submit_task(task);
    outcome(device, op)
}

fn prepare(path: &str) -> Task {
    Task::Prepare { path: path.into(), bytes: BLOCK as u64, head: vec![9] }
}

fn block(disk: &SimulatedDisk, path: &str, block: usize) -> Vec<u8> {
    disk.contents(path).expect("it is there")[block * BLOCK..][..BLOCK].to_vec()
}

/// What became of a block of zeroes that was overwritten with other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Absent,
    Partial,
    Whole,
}

fn part(bytes: &[u8]) -> Part {
    match bytes.iter().filter(|byte| **byte != 0).count() {
        0 => Part::Absent,
        BLOCK => Part::Whole,
        _ => Part::Partial,
    }
}

/// Every outcome over many seeds.
fn outcomes<T: Ord>(of: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..SEEDS).map(of).collect()
}

fn any_part() -> BTreeSet<Part> {
    [Part::Absent, Part::Partial, Part::Whole].into()
}

fn check_fault(error: &DeviceError, operation: &str) {
    assert_eq!((error.operation, error.source.kind()), (operation, io::ErrorKind::Other), "{error}");
    assert!(!error.is_out_of_space() && error.to_string().contains("by chance"), "{error}");
}

// Time.

#[test]
fn a_write_completes_when_its_time_has_come_and_not_before() {
    let disk = timed_disk(1, latency(1, 5));
    let (mut device, file) = make(&disk, FILE);
    assert_eq!(device.next_completion(), None, "nothing is pending");
    let mut left: BTreeSet<_> =
        (0..BLOCKS).map(|block| submit(&mut device, file, block, 1, Durability::Synced)).collect();
    let mut times = BTreeSet::new();
    while let Some(at) = device.next_completion() {
        assert!((milliseconds(1)..=milliseconds(5)).contains(&at), "{at:?}");
        disk.advance_to(at - Duration::from_nanos(1));
        assert!(poll(&mut device).is_empty(), "nothing is due before {at:?}");
        disk.advance_to(at);
        let done = poll(&mut device);
        assert!(!done.is_empty() && done.iter().all(|completion| left.remove(&completion.op)), "due at {at:?}");
        times.insert(at);
    }
    assert!(left.is_empty() && times.len() > 4, "each has its own time: {times:?}");
}

#[test]
fn writes_that_are_due_together_complete_in_an_order_of_chance() {
    let orders = outcomes(|seed| {
        let disk = timed_disk(seed, latency(1, 5));
        let (mut device, file) = make(&disk, FILE);
        let ops: Vec<_> = (0..3).map(|block| submit(&mut device, file, block, 1, Durability::Synced)).collect();
        disk.advance_to(milliseconds(5));
        let done = poll(&mut device);
        assert_eq!(done.len(), 3, "the longest latency has passed");
        done.iter().map(|completion| ops.iter().position(|op| *op == completion.op)).collect::<Vec<_>>()
    });
    assert_eq!(orders.len(), 6, "every order happens");
}

#[test]
fn each_step_of_a_task_takes_its_time_and_starts_when_the_one_before_is_over() {
    for is_polled_late in [false, true] {
        let disk = timed_disk(1, latency(10, 10));
        let mut device = disk.device();
        let prepared = device.submit_task(prepare("p"));
        let created = device.submit_task(Task::Create { path: "c".into() });
        let mut done = Vec::new();
        if is_polled_late {
            // Five steps and two.
            disk.advance_to(milliseconds(70));
            done.extend(poll(&mut device).into_iter().map(|completion| completion.op));
        } else {
            for now in 1..=70 {
                disk.advance_to(milliseconds(now));
                let before = done.len();
                done.extend(poll(&mut device).into_iter().map(|completion| completion.op));
                assert_eq!(done.len() > before, [50, 70].contains(&now), "at {now} ms");
            }
        }
        assert_eq!(done, [prepared, created]);
        disk.advance_to(milliseconds(100));
        device.submit_task(prepare("q"));
        assert_eq!(device.next_completion(), Some(milliseconds(110)), "not before it was submitted");
    }
}

#[test]
fn a_task_that_waited_for_another_starts_when_that_is_over() {
    let disk = timed_disk(1, latency(10, 10));
    let mut device = disk.device();
    device.submit_task(Task::Create { path: "a".into() });
    disk.advance_to(milliseconds(50));
    device.submit_task(Task::Create { path: "b".into() });
    assert_eq!(poll(&mut device).len(), 1, "the second was not there when the first was over, at 20 ms");
    assert_eq!(device.next_completion(), Some(milliseconds(60)));
}

#[test]
fn a_slow_disk_slows_what_starts_from_then_on() {
    let disk = timed_disk(1, latency(1, 1));
    let (mut device, file) = make(&disk, FILE);
    submit(&mut device, file, 0, 1, Durability::Synced);
    disk.set_latency(latency(9_000, 9_000));
    submit(&mut device, file, 1, 1, Durability::Synced);
    disk.advance_to(milliseconds(8_999));
    assert_eq!(poll(&mut device).len(), 1, "the first takes as long as it would have");
    assert_eq!(device.next_completion(), Some(milliseconds(9_000)));
    disk.advance_to(milliseconds(9_000));
    assert_eq!(poll(&mut device).len(), 1);
}

#[test]
fn time_never_goes_back_and_outlives_the_process() {
    let disk = timed_disk(1, latency(1, 1));
    disk.advance_to(milliseconds(10));
    disk.advance_to(milliseconds(5));
    for disk in [disk.clone(), disk.kill(), disk.kill().crash()] {
        let mut device = disk.device();
        device.submit_task(Task::Create { path: "a".into() });
        assert_eq!(device.next_completion(), (!disk.is_off()).then_some(milliseconds(11)));
    }
}

#[test]
fn what_counts_polls_is_due_at_once() {
    let disk = disk(1);
    let (mut device, file) = make(&disk, FILE);
    disk.advance_to(milliseconds(3));
    assert_eq!(device.next_completion(), None);
    let op = submit(&mut device, file, 0, 1, Durability::Synced);
    assert_eq!(device.next_completion(), Some(milliseconds(3)));
    outcome(&mut device, op).expect("writes");
    device.submit_task(prepare("p"));
    assert_eq!(device.next_completion(), Some(milliseconds(3)));
}

// Kills.

#[test]
fn a_kill_loses_nothing_that_was_completed_and_a_later_crash_only_what_was_not_synced() {
    let found = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        write(&mut device, file, 0, 1, Durability::Synced).expect("writes");
        write(&mut device, file, 1, 2, Durability::Unsynced).expect("writes");
        device.create(Path::new("new")).expect("creates");
        let before = (disk.paths(), disk.contents(FILE));
        let killed = disk.kill();
        assert_eq!((killed.paths(), killed.contents(FILE)), before);
        let crashed = killed.crash();
        assert_eq!(block(&crashed, FILE, 0), [1; BLOCK], "it was synced before the kill");
        (part(&block(&crashed, FILE, 1)), crashed.contents("new").is_some())
    });
    assert_eq!(found.len(), 6, "contents and names may survive or not: {found:?}");
}

#[test]
fn a_write_in_flight_at_a_kill_is_whole_absent_or_partial_and_never_durable() {
    let found = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        submit(&mut device, file, 0, 1, Durability::Synced);
        let killed = disk.kill();
        let seen = part(&block(&killed, FILE, 0));
        (seen, (seen == Part::Whole).then(|| part(&block(&killed.crash(), FILE, 0))))
    });
    let (seen, whole): (BTreeSet<_>, BTreeSet<_>) = found.into_iter().unzip();
    assert_eq!(seen, any_part());
    assert_eq!(whole.into_iter().flatten().collect::<BTreeSet<_>>(), any_part(), "after a crash");
}

#[test]
fn nothing_works_any_more_for_a_killed_process() {
    let disk = timed_disk(1, latency(0, 0));
    let (mut device, file) = make(&disk, FILE);
    submit(&mut device, file, 0, 1, Durability::Synced);
    device.submit_task(prepare("p"));
    let (survivor, path) = (disk.kill(), Path::new(FILE));
    assert!(disk.is_off() && !survivor.is_off());
    assert_eq!(device.next_completion(), None);
    submit(&mut device, file, 1, 1, Durability::Synced);
    assert!(poll(&mut device).is_empty() && poll(&mut device).is_empty());
    let mut buffer = AlignedBuffer::with_capacity(BLOCK);
    let results = [
        device.create_directory(path),
        device.list(path).map(drop),
        device.open(path).map(drop),
        device.read_at(file, 0, &mut buffer),
        device.create(path).map(drop),
        device.append(file, &[1]),
        device.sync(file),
        device.rename(path, path),
        device.sync_directory(path),
        device.remove(path),
        device.remove_directory(path),
        device.truncate(path, 0),
    ];
    for (call, result) in results.into_iter().enumerate() {
        let error = result.expect_err("it is off");
        assert!(error.to_string().contains("killed"), "call {call}: {error}");
    }
    assert_eq!(survivor.contents(FILE).map(|bytes| bytes.len()), Some(BLOCK * BLOCKS), "the survivor has its own life");
}

#[test]
#[should_panic(expected = "lost its power")]
fn a_process_without_power_cannot_be_killed() {
    let disk = disk(1);
    drop(disk.crash());
    drop(disk.kill());
}

// Failures.

#[test]
fn a_failed_write_changes_any_part_and_is_no_lack_of_space() {
    for durability in [Durability::Synced, Durability::Unsynced] {
        let found = outcomes(|seed| {
            let disk = disk(seed);
            let (mut device, file) = make(&disk, FILE);
            disk.set_faults(DiskFaults { write_error: ALWAYS, ..DiskFaults::default() });
            let error = write(&mut device, file, 1, 1, durability).expect_err("it fails");
            check_fault(&error, "write");
            assert_eq!(error.offset, BLOCK as u64);
            check_fault(&device.append(file, &[1]).expect_err("it fails"), "write");
            check_fault(&task(&mut device, prepare("p")).expect_err("it fails"), "prepare");
            assert_eq!(disk.paths(), [PathBuf::from(FILE)], "the prepared file is cleared away");
            part(&block(&disk, FILE, 1))
        });
        assert_eq!(found, any_part());
    }
}

/// Writes without syncing, lets a sync fail by `fail` or not, syncs again; what is seen, and what a crash leaves.
fn after_second_sync(seed: u64, fail: impl Fn(&SimulatedDisk)) -> (bool, Part) {
    let disk = disk(seed);
    let (mut device, file) = make(&disk, FILE);
    write(&mut device, file, 1, 1, Durability::Unsynced).expect("writes");
    fail(&disk);
    let is_failed = device.sync(file).map_err(|error| assert!(!error.is_out_of_space())).is_err();
    disk.set_faults(DiskFaults::default());
    write(&mut device, file, 2, 2, Durability::Unsynced).expect("writes");
    device.sync(file).expect("the second sync succeeds");
    assert_eq!(part(&block(&disk, FILE, 1)), Part::Whole, "a reader sees it");
    let crashed = disk.kill().crash();
    assert_eq!(part(&block(&crashed, FILE, 2)), Part::Whole, "what came later was synced");
    (is_failed, part(&block(&crashed, FILE, 1)))
}

#[test]
fn a_sync_after_a_failed_one_succeeds_and_saves_nothing_from_before() {
    let by_chance = |disk: &SimulatedDisk| disk.set_faults(DiskFaults { sync_error: ALWAYS, ..DiskFaults::default() });
    let by_step = |disk: &SimulatedDisk| disk.fail_at(disk.op_count() + 1, io::ErrorKind::Other);
    let all_failed: BTreeSet<_> = any_part().into_iter().map(|part| (true, part)).collect();
    assert_eq!(outcomes(|seed| after_second_sync(seed, by_chance)), all_failed);
    assert_eq!(outcomes(|seed| after_second_sync(seed, by_step)), all_failed);
    assert_eq!(outcomes(|seed| after_second_sync(seed, |_| ())), [(false, Part::Whole)].into());
}

#[test]
fn a_synced_write_whose_sync_fails_is_seen_and_never_durable() {
    let found = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        disk.set_faults(DiskFaults { sync_error: ALWAYS, ..DiskFaults::default() });
        check_fault(&write(&mut device, file, 1, 1, Durability::Synced).expect_err("it fails"), "write");
        write(&mut device, file, 2, 1, Durability::Unsynced).expect("only syncs fail");
        disk.set_faults(DiskFaults::default());
        device.sync(file).expect("the second sync succeeds");
        assert_eq!(part(&block(&disk, FILE, 1)), Part::Whole, "its bytes were written");
        part(&block(&disk.crash(), FILE, 1))
    });
    assert_eq!(found, any_part());
}

#[test]
fn tasks_fail_at_their_syncs_and_names() {
    let disk = disk(1);
    let (mut device, _) = make(&disk, FILE);
    let publish = |device: &mut SimulatedDevice| {
        let file = task(device, Task::Create { path: "from".into() }).expect("creates").expect("a file");
        Task::Publish { file, from: "from".into(), to: "to".into() }
    };
    let syncs = DiskFaults { sync_error: ALWAYS, ..DiskFaults::default() };
    let others = DiskFaults { other_error: ALWAYS, ..DiskFaults::default() };
    for (faults, operation) in [(syncs, "sync"), (others, "rename")] {
        let publish = publish(&mut device);
        disk.set_faults(faults);
        check_fault(&task(&mut device, publish).expect_err("it fails"), operation);
        assert!(disk.contents("to").is_none(), "nothing was published");
        disk.set_faults(DiskFaults::default());
    }
    disk.set_faults(syncs);
    check_fault(&task(&mut device, prepare("p")).expect_err("it fails"), "sync");
    disk.set_faults(others);
    for task_that_creates in [prepare("p"), Task::Create { path: "c".into() }] {
        check_fault(&task(&mut device, task_that_creates).expect_err("it fails"), "create");
    }
    assert_eq!(disk.paths(), [FILE, "from"].map(PathBuf::from));
    check_fault(&task(&mut device, Task::Remove { path: FILE.into() }).expect_err("it fails"), "sync");
}

#[test]
fn a_directory_whose_sync_failed_is_not_durable() {
    let found = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, _) = make(&disk, FILE);
        let op = device.submit_task(prepare("p"));
        // All steps but the last.
        for _ in 0..4 {
            assert!(poll(&mut device).is_empty());
        }
        disk.set_faults(DiskFaults { other_error: ALWAYS, ..DiskFaults::default() });
        check_fault(&outcome(&mut device, op).expect_err("it fails"), "sync");
        disk.crash().contents("p").is_some()
    });
    assert_eq!(found, [false, true].into());
}

#[test]
fn faults_strike_at_their_rate_and_not_at_all_by_default() {
    for (rate, range) in [(0, 0..=0), (10_000, 70..=130), (50_000, 430..=570)] {
        let disk = disk(5);
        let (mut device, file) = make(&disk, FILE);
        disk.set_faults(DiskFaults { write_error: rate, ..DiskFaults::default() });
        let failures = (0..1000).filter(|n| write(&mut device, file, n % 8, 1, Durability::Unsynced).is_err()).count();
        assert!(range.contains(&failures), "{failures} of 1000 at {rate}");
    }
}

// Lies.

#[test]
fn a_lost_write_is_reported_as_done_and_is_nowhere_but_on_record() {
    let disk = disk(1);
    let (mut device, file) = make(&disk, FILE);
    disk.set_faults(DiskFaults { lost_write: ALWAYS, ..DiskFaults::default() });
    write(&mut device, file, 3, 1, Durability::Synced).expect("so it says");
    write(&mut device, file, 4, 2, Durability::Unsynced).expect("no lie: it promises nothing");
    device.sync(file).expect("syncs");
    for disk in [disk.clone(), disk.kill(), disk.kill().crash()] {
        assert_eq!([3, 4].map(|at| block(&disk, FILE, at)[0]), [0, 2]);
        let [lie] = disk.lies().try_into().expect("one lie");
        assert_eq!((lie.kind, lie.path.as_path(), lie.landed), (LieKind::LostWrite, Path::new(FILE), None));
        assert_eq!((lie.offset, lie.bytes), (3 * BLOCK as u64, BLOCK as u64));
    }
}

#[test]
fn a_misdirected_write_is_durable_where_it_landed_and_absent_where_it_belongs() {
    let landed = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        make(&disk, "b");
        let mut short = disk.device();
        let map = short.create(Path::new("short")).expect("creates");
        short.append(map, &[0; BLOCK - 1]).expect("appends");
        disk.set_faults(DiskFaults { misdirected_write: ALWAYS, ..DiskFaults::default() });
        write(&mut device, file, 3, 1, Durability::Synced).expect("so it says");
        let crashed = disk.crash();
        let [lie] = crashed.lies().try_into().expect("one lie");
        assert_eq!((lie.kind, lie.path.as_path()), (LieKind::MisdirectedWrite, Path::new(FILE)));
        assert_eq!((lie.offset, lie.bytes), (3 * BLOCK as u64, BLOCK as u64));
        let (path, offset) = lie.landed.expect("it is somewhere");
        for name in [FILE, "b"] {
            let mut expected = vec![0; BLOCK * BLOCKS];
            if path == Path::new(name) {
                expected[usize::try_from(offset).expect("small")..][..BLOCK].fill(1);
            }
            assert!(crashed.contents(name) == Some(expected), "{name}, landed in {} at {offset}", path.display());
        }
        (path, offset)
    });
    assert!(!landed.contains(&(FILE.into(), 3 * BLOCK as u64)));
    let in_own = landed.iter().filter(|(path, _)| path == Path::new(FILE)).count();
    assert!((4..=7).contains(&in_own) && landed.len() > 10, "anywhere in both files: {landed:?}");
}

#[test]
fn a_misdirected_write_is_done_properly_where_there_is_no_other_place() {
    let disk = disk(1);
    let mut device = disk.device();
    let file = task(&mut device, prepare("only")).expect("prepares").expect("a file");
    disk.set_faults(DiskFaults { misdirected_write: ALWAYS, ..DiskFaults::default() });
    write(&mut device, file, 0, 1, Durability::Synced).expect("writes");
    assert_eq!((block(&disk.crash(), "only", 0), disk.lies().len()), (vec![1; BLOCK], 0));
}

#[test]
fn a_lie_is_listed_under_the_present_names_of_its_files() {
    let disk = disk(1);
    let (mut device, file) = make(&disk, FILE);
    disk.set_faults(DiskFaults { misdirected_write: ALWAYS, ..DiskFaults::default() });
    write(&mut device, file, 3, 1, Durability::Synced).expect("so it says");
    let names = |disk: &SimulatedDisk| {
        let [lie] = disk.lies().try_into().expect("one lie");
        let (landed, _) = lie.landed.expect("it is somewhere");
        [lie.path, landed].map(|path| path.display().to_string())
    };
    assert_eq!(names(&disk), [FILE; 2]);
    device.rename(Path::new(FILE), Path::new("z")).expect("renames");
    assert_eq!(names(&disk), ["z"; 2]);
    assert_eq!(names(&disk.kill()), ["z"; 2]);
    let crashed = disk.crash();
    let [path] = crashed.paths().try_into().expect("one file");
    assert_eq!(names(&crashed), [path.display().to_string(), path.display().to_string()]);
}

// Defects of the medium, and what is not one.

#[test]
fn reads_that_touch_a_defect_fail_until_it_is_gone() {
    let disk = disk(1);
    make(&disk, FILE);
    let unreadable = |disk: &SimulatedDisk, path: &str| {
        let mut device = disk.device();
        let file = device.open(Path::new(path)).expect("opens");
        let mut buffer = AlignedBuffer::with_capacity(BLOCK);
        let fails = |block: &usize| match device.read_at(file, (block * BLOCK) as u64, &mut buffer) {
            Ok(()) => false,
            Err(error) => {
                assert_eq!((error.operation, error.offset), ("read", (block * BLOCK) as u64));
                assert_eq!(error.source.kind(), io::ErrorKind::Other);
                true
            }
        };
        (0..BLOCKS).filter(fails).collect::<Vec<_>>()
    };
    let at = |block: usize| (block * BLOCK) as u64;
    disk.fail_reads(FILE, at(2) - 1..at(4) + 1, true);
    assert_eq!(unreadable(&disk, FILE), [1, 2, 3, 4]);
    disk.fail_reads(FILE, at(2)..at(3), false);
    assert_eq!(unreadable(&disk, FILE), [1, 3, 4]);
    let mut device = disk.device();
    device.rename(Path::new(FILE), Path::new("z")).expect("renames");
    device.sync_directory(Path::new("")).expect("syncs");
    for disk in [disk.kill(), disk.crash()] {
        assert_eq!(unreadable(&disk, "z"), [1, 3, 4], "the defect stays with the file");
        disk.fail_reads("z", 0..u64::MAX, false);
        assert_eq!(unreadable(&disk, "z"), [0; 0]);
    }
}

#[test]
fn damage_is_in_every_version_of_a_byte() {
    let found = outcomes(|seed| {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        write(&mut device, file, 1, 7, Durability::Unsynced).expect("writes");
        disk.corrupt(FILE, BLOCK as u64 + 3, 0x80);
        assert_eq!(block(&disk, FILE, 1)[3], 0x87);
        block(&disk.crash(), FILE, 1)[3]
    });
    assert_eq!(found, [0x80, 0x87].into(), "the bytes from before or after the write");
}

#[test]
fn an_older_write_that_was_not_synced_never_undoes_a_newer_one_that_was() {
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let (mut device, file) = make(&disk, FILE);
        write(&mut device, file, 1, 1, Durability::Unsynced).expect("writes");
        write(&mut device, file, 1, 2, Durability::Synced).expect("writes");
        assert_eq!(block(&disk.kill().crash(), FILE, 1), [2; BLOCK], "seed {seed}");
    }
}

#[test]
fn bytes_that_a_file_has_already_need_no_room() {
    let disk = disk(1);
    let (mut device, file) = make(&disk, FILE);
    disk.set_capacity_bytes(BLOCK as u64);
    write(&mut device, file, 1, 1, Durability::Synced).expect("its room is taken already");
    let error = write(&mut device, file, BLOCKS, 1, Durability::Synced).expect_err("it would grow");
    assert!(error.is_out_of_space());
}

// Determinism.

/// A history with everything switched on, as text.
fn story(seed: u64, faults: DiskFaults) -> Vec<String> {
    let disk = timed_disk(seed, latency(1, 9));
    let (mut device, file) = make(&disk, FILE);
    let (mut other, second) = make(&disk, "b");
    disk.set_faults(faults);
    let mut story = Vec::new();
    for turn in 0..120_u64 {
        let (block, byte) = (usize::try_from(turn * 5 % 8).expect("small"), u8::try_from(turn + 1).expect("small"));
        let durability = if turn % 3 == 0 { Durability::Unsynced } else { Durability::Synced };
        submit(&mut device, file, block, byte, durability);
        submit(&mut other, second, block, byte, durability);
        if turn % 10 == 0 {
            device.submit_task(prepare(&format!("p{turn}")));
            story.push(format!("sync {:?}", other.sync(second)));
        }
        disk.advance_to(milliseconds(turn * 2));
        for device in [&mut device, &mut other] {
            let done = poll(device).into_iter().map(|done| format!("{turn} {:?} {:?}", done.op, done.result));
            story.extend(done);
            story.push(format!("next {:?}", device.next_completion()));
        }
    }
    for disk in [disk.kill(), disk.kill().crash(), disk.crash()] {
        story.push(format!("{:?}", disk.lies()));
        story.extend(disk.paths().iter().map(|path| format!("{path:?} {:?}", disk.contents(path))));
    }
    story
}

#[test]
fn the_same_seed_and_calls_give_the_same_results() {
    let faults = DiskFaults {
        write_error: 5_000,
        sync_error: 5_000,
        other_error: 5_000,
        lost_write: 5_000,
        misdirected_write: 5_000,
    };
    let told = story(1, faults);
    assert!(told == story(1, faults), "the same seed");
    assert!(told != story(2, faults), "another seed");
    for sign in ["write failed", "sync of the write failed", "LostWrite", "MisdirectedWrite"] {
        assert!(told.iter().any(|line| line.contains(sign)), "the history has a {sign}");
    }
}

#[test]
fn faults_that_do_not_strike_change_nothing() {
    let faults = DiskFaults { write_error: 1, sync_error: 1, other_error: 1, lost_write: 1, misdirected_write: 1 };
    assert!(story(1, faults) == story(1, DiskFaults::default()));
}
