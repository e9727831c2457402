//! Corpora and their mutations, through every entry point for arbitrary bytes ([`tickwheel_tests::fuzz`]).
//!
//! A corpus is the folder `tests/corpus/TARGET`; the frames of `docs/protocol-vectors.txt` belong to that of `frames`, the example
//! of jobs to that of `jobs_file`, and the golden events and snapshots of `engine` are those of `events` and `snapshot`.
//! Mutations come from a fixed seed, `TICKWHEEL_MUTATIONS` says how many of each target (20,000 by default); the seed and the number of one that
//! fails are printed, and its bytes go to `target/mutation-TARGET`. What failed once becomes part of the corpus.
//! `TICKWHEEL_WRITE_CORPUS=DIR` writes every corpus to `DIR/TARGET`, for coverage-guided fuzzing to begin with: docs/fuzzing.md.

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};
use tickwheel_tests::fuzz::{TARGETS, Target};
use tickwheel_wire::mix64;

const MUTATIONS_DEFAULT: u64 = 20_000;
const SEED: u64 = 0x0069_636b_7768_6565;
const BYTES_MAX: usize = 4 << 10;
/// Numbers at which code breaks, little-endian.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut corpus = folder(&format!("tests/corpus/{target}"), "");
    match target {
        "events" | "snapshot" => corpus.extend(folder("engine/tests/golden", target)),
        "frames" => corpus.extend(vectors()),
        "jobs_file" => corpus.push(fs::read(root().join("examples/jobs.toml")).expect("the example is there")),
        _ => {}
    }
    assert!(!corpus.is_empty(), "{target} has a corpus");
    corpus
}

/// The files of a folder whose names begin so, in the order of their names; none if there is no such folder.
fn folder(folder: &str, prefix: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let begins = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let paths = entries.map(|entry| entry.expect("the folder can be read").path()).filter(begins);
    let paths: BTreeSet<_> = paths.collect();
    paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

/// The frames of the protocol's document, and all of them behind one another.
fn vectors() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(root().join("docs/protocol-vectors.txt")).expect("the document is there");
    let lines = text.lines().filter(|line| line.starts_with("frame | "));
    let mut vectors: Vec<Vec<u8>> = lines.map(|line| hex(line.rsplit(" | ").next().expect("a last column"))).collect();
    assert!(!vectors.is_empty(), "the document has frames");
    vectors.push(vectors.concat());
    vectors
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0.iter();
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
}

/// Numbers that follow from a seed: those of a counter, scrambled.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        mix64(self.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a length")]
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        one.min(other)..one.max(other)
    }
}

/// One to four changes of a text from the corpus.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[place] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[place] = random.next().to_le_bytes()[0],
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - place.min(bytes.len()));
                bytes[place..place + width].copy_from_slice(&edge[..width]);
            }
            3 => drop(bytes.drain(random.range(bytes.len()))),
            4 => {
                let copy = bytes[random.range(bytes.len())].to_vec();
                bytes.splice(place..place, copy);
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let piece = other[random.range(other.len())].to_vec();
                bytes.splice(place..place, piece);
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn run((name, target): Target) {
    let corpus = corpus(name);
    corpus.iter().for_each(|bytes| target(bytes));
    let count = env::var("TICKWHEEL_MUTATIONS").map_or(MUTATIONS_DEFAULT, |text| text.parse().expect("a number"));
    let mut random = Random(SEED);
    for number in 0..count {
        let bytes = mutate(&mut random, &corpus);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            let kept = root().join("target").join(format!("mutation-{name}"));
            fs::write(&kept, &bytes).expect("the folder can be written");
            eprintln!("mutation {number} of {name} from seed {SEED:#x} failed; its bytes are in {}", kept.display());
            std::panic::resume_unwind(panic);
        }
    }
}

fn run_named(name: &str) {
    run(*TARGETS.iter().find(|(known, _)| *known == name).expect("the target exists"));
}

#[test]
fn every_target_has_a_corpus_and_writes_it_when_asked() {
    for (name, _) in TARGETS {
        let corpus = corpus(name);
        if let Some(folder) = env::var_os("TICKWHEEL_WRITE_CORPUS") {
            let folder = Path::new(&folder).join(name);
            fs::create_dir_all(&folder).expect("the folder can be made");
            for (number, bytes) in corpus.iter().enumerate() {
                fs::write(folder.join(format!("seed-{number}")), bytes).expect("the folder can be written");
            }
        }
    }
}

#[test]
fn frames_of_strangers_stop_no_core() {
    run_named("frames");
}

#[test]
fn events_that_can_be_read_are_written_as_they_were() {
    run_named("events");
}

#[test]
fn whatever_passes_for_a_cron_expression_fires_in_order() {
    run_named("cron");
}

#[test]
fn any_text_is_a_jobs_file_or_an_error() {
    run_named("jobs_file");
}

#[test]
fn any_text_is_a_crontab_or_an_error() {
    run_named("crontab");
}

#[test]
fn any_text_is_manifests_or_an_error() {
    run_named("kubernetes");
}

#[test]
fn any_text_is_units_or_an_error() {
    run_named("systemd");
}

#[test]
fn any_bytes_are_a_snapshot_that_a_core_can_go_on_from_or_an_error() {
    run_named("snapshot");
}

#[test]
fn a_changed_data_directory_gives_a_front_of_what_was_written_or_an_error() {
    run_named("log");
}
