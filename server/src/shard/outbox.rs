//! Nothing leaves before it is durable: the outputs of each turn wait here for the commit that holds their events.
//!
//! Invariants: outputs leave in the order in which they were produced, and only once the log's contiguous durable prefix has
//! reached their commit. A turn without events waits for the last commit before it, because what it tells rests on that.

use std::collections::VecDeque;
use tickwheel_engine::shard::{Batch, Output};
use tickwheel_storage::CommitSequence;
use tickwheel_wire::planted::Mistake;

/// Emptied buffers kept for reuse.
const SPARE_MAX: usize = 16;

/// The outputs of the turns that are not durable yet.
#[derive(Debug, Default)]
pub struct Outbox {
    held: VecDeque<Held>,
    spare: Vec<Held>,
}

#[derive(Debug, Default)]
struct Held {
    commit: CommitSequence,
    outputs: Vec<Output>,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Holds the outputs of `batch` until `commit` is durable.
    pub fn hold(&mut self, batch: &mut Batch, commit: CommitSequence) {
        if batch.outputs().is_empty() {
            return;
        }
        debug_assert!(self.held.back().is_none_or(|last| last.commit <= commit), "commits grow");
        let mut held = self.spare.pop().unwrap_or_default();
        held.commit = commit;
        batch.swap_outputs(&mut held.outputs, &mut held.bytes);
        self.held.push_back(held);
    }

    /// Hands everything that `durable` covers to `send`, in order; whether there was anything.
    pub fn release(&mut self, durable: CommitSequence, mut send: impl FnMut(&Output, &[u8])) -> bool {
        let mut released = false;
        let durable = CommitSequence(durable.0 + u64::from(Mistake::ReleasedOneCommitEarly.is_made()));
        while self.held.front().is_some_and(|held| held.commit <= durable) {
            let Some(mut held) = self.held.pop_front() else { break };
            for output in &held.outputs {
                send(output, &held.bytes[output.range.clone()]);
            }
            released = true;
            if self.spare.len() < SPARE_MAX {
                held.outputs.clear();
                held.bytes.clear();
                self.spare.push(held);
            }
        }
        released
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};
    use tickwheel_engine::shard::{Directory, Effects, Input, Pool, Role, Shard, ShardConfig, Tenant};
    use tickwheel_wire::{
        Now, PartitionCount, Reader, SessionId, SessionRef, ShardId, Timestamp,
        frame::{FrameHeader, FrameType},
    };

    /// What a turn did that answered these requests: each was a frame that a client may not send.
    fn turn(request_ids: &[u64]) -> Effects {
        let tenant = Tenant { name: "default".into(), weight: 1 };
        let directory = Arc::new(Directory::new(vec![tenant], vec![Pool::shared("standard")]).expect("valid"));
        let identity = directory.identify("client", Role::Client, Some("default"), &[]).expect("known");
        let now = Now { wall: Timestamp::from_micros(1), monotonic: Duration::ZERO };
        let count = PartitionCount::new(8).expect("valid");
        let mut core = Shard::new(ShardConfig::new(ShardId(0), 1, count, directory), now);
        let mut effects = Effects::new();
        for (lane, request_id) in (0_u8..).zip(request_ids) {
            let session = SessionRef { shard: ShardId(0), session: SessionId(7) };
            let (frame_type, body) = (FrameType::Attach.number(), &request_id.to_le_bytes());
            core.handle(now, Input::Frame { session, identity: &identity, lane, frame_type, body }, &mut effects);
        }
        assert_eq!(effects.oldest().outputs().len(), request_ids.len());
        effects
    }

    /// The requests whose answers leave when everything up to `durable` is on disk.
    fn released(outbox: &mut Outbox, durable: u64) -> Vec<u64> {
        let mut request_ids = Vec::new();
        let any = outbox.release(CommitSequence(durable), |_, frame| {
            request_ids.push(Reader::new(&frame[FrameHeader::BYTES..]).u64("request_id").expect("a refusal"));
        });
        assert_eq!(any, !request_ids.is_empty());
        request_ids
    }

    #[test]
    fn nothing_leaves_before_its_commit_is_durable() {
        let mut outbox = Outbox::default();
        outbox.hold(turn(&[1, 2]).oldest_mut(), CommitSequence(3));
        for durable in 0..3 {
            assert!(released(&mut outbox, durable).is_empty());
            assert!(!outbox.is_empty());
        }
        assert_eq!(released(&mut outbox, 3), [1, 2]);
        assert!(outbox.is_empty() && released(&mut outbox, 4).is_empty(), "it leaves once");
    }

    #[test]
    fn what_the_durable_prefix_covers_leaves_in_the_order_of_the_turns() {
        let mut outbox = Outbox::default();
        for (commit, answered) in [(1, [1, 2]), (2, [3, 4]), (4, [5, 6])] {
            outbox.hold(turn(&answered).oldest_mut(), CommitSequence(commit));
        }
        assert_eq!(released(&mut outbox, 3), [1, 2, 3, 4]);
        assert_eq!(released(&mut outbox, 9), [5, 6]);
    }

    #[test]
    fn a_turn_without_events_waits_for_the_commit_before_it() {
        let mut outbox = Outbox::default();
        outbox.hold(turn(&[1]).oldest_mut(), CommitSequence(1));
        outbox.hold(turn(&[2]).oldest_mut(), CommitSequence(1));
        assert!(released(&mut outbox, 0).is_empty());
        assert_eq!(released(&mut outbox, 1), [1, 2]);
    }

    #[test]
    fn a_buffer_in_use_again_holds_nothing_of_before() {
        let mut outbox = Outbox::default();
        for round in 1..=2 * SPARE_MAX as u64 {
            outbox.hold(turn(&[round]).oldest_mut(), CommitSequence(round));
            outbox.hold(turn(&[]).oldest_mut(), CommitSequence(round));
            assert_eq!(released(&mut outbox, round), [round]);
        }
    }
}
