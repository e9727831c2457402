//! Frames in, completions out, and what the tally and the ledger make of them.

use super::*;
use tickwheel_wire::{FireSequence, JobId, PartitionId, Token, frame::FrameHeader, job::Priority};

const HANDLER: &str = "load-00000001";
const INTERVAL_US: u64 = 1_000_000;

fn shared() -> Arc<Shared> {
    Arc::new(Shared { ledger: Ledger::new(4, 100, INTERVAL_US), window: Window::new(), handler: HANDLER.to_owned() })
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn job(slot: u32) -> JobId {
    JobId::new(PartitionId(1), 0, slot)
}

/// The body of a dispatch.
fn dispatch(slot: u32, sequence: u64, token: u64, scheduled_us: u64, handler: &str) -> Vec<u8> {
    let (tenant, name) = ("default", "job");
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let head = DispatchHead {
        job: job(slot),
        fire_sequence: FireSequence(sequence),
        token: Token(token),
        scheduled_at: at(scheduled_us),
        start_to_close_ms: 0,
        heartbeat_ms: 0,
        attempt: 1,
        priority: Priority::P1,
        tenant_bytes: length(tenant),
        name_bytes: length(name),
        handler_bytes: length(handler),
    };
    let mut body = Vec::new();
    Dispatch { head, tenant, name, handler, payload: b"payload" }.encode_body(&mut body);
    body
}

fn completed(slot: u32, sequence: u64, verdict: Verdict) -> Vec<u8> {
    let completed = Completed { job: job(slot), fire_sequence: FireSequence(sequence), token: Token(1), verdict };
    completed.to_bytes().to_vec()
}

/// A worker with its tally, and a clock that the test sets.
struct Bench {
    shared: Arc<Shared>,
    worker: Instant,
    tally: Tally,
}

impl Bench {
    fn new() -> Self {
        let shared = shared();
        shared.window.open(at(10_000_000), at(20_000_000));
        Self { worker: Instant::new(Arc::clone(&shared)), shared, tally: Tally::new() }
    }

    fn take(&mut self, frame_type: FrameType, bodies: &[Vec<u8>], now_us: u64) -> Result<(), WorkerError> {
        let frames = bodies.iter().map(|body| RawFrame { lane: Lane::P1, frame_type, body });
        self.worker.take(frames, at(now_us), &mut self.tally)
    }

    /// The completions that wait on the lane of P1, which are then sent.
    fn sent(&mut self) -> Vec<(JobId, u64, u64, Outcome)> {
        let out = std::mem::take(self.worker.out(Lane::P1));
        let mut input = Reader::new(&out);
        let mut all = Vec::new();
        while !input.is_empty() {
            let header = FrameHeader::take(&mut input).unwrap();
            assert_eq!(FrameType::from_number(header.frame_type), Some(FrameType::Complete));
            let complete = Complete::decode_body(input.take(header.body_bytes as usize, "body").unwrap()).unwrap();
            let CompleteHead { job, fire_sequence, token, outcome, .. } = complete.head;
            all.push((job, fire_sequence.0, token.0, outcome));
        }
        all
    }
}

#[test]
fn every_dispatch_of_a_batch_is_completed_on_its_lane_in_order() {
    let mut bench = Bench::new();
    let bodies: Vec<_> = (0..100).map(|slot| dispatch(slot, 1, 7, 11_000_000, HANDLER)).collect();
    bench.take(FrameType::Dispatch, &bodies, 11_000_500).unwrap();
    let expected: Vec<_> = (0..100).map(|slot| (job(slot), 1, 7, Outcome::Succeeded)).collect();
    assert_eq!(bench.sent(), expected);
    assert!(Lane::ALL.into_iter().all(|lane| bench.worker.out(lane).is_empty()));
}

#[test]
fn lateness_counts_from_the_scheduled_time_of_firings_due_in_the_window() {
    let mut bench = Bench::new();
    for (slot, scheduled_us) in [(0, 9_999_999), (1, 10_000_000), (2, 19_999_999), (3, 20_000_000)] {
        bench.take(FrameType::Dispatch, &[dispatch(slot, 1, 1, scheduled_us, HANDLER)], scheduled_us + 700).unwrap();
    }
    assert_eq!((bench.tally.dispatched, bench.tally.lateness_us.len()), (4, 2));
    assert_eq!(bench.tally.lateness_us.value_at_quantile(0.5), 700);
}

#[test]
fn a_dispatch_before_its_time_is_early() {
    let mut bench = Bench::new();
    bench.take(FrameType::Dispatch, &[dispatch(0, 1, 1, 11_000_000, HANDLER)], 11_000_000).unwrap();
    assert_eq!(bench.tally.early, 0);
    bench.take(FrameType::Dispatch, &[dispatch(1, 1, 1, 11_000_000, HANDLER)], 10_999_999).unwrap();
    assert_eq!(bench.tally.early, 1);
}

#[test]
fn only_accepted_completions_are_executions() {
    let mut bench = Bench::new();
    let bodies: Vec<_> = (0..4).map(|slot| dispatch(slot, 1, 1, 11_000_000, HANDLER)).collect();
    bench.take(FrameType::Dispatch, &bodies, 11_000_500).unwrap();
    let verdicts = [Verdict::Accepted, Verdict::StaleToken, Verdict::UnknownJob];
    for (slot, verdict) in (0..).zip(verdicts) {
        bench.take(FrameType::Completed, &[completed(slot, 1, verdict)], 11_002_000).unwrap();
    }
    assert_eq!((bench.tally.executions, bench.tally.acknowledged, bench.tally.errors), (1, 1, 2));
    assert_eq!((bench.tally.completion_us.len(), bench.tally.completion_us.max()), (1, 2_000));
}

#[test]
fn an_acknowledgement_after_the_window_is_no_execution_but_its_latency_counts() {
    let mut bench = Bench::new();
    bench.take(FrameType::Dispatch, &[dispatch(0, 1, 1, 19_999_999, HANDLER)], 20_000_100).unwrap();
    bench.take(FrameType::Completed, &[completed(0, 1, Verdict::Accepted)], 20_000_999).unwrap();
    assert_eq!((bench.tally.executions, bench.tally.acknowledged), (0, 1));
    assert_eq!((bench.tally.lateness_us.len(), bench.tally.completion_us.max()), (1, 1_000));
}

#[test]
fn a_second_acknowledgement_is_a_duplicate() {
    let mut bench = Bench::new();
    bench.take(FrameType::Dispatch, &[dispatch(0, 1, 1, 11_000_000, HANDLER)], 11_000_100).unwrap();
    let twice = [completed(0, 1, Verdict::Accepted), completed(0, 1, Verdict::Accepted)];
    bench.take(FrameType::Completed, &twice, 11_000_200).unwrap();
    assert_eq!((bench.tally.executions, bench.tally.duplicates), (1, 1));
}

#[test]
fn a_completion_that_the_server_cannot_take_now_is_presented_again() {
    let mut bench = Bench::new();
    bench.take(FrameType::Dispatch, &[dispatch(0, 1, 1, 11_000_000, HANDLER)], 11_000_100).unwrap();
    bench.sent();
    bench.take(FrameType::Completed, &[completed(0, 1, Verdict::Overloaded)], 11_000_200).unwrap();
    assert_eq!(bench.sent(), [(job(0), 1, 1, Outcome::Succeeded)]);
    assert_eq!((bench.tally.overloaded, bench.tally.errors), (1, 0));
}

#[test]
fn executions_of_other_runs_are_failed_and_told() {
    let mut bench = Bench::new();
    bench.take(FrameType::Dispatch, &[dispatch(0, 1, 1, 11_000_000, "payroll")], 11_000_100).unwrap();
    assert_eq!(bench.sent(), [(job(0), 1, 1, Outcome::Failed)]);
    assert_eq!((bench.tally.dispatched, bench.tally.errors), (0, 1));
    assert_eq!(bench.shared.ledger.audit(at(u64::MAX)).jobs, 0);
}

#[test]
fn after_the_end_everything_is_still_completed_and_nothing_is_judged() {
    let mut bench = Bench::new();
    bench.shared.window.close();
    bench.take(FrameType::Dispatch, &[dispatch(0, 9, 1, 11_000_000, HANDLER)], 11_000_100).unwrap();
    bench.take(FrameType::Completed, &[completed(0, 9, Verdict::UnknownJob)], 11_000_200).unwrap();
    assert_eq!(bench.sent().len(), 1);
    assert_eq!((bench.tally.dispatched, bench.tally.lost, bench.tally.errors), (0, 0, 0));
}

#[test]
fn a_refusal_ends_the_session_with_the_servers_words() {
    let mut body = Vec::new();
    let code = tickwheel_wire::frame::session::RefusalCode::Forbidden;
    Refused { request_id: 1, code, detail: 0, field: "pools", message: "not this pool" }.encode_body(&mut body);
    let error = Bench::new().take(FrameType::Refused, &[body], 11_000_000).unwrap_err();
    assert!(error.to_string().contains("not this pool"), "{error}");
}
