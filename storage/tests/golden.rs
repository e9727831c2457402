//! Golden files: what released versions wrote, read by today's code, and what today's code writes, byte for byte.
//!
//! Each directory below `golden/` is a whole data directory as storage sees it: partition map, log and snapshots. Its name holds the
//! versions of the three formats. All hold the same history (`write_history`), so the same events must come out of each:
//! a shard with four partitions, a snapshot in the middle of one of them, a restart with two shards that closes the first stream,
//! and a last block whose second page never reached the disk.
//!
//! The directory of the current versions is written by
//! `TICKWHEEL_WRITE_GOLDEN=1 cargo test -p tickwheel-storage --test golden today_writes`, and only if there is none yet. The golden files of
//! a released format are never rewritten: a change of format gets a new version, whose directory comes to lie beside the old ones.
//!
//! Blocks have no version of their own; that of the segment they lie in stands for them, and for the events in them too.

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};
use support::{Model, Node, NodeError, PARTITIONS, States, options};
use tempfile::TempDir;
use tickwheel_storage::{
    Admission, LogOptions, MAP_VERSION, RecoverError, ReplayError, SEGMENT_VERSION, SNAPSHOT_VERSION,
};
use tickwheel_wire::PartitionId;

/// The events of each partition, oldest first: literals, so that nothing that is computed can move along with a format.
const EVENTS: [&[u64]; PARTITIONS as usize] = [
    &[
        0x910A_2DEC_8902_5CC1,
        0x9758_35DE_1C97_56CE,
        0x1D0B_14E4_DB01_8FED,
        0x6E73_E372_E233_8ACA,
        0x6303_3B0C_A389_C35A,
        0xBD64_A5D9_ADEF_E000,
        0x63CB_E1E4_5932_0DD7,
        0x9E56_51B0_EF95_3636,
    ],
    &[0x2043_91A6_FD59_956F, 0xB370_3AD8_9450_7022, 0xA204_2DBA_6CBC_AF9B, 0x62E1_9E7F_2621_E001],
    &[0xC485_8308_E594_9C49, 0xA839_1E45_28C2_A97F, 0xEE19_14EA_7F58_51A7, 0x3D43_FA6D_5E78_C955],
    &[0x8107_ABDB_CB48_F182, 0x0999_E0D6_ABBE_B2DD, 0x26AC_B5B4_7514_8578, 0xA696_662E_CF57_8DDD],
];
/// Events of partition 0 that its snapshot contains.
const IN_SNAPSHOT: u64 = 4;
/// Where the block lies that never reached the disk whole.
const TORN_SEGMENT: &str = "log/2/1.log";
const PAGE_BYTES: usize = 4096;
/// In every file the format version follows a magic of 8 bytes.
const VERSION_AT: usize = 8;

/// Files by their path in the data directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn current() -> PathBuf {
    golden().join(format!("segment-{SEGMENT_VERSION}-snapshot-{SNAPSHOT_VERSION}-map-{MAP_VERSION}"))
}

/// Three blocks to a segment. The salt, which is random elsewhere, is fixed.
fn golden_options() -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, reserve_segments: 0, ..options() }
}

fn files(root: &Path) -> Files {
    let mut found = Files::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                found.insert(path.strip_prefix(root).expect("below it").to_owned(), bytes);
            }
        }
    }
    found
}

fn write(files: &Files, root: &Path) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

fn start(files: &Files) -> Result<Node<TempDir>, NodeError> {
    let disk = tempfile::tempdir().expect("a temporary directory");
    write(files, disk.path());
    Node::start(disk, 1, golden_options())
}

