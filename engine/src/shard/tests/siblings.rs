//! Several shard cores of one node, which hear each other through queues in order.

use super::{
    super::*,
    harness::{secs, session},
};
use std::{collections::BTreeMap, sync::Arc};
use tickwheel_wire::{
    InstanceId, PartitionCount, Reader, SessionId,
    frame::{
        FrameHeader,
        request::{SubmitJob, SubmitMode},
        work::{
            Attach, Complete, CompleteHead, Dispatch, DispatchHead, Outcome, Reattach, Reattached, ReportStatus,
            Verdict,
        },
    },
    job::{JobSpec, ScheduleSpec},
    partition_of,
};

struct Siblings {
    shards: Vec<Shard>,
    effects: Effects,
    now: Now,
    queues: BTreeMap<(ShardId, ShardId), VecDeque<PeerMessage>>,
    worker: Identity,
    client: Identity,
    count: PartitionCount,
    /// Attempts that the worker holds.
    held: Vec<DispatchHead>,
    claims: Vec<Verdict>,
}

impl Siblings {
    /// `count` shards with one partition each.
    fn new(count: u16) -> Self {
        let tenants = vec![Tenant { name: "acme".into(), weight: 1 }];
        let directory = Arc::new(Directory::new(tenants, vec![Pool::shared("standard")]).unwrap());
        let partitions = PartitionCount::new(count.into()).unwrap();
        let now = Now { wall: secs(0), monotonic: Duration::ZERO };
        let shards = (0..count).map(|number| {
            let config = ShardConfig::new(ShardId(number), count, partitions, directory.clone());
            let limits = config.partition;
            let mut shard = Shard::new(config, now);
            shard.adopt(Partition::new(PartitionId(number), limits), now);
            shard
        });
        Self {
            shards: shards.collect(),
            effects: Effects::new(),
            now,
            queues: BTreeMap::new(),
            worker: directory.identify("w", Role::Worker, None, &["standard"]).unwrap(),
            client: directory.identify("c", Role::Client, Some("acme"), &[]).unwrap(),
            count: partitions,
            held: Vec::new(),
            claims: Vec::new(),
        }
    }

