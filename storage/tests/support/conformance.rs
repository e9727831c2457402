//! What every commit log promises, said once for every kind of log.

use crate::support::{Model, PARTITIONS, POLLS_MAX, Random, States, encode, event};
use tickwheel_storage::{Admission, AppendError, CommitLog, CommitSequence, Section};
use tickwheel_wire::PartitionId;

/// A kind of log under test.
pub trait Backend {
    type Log: CommitLog;
    fn new(seed: u64) -> Self;
    fn log(&mut self) -> &mut Self::Log;
    /// The owner stops abruptly; another one reads what there is.
    fn take_over(&mut self) -> States;
}

/// Appends 1 to 9 events to some partitions as one commit.
pub fn append<L: CommitLog>(
    log: &mut L,
    model: &mut Model,
    random: &mut Random,
) -> Result<CommitSequence, AppendError> {
    let chosen: Vec<_> = (0..PARTITIONS).map(PartitionId).filter(|_| random.below(2) == 0).collect();
    let parts: Vec<_> = chosen
        .into_iter()
        .map(|partition| {
            let before = model.states[usize::from(partition.0)].len();
            let events: Vec<u64> = (before + 1..=before + 1 + random.below(9)).map(|n| event(partition, n)).collect();
            (partition, before as u64 + 1, encode(&events), events)
        })
        .collect();
    let sections = parts.iter().map(|(partition, first_sequence, bytes, events)| Section {
        partition: *partition,
        first_sequence: *first_sequence,
        event_count: u32::try_from(events.len()).expect("few"),
        bytes,
    });
    let sequence = log.append(sections, Admission::Ordinary)?;
    let mut commit = Vec::new();
    for (partition, _, _, events) in parts {
        let state = &mut model.states[usize::from(partition.0)];
        state.extend(events);
        commit.push((partition, state.len()));
    }
    model.commits[0].push(commit);
    Ok(sequence)
}

/// Polls and notes in the model what was reported.
pub fn poll<L: CommitLog>(log: &mut L, model: &mut Model) -> CommitSequence {
    let durable = log.poll().expect("an undisturbed log");
    for (partition, length) in model.commits[0].iter().take(usize::try_from(durable.0).expect("few")).flatten() {
        let reported = &mut model.reported[usize::from(partition.0)];
        *reported = (*reported).max(*length);
    }
    durable
}

/// The model of a log on which nothing was appended.
pub fn model() -> Model {
    let mut model = Model::new();
    model.commits.push(Vec::new());
    model
}

/// A takeover at any moment finds a prefix of whole commits that holds all that was reported.
fn check_prefix<B: Backend>(seed: u64, turns: usize) {
    let (mut backend, mut model, mut random) = (B::new(seed), model(), Random(seed));
    let mut last = CommitSequence(0);
    for _ in 0..turns {
        match append(backend.log(), &mut model, &mut random) {
            Ok(sequence) => assert_eq!(sequence.0, model.commits[0].len() as u64, "commits are counted without gaps"),
            Err(AppendError::Full) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
        for _ in 0..random.below(15) {
            let durable = poll(backend.log(), &mut model);
            assert!(durable >= last, "what is durable never becomes less");
            assert!(durable.0 <= model.commits[0].len() as u64, "only what was appended becomes durable");
            last = durable;
        }
    }
    let found = backend.take_over();
    model.verify(&found).unwrap_or_else(|error| panic!("seed {seed}, {turns} turns: {error}"));
}

/// At its bound a log refuses and stays usable; left alone, all becomes durable.
fn check_bound<B: Backend>(seed: u64) {
    let (mut backend, mut model, mut random) = (B::new(seed), model(), Random(seed));
    let wait_for_room = |backend: &mut B, model: &mut Model, random: &mut Random| {
        for _ in 0..POLLS_MAX {
            match append(backend.log(), model, random) {
                Err(AppendError::Full) => poll(backend.log(), model),
                other => return other.expect("there is room"),
            };
        }
        panic!("seed {seed}: the log never took a commit");
    };
    wait_for_room(&mut backend, &mut model, &mut random);
    let mut accepted = 1;
    while append(backend.log(), &mut model, &mut random).is_ok() {
        accepted += 1;
        assert!(accepted <= 16, "commits in flight are bounded");
    }
    assert!(accepted > 1, "several commits are in flight");
    let last = wait_for_room(&mut backend, &mut model, &mut random);
    let empty = loop {
        match backend.log().append([], Admission::Ordinary) {
            Err(AppendError::Full) => poll(backend.log(), &mut model),
            other => break other.expect("an empty commit is one too"),
        };
    };
    assert_eq!(empty.0, last.0 + 1);
    model.commits[0].push(Vec::new());
    let is_all_durable = (0..POLLS_MAX).any(|_| poll(backend.log(), &mut model) == empty);
    assert!(is_all_durable, "seed {seed}: commits become durable");
    assert_eq!(backend.take_over(), model.states, "seed {seed}");
}

/// Checks the promises with histories of growing length.
pub fn check<B: Backend>(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        check_prefix::<B>(seed, usize::try_from(seed).expect("small") + 5);
        check_bound::<B>(seed);
    }
}