/// The history that every directory holds.
fn write_history() -> Files {
    let disk = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new();
    let [zero, one, two, three] = [0, 1, 2, 3].map(PartitionId);
    let commits: [&[_]; 4] = [&[(zero, 2), (one, 1)], &[(zero, 2), (three, 3)], &[(two, 1)], &[(zero, 1), (one, 2)]];
    let mut node = Node::start(disk, 1, golden_options()).expect("starts");
    model.commits = vec![Vec::new()];
    for (number, commit) in commits.into_iter().enumerate() {
        node.append(&mut model, 0, commit, Admission::Ordinary).expect("appends");
        node.settle(&mut model).expect("settles");
        if number == 1 {
            node.snapshot(&mut model, zero).expect("takes a snapshot");
        }
    }
    let mut node = Node::start(node.disk, 2, golden_options()).expect("starts again");
    model.commits = vec![Vec::new(); 2];
    for (shard, commit) in [(0, [(zero, 2), (two, 1)]), (1, [(one, 1), (three, 1)]), (0, [(zero, 1), (two, 2)])] {
        node.append(&mut model, shard, &commit, Admission::Ordinary).expect("appends");
        node.settle(&mut model).expect("settles");
    }
    node.append(&mut model, 0, &[(zero, 30)], Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    let mut files = files(node.disk.path());
    tear(files.get_mut(Path::new(TORN_SEGMENT)).expect("a second segment"));
    files
}

/// Makes of the segment's last block what a crash between its two pages leaves.
fn tear(segment: &mut [u8]) {
    let second_page = &mut segment[2 * PAGE_BYTES..3 * PAGE_BYTES];
    assert!(second_page.iter().any(|byte| *byte != 0), "the block has two pages");
    second_page.fill(0);
}

fn check(found: &States) {
    assert_eq!(found.len(), EVENTS.len());
    for (partition, (found, expected)) in found.iter().zip(EVENTS).enumerate() {
        assert_eq!(found, expected, "partition {partition}");
    }
}

/// What recovery says of `files` whose file `path` carries `version`. Its checksum is left as it was, so a version that is not
/// judged first would pass for damage.
fn refusal(mut files: Files, path: &Path, version: u32) -> String {
    let file = files.get_mut(path).expect("a golden file");
    file[VERSION_AT..VERSION_AT + 4].copy_from_slice(&version.to_le_bytes());
    match start(&files) {
        Err(NodeError::Recover(error) | NodeError::Replay(ReplayError::Recover(error))) => {
            assert!(matches!(error, RecoverError::Version { .. }), "{error}");
            error.to_string()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} of version {version} was read", path.display()),
    }
}

#[test]
fn every_released_data_directory_recovers_to_its_events() {
    let entries = fs::read_dir(golden()).expect("golden files").map(|entry| entry.expect("an entry").path());
    let directories: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(directories.contains(&current()), "{} is missing; see the module's text", current().display());
    for directory in directories {
        let files = files(&directory);
        assert!(files.values().all(|bytes| bytes.len() < 64 << 10), "golden files are small");
        let torn = files[Path::new(TORN_SEGMENT)].chunks(PAGE_BYTES).map(|page| page.iter().all(|byte| *byte == 0));
        assert_eq!(torn.skip(1).collect::<Vec<_>>(), [false, true, true], "half a block is there");
        let node = start(&files).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        check(&node.found);
        assert_eq!(node.replayed[0].partitions[0].snapshot_sequence, IN_SNAPSHOT, "the snapshot was used");
        assert!(node.replayed[0].damaged_snapshots.is_empty() && node.discarded == 0);
    }
}

#[test]
fn today_writes_the_golden_files_byte_for_byte() {
    let written = write_history();
    if env::var_os("TICKWHEEL_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        assert!(!current().exists(), "{} is never rewritten; see the module's text", current().display());
        write(&written, &current());
    }
    let golden = files(&current());
    assert_eq!(written.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (path, bytes) in &written {
        let differs = bytes.iter().zip(&golden[path]).position(|(written, golden)| written != golden);
        assert_eq!((differs, bytes.len()), (None, golden[path].len()), "{} at the offset given", path.display());
    }
}

#[test]
fn a_newer_version_of_any_file_is_refused_with_both_versions() {
    let golden = files(&current());
    let mut kinds = BTreeMap::new();
    for path in golden.keys() {
        let newest = match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => SEGMENT_VERSION,
            Some("snap") => SNAPSHOT_VERSION,
            Some("map") => MAP_VERSION,
            _ => panic!("{} is of no known kind", path.display()),
        };
        *kinds.entry(path.extension()).or_insert(0) += 1;
        let file = &golden[path];
        assert_eq!(file[VERSION_AT..VERSION_AT + 4], newest.to_le_bytes(), "{}", path.display());
        for found in [newest + 1, u32::MAX] {
            let expected = format!(
                "{} has format version {found}, this version reads up to {newest}: use the newer program",
                path.display()
            );
            assert_eq!(refusal(golden.clone(), path, found), expected);
        }
    }
    assert_eq!(kinds.len(), 3, "log, snapshot and map");
}
