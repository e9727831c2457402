//! Frames for the worker's unit tests.

use tickwheel_wire::{
    FireSequence, JobId, PartitionId, Timestamp, Token,
    frame::work::{Dispatch, DispatchHead},
    job::Priority,
};

/// A dispatch of job `slot` with token 1, its head changed by `change`.
pub(super) fn dispatch(slot: u32, change: impl FnOnce(&mut DispatchHead)) -> Dispatch<'static> {
    let mut head = DispatchHead {
        job: JobId::new(PartitionId(0), 0, slot),
        fire_sequence: FireSequence(1),
        token: Token(1),
        scheduled_at: Timestamp::from_secs(1),
        start_to_close_ms: 0,
        heartbeat_ms: 0,
        attempt: 1,
        priority: Priority::P1,
        tenant_bytes: 1,
        name_bytes: 1,
        handler_bytes: 1,
    };
    change(&mut head);
    Dispatch { head, tenant: "t", name: "n", handler: "h", payload: b"payload" }
}