    fn send<'f, F: Frame<'f>>(&mut self, to: u16, from: SessionRef, identity: &Identity, frame: &F) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        let frame_type = F::TYPE.number();
        let input = Input::Frame { session: from, identity, lane: 0, frame_type, body: &body };
        self.shards[usize::from(to)].handle(self.now, input, &mut self.effects);
        self.harvest();
    }

    fn harvest(&mut self) {
        for output in self.effects.oldest().outputs() {
            let mut input = Reader::new(&self.effects.oldest().bytes()[output.range.clone()]);
            while !input.is_empty() {
                let header = FrameHeader::take(&mut input).unwrap();
                let body = input.take(header.body_bytes as usize, "body").unwrap();
                match FrameType::from_number(header.frame_type).unwrap() {
                    FrameType::Dispatch => self.held.push(Dispatch::decode_body(body).unwrap().head),
                    FrameType::Reattached => self.claims.push(Reattached::decode_body(body).unwrap().verdict),
                    FrameType::Refused => panic!("{:?}", Refused::decode_body(body)),
                    _ => {}
                }
            }
        }
        self.effects.clear();
    }

    /// Turns of all shards until none has anything to do or to say.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut busy = false;
            for number in 0..self.shards.len() {
                let from = ShardId(u16::try_from(number).unwrap());
                self.shards[number].fire(self.now, &mut self.effects);
                self.harvest();
                let queues = &mut self.queues;
                self.shards[number].send_to_peers(|to, message| {
                    queues.entry((from, to)).or_default().push_back(message);
                    Ok(())
                });
                busy |= self.shards[number].has_work();
            }
            let queues: Vec<_> = self.queues.iter_mut().map(|(pair, queue)| (*pair, std::mem::take(queue))).collect();
            for ((from, to), queue) in queues {
                for message in queue {
                    busy = true;
                    let input = Input::Peer { from, message };
                    self.shards[usize::from(to.0)].handle(self.now, input, &mut self.effects);
                    self.harvest();
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    fn attach(&mut self, home: u16, number: u64, capacity: u32) -> SessionRef {
        let session = SessionRef { shard: ShardId(home), session: SessionId(number) };
        let identity = self.worker.clone();
        let frame = Attach { request_id: 1, instance: InstanceId(9), capacity, pools: "" };
        self.send(home, session, &identity, &frame);
        self.settle();
        session
    }

    /// `count` jobs that are due at once on every shard.
    fn create_due(&mut self, prefix: &str, count: u32) {
        let mut created = BTreeMap::new();
        for number in 0.. {
            let name = format!("{prefix}-{number}");
            let partition = partition_of("acme", &name, self.count);
            let here = created.entry(partition).or_insert(0);
            if *here < count {
                *here += 1;
                self.submit(partition, &name);
            }
            if created.len() == self.shards.len() && created.values().all(|here| *here == count) {
                return;
            }
        }
    }

    fn submit(&mut self, partition: PartitionId, name: &str) {
        let spec = JobSpec::new("acme", name, "run", ScheduleSpec::Once { at: secs(0) });
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        let submit = SubmitJob {
            request_id: 1,
            partition,
            mode: SubmitMode::Create,
            expected_revision: 0,
            idempotency_key: &[],
            idempotency_window_ms: 0,
            spec: &bytes,
        };
        let identity = self.client.clone();
        self.send(partition.0, session(77), &identity, &submit);
    }

    fn complete(&mut self, from: SessionRef, attempt: DispatchHead) {
        let DispatchHead { job, fire_sequence, token, .. } = attempt;
        let head = CompleteHead { job, fire_sequence, token, run_us: 1, outcome: Outcome::Succeeded, error_bytes: 0 };
        let identity = self.worker.clone();
        self.send(job.partition().0, from, &identity, &Complete { head, error: "", output: &[] });
        self.settle();
    }

    fn succeeded(&self) -> u64 {
        self.shards.iter().flat_map(Shard::partitions).map(|partition| partition.counters().succeeded).sum()
    }
}

#[test]
fn a_worker_with_one_slot_serves_due_jobs_of_every_shard_in_turn() {
    const COUNT: u32 = if cfg!(miri) { 2 } else { 6 };
    let mut siblings = Siblings::new(4);
    let session = siblings.attach(2, 1, 1);
    siblings.create_due("job", COUNT);
    siblings.settle();
    let mut served = Vec::new();
    while let Some(attempt) = siblings.held.pop() {
        assert!(siblings.held.is_empty(), "it has one slot");
        served.push(attempt.job.partition().0);
        siblings.complete(session, attempt);
    }
    assert_eq!((served.len(), siblings.succeeded()), (4 * COUNT as usize, 4 * u64::from(COUNT)));
    for shard in 0..4 {
        let turns: Vec<usize> = (0..served.len()).filter(|&turn| served[turn] == shard).collect();
        let waits = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(turns[0] < 5 && waits <= 5, "shard {shard} was served at {turns:?}");
    }
}

#[test]
fn the_owner_of_an_attempt_keeps_the_status_that_a_worker_of_another_shard_reports() {
    let mut siblings = Siblings::new(2);
    let session = siblings.attach(0, 1, 4);
    siblings.create_due("job", 1);
    siblings.settle();
    let (identity, held) = (siblings.worker.clone(), std::mem::take(&mut siblings.held));
    assert_eq!(held.len(), 2);
    for attempt in held {
        let DispatchHead { job, fire_sequence, token, .. } = attempt;
        let (request_id, partition, status) = (0, job.partition(), b"begun");
        let report = ReportStatus { request_id, partition, job, fire_sequence, token, status };
        siblings.send(partition.0, session, &identity, &report);
        assert_eq!(siblings.shards[usize::from(partition.0)].statuses.of(job, token), "begun");
        siblings.complete(session, attempt);
    }
    assert!(siblings.shards.iter().all(|shard| shard.statuses.attempts().count() == 0));
}

#[test]
fn a_returning_worker_claims_on_every_shard_and_is_not_given_more_than_it_can_hold() {
    let mut siblings = Siblings::new(2);
    let first = siblings.attach(0, 1, 4);
    siblings.create_due("job", 2);
    siblings.settle();
    let held = std::mem::take(&mut siblings.held);
    assert_eq!(held.len(), 4);
    siblings.shards[0].handle(siblings.now, Input::SessionClosed { session: first }, &mut siblings.effects);
    siblings.settle();
    let second = siblings.attach(1, 2, 4);
    let identity = siblings.worker.clone();
    for attempt in &held {
        let DispatchHead { job, fire_sequence, token, .. } = *attempt;
        siblings.send(job.partition().0, second, &identity, &Reattach { job, fire_sequence, token });
    }
    siblings.settle();
    assert_eq!(siblings.claims, [Verdict::Accepted; 4]);
    siblings.now.wall = siblings.now.wall.saturating_add(Duration::from_secs(1));
    siblings.create_due("more", 10);
    siblings.settle();
    assert!(siblings.held.is_empty(), "all its slots are taken");
    for attempt in held {
        siblings.complete(second, attempt);
    }
    assert_eq!(siblings.held.len(), 4, "every slot came back, and only once");
    assert_eq!(siblings.succeeded(), 4);
}
