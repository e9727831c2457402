//! The window, the order of answers, and what refusals do.

use super::*;
use crate::{arguments::Arguments, ledger::Ledger, plan::Rhythm, tally::Window};
use clap::Parser as _;
use tickwheel_wire::{JobId, Reader, Timestamp, frame::FrameHeader};

const WINDOW: u32 = 10;

fn plan() -> Arc<Plan> {
    let line = ["x", "--spawn", "--window", "10"];
    Arc::new(Plan::resolve(&Arguments::try_parse_from(line).unwrap(), 1).unwrap())
}

/// Partitions dealt out in turn.
fn owners(shard_count: u16, partition_count: u16) -> Arc<Owners> {
    let shards = (0..partition_count).map(|partition| ShardId(partition % shard_count)).collect();
    Arc::new(Owners { partition_count: PartitionCount::new(partition_count.into()).unwrap(), shards })
}

fn stream(jobs: u64) -> Stream {
    Stream::new(plan(), owners(1, 8), ShardId(0), 0..jobs)
}

/// The request ids and partitions of what is to be sent.
fn requests(out: &[u8]) -> Vec<(u64, PartitionId)> {
    let (mut input, mut all) = (Reader::new(out), Vec::new());
    while !input.is_empty() {
        let header = FrameHeader::take(&mut input).unwrap();
        let body = input.take(header.body_bytes as usize, "body").unwrap();
        all.push(tickwheel_wire::frame::request_head(body).unwrap());
    }
    all
}

fn fill(stream: &mut Stream, question: &Question) -> Vec<u64> {
    let mut out = Vec::new();
    stream.fill(question, &mut out);
    requests(&out).into_iter().map(|(request_id, _)| request_id).collect()
}

fn take(stream: &mut Stream, question: &Question, frame_type: FrameType, body: &[u8]) -> Result<u64> {
    stream.take(question, std::iter::once(RawFrame { lane: Lane::Control, frame_type, body }))
}

fn done(request_id: u64) -> Vec<u8> {
    let mut body = Vec::new();
    Done { request_id, job: JobId::default(), next_fire: Timestamp::MAX }.encode_body(&mut body);
    body
}

fn refused(request_id: u64, code: RefusalCode) -> Vec<u8> {
    let mut body = Vec::new();
    Refused { request_id, code, detail: 0, field: "", message: "no" }.encode_body(&mut body);
    body
}

#[test]
fn the_window_bounds_what_is_in_flight_and_answers_move_it() {
    let (mut stream, question) = (stream(15), Question::Delete);
    assert_eq!(fill(&mut stream, &question), (1..=WINDOW.into()).collect::<Vec<u64>>());
    assert!(fill(&mut stream, &question).is_empty());
    for request_id in [7, 2] {
        assert_eq!(take(&mut stream, &question, FrameType::Done, &done(request_id)).unwrap(), 1);
    }
    assert_eq!(fill(&mut stream, &question), [11, 12]);
    for request_id in 1..=10 {
        take(&mut stream, &question, FrameType::Done, &done(request_id)).unwrap();
    }
    assert_eq!(fill(&mut stream, &question), [13, 14, 15]);
    assert!(!stream.is_done());
}

#[test]
fn shards_share_the_jobs_by_the_partitions_they_own() {
    let owners = owners(3, 64);
    let mut seen = Vec::new();
    for shard in 0..3 {
        let mut stream = Stream::new(plan(), Arc::clone(&owners), ShardId(shard), 0..300);
        loop {
            let mut out = Vec::new();
            stream.fill(&Question::Delete, &mut out);
            for (request_id, partition) in requests(&out) {
                assert_eq!(owners.shards[usize::from(partition.0)], ShardId(shard));
                seen.push(request_id);
                take(&mut stream, &Question::Delete, FrameType::Done, &done(request_id)).unwrap();
            }
            if out.is_empty() {
                break;
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
}

#[test]
fn what_the_server_cannot_take_now_is_asked_again() {
    let (mut stream, question) = (stream(2), Question::Delete);
    fill(&mut stream, &question);
    let overloaded = refused(2, RefusalCode::Overloaded);
    assert_eq!(take(&mut stream, &question, FrameType::Refused, &overloaded).unwrap(), 0);
    assert_eq!(fill(&mut stream, &question), [2]);
}

#[test]
fn other_refusals_end_it_unless_the_question_expects_them() {
    let unknown = refused(1, RefusalCode::UnknownJob);
    let (mut deleting, mut finding) = (stream(2), stream(2));
    let find = Question::Find(AtomicU64::new(0));
    fill(&mut deleting, &Question::Delete);
    fill(&mut finding, &find);
    assert!(take(&mut deleting, &Question::Delete, FrameType::Refused, &unknown).is_err());
    assert_eq!(take(&mut finding, &find, FrameType::Refused, &unknown).unwrap(), 1);
    assert!(matches!(&find, Question::Find(missing) if missing.load(Relaxed) == 1));
}

#[test]
fn a_refusal_of_the_session_or_a_drain_ends_it() {
    for (frame_type, body) in [
        (FrameType::Refused, refused(0, RefusalCode::Overloaded)),
        (FrameType::GoAway, Vec::new()),
        (FrameType::Done, done(0)),
    ] {
        let mut stream = stream(2);
        fill(&mut stream, &Question::Delete);
        assert!(take(&mut stream, &Question::Delete, frame_type, &body).is_err(), "{frame_type:?}");
    }
}

#[test]
fn submitted_jobs_are_expected_by_the_ledger() {
    let shared = Arc::new(Shared { ledger: Ledger::new(8, 10, 1_000), window: Window::new(), handler: String::new() });
    let rhythm = Rhythm { base: Timestamp::from_secs(1), interval_us: 1_000, spread: false };
    let question = Question::Submit(Definitions::new(&plan(), rhythm), Some(Arc::clone(&shared)));
    let mut stream = stream(1);
    fill(&mut stream, &question);
    let (mut body, next_fire) = (Vec::new(), Timestamp::from_secs(1));
    Submitted { request_id: 1, job: JobId::default(), revision: 1, next_fire, created: true }.encode_body(&mut body);
    assert_eq!(take(&mut stream, &question, FrameType::Submitted, &body).unwrap(), 1);
    assert_eq!(shared.ledger.audit(next_fire).outstanding, 1);
}
