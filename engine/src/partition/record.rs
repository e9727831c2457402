//! The hot record of a job: 48 bytes, everything that firing, dispatching and completing touch.
//!
//! ```text
//!  next_fire u64 | fire sequence u48 | token u48 | flags 12, generation 20 | schedule u32 | policy u32
//!  | data u32 | execution u32 | armed u32 | finished u32
//! ```
//!
//! `armed` and the flag `QUEUED` are volatile: the shard core owns them, and neither the digest nor a snapshot sees them. Nor do they
//! see the flag `RULED`, which follows from the definition.
//! In a free slot `next_fire` links the free list (previous in the high half, next in the low half); in a finished job it
//! holds the time at which the job expires, because a finished job has no next fire.

use crate::wheel::Armed;
use tickwheel_wire::{JobId, Timestamp, Token, frame::request::ExecutionState};

/// No slot, no execution, no data.
pub(crate) const NONE: u32 = u32::MAX;

/// Marks of a job; durable but for `QUEUED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(u32);

impl Flag {
    /// The slot holds a job.
    pub const ALIVE: Self = Self(1);
    /// The job is paused.
    pub const PAUSED: Self = Self(1 << 1);
    /// An execution was asked for and has not been dispatched.
    pub const TRIGGERED: Self = Self(1 << 2);
    /// The job will not fire again; it waits for its expiry.
    pub const FINISHED: Self = Self(1 << 3);
    /// The newest ended attempt was ended by its worker's report, so that a repeated report is acknowledged.
    pub const REPORTED: Self = Self(1 << 4);
    /// Volatile: the slot's key is in the dispatcher's ready queue.
    pub const QUEUED: Self = Self(1 << 5);
    /// Derived from the definition: the job has rules of its own, see [`super::due`].
    pub const RULED: Self = Self(1 << 6);
    /// The job's backlog is not empty, see [`super::backlog`].
    pub const BACKLOG: Self = Self(1 << 7);
    /// An execution besides the schedule is to come.
    pub const ASKED_FOR: Self = Self(Self::TRIGGERED.0 | Self::BACKLOG.0);
}

/// The flags that a snapshot holds.
const DURABLE_FLAGS: u32 = Flag::ALIVE.0 | Flag::PAUSED.0 | Flag::ASKED_FOR.0 | Flag::FINISHED.0 | Flag::REPORTED.0;
const STATE_SHIFT: u32 = 8;
const STATE_MASK: u32 = 0b1111 << STATE_SHIFT;
const GENERATION_SHIFT: u32 = 12;

/// One slot of the job table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRecord {
    pub next_fire_raw: u64,
    fire_low: u32,
    token_low: u32,
    fire_high: u16,
    token_high: u16,
    marks: u32,
    /// Index into the partition's schedules.
    pub schedule: u32,
    /// Index into the partition's policies.
    pub policy: u32,
    /// Where name and payload lie in the arena.
    pub data: u32,
    /// The execution in flight, or [`NONE`].
    pub execution: u32,
    /// Volatile: the live wheel entry.
    pub armed: Armed,
    /// When the newest attempt ended, in seconds since 1970; 0: none yet.
    pub finished_secs: u32,
}

const _: () = assert!(size_of::<JobRecord>() == 48, "the memory budget allows 48 bytes");

impl Default for JobRecord {
    fn default() -> Self {
        Self {
            next_fire_raw: u64::MAX,
            fire_low: 0,
            token_low: 0,
            fire_high: 0,
            token_high: 0,
            marks: 0,
            schedule: NONE,
            policy: NONE,
            data: NONE,
            execution: NONE,
            armed: Armed::NONE,
            finished_secs: 0,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "halves of 48-bit numbers, and fields within masks")]
impl JobRecord {
    /// Whether it has the flag, or any of those that it stands for.
    #[inline]
    pub const fn is(&self, flag: Flag) -> bool {
        self.marks & flag.0 != 0
    }

    #[inline]
    pub const fn set(&mut self, flag: Flag, on: bool) {
        if on {
            self.marks |= flag.0;
        } else {
            self.marks &= !flag.0;
        }
    }

    /// Forgets all but what is volatile.
    pub fn clear(&mut self) {
        let (armed, queued) = (self.armed, self.is(Flag::QUEUED));
        *self = Self { armed, ..Self::default() };
        self.set(Flag::QUEUED, queued);
    }

    pub const fn generation(&self) -> u32 {
        self.marks >> GENERATION_SHIFT
    }

    pub const fn set_generation(&mut self, generation: u32) {
        assert!(generation <= JobId::GENERATION_MAX, "generations have 20 bits");
        self.marks = self.marks & ((1 << GENERATION_SHIFT) - 1) | generation << GENERATION_SHIFT;
    }

    /// How the newest execution ended; `None` when none has ended.
    pub fn last_state(&self) -> ExecutionState {
        let number = (self.marks & STATE_MASK) >> STATE_SHIFT;
        ExecutionState::from_number(number as u8).expect("only valid states are stored")
    }

    pub const fn set_last_state(&mut self, state: ExecutionState) {
        self.marks = self.marks & !STATE_MASK | (state.number() as u32) << STATE_SHIFT;
    }

    /// The scheduled time of the next firing that has not been dispatched.
    #[inline]
    pub const fn next_fire(&self) -> Timestamp {
        if self.is(Flag::FINISHED) { Timestamp::MAX } else { Timestamp::from_micros(self.next_fire_raw) }
    }

    /// The newest fire sequence; 0: never fired.
    #[inline]
    pub const fn fire_sequence(&self) -> u64 {
        (self.fire_high as u64) << 32 | self.fire_low as u64
    }

    #[inline]
    pub const fn set_fire_sequence(&mut self, value: u64) {
        assert!(value >> 48 == 0, "fire sequences have 48 bits: a firing per microsecond for nine years");
        (self.fire_low, self.fire_high) = (value as u32, (value >> 32) as u16);
    }

    /// The newest token that was given out; 0: none yet.
    #[inline]
    pub const fn token(&self) -> Token {
        Token((self.token_high as u64) << 32 | self.token_low as u64)
    }

    #[inline]
    pub const fn set_token(&mut self, value: Token) {
        assert!(value.0 >> 48 == 0, "tokens have 48 bits: an attempt per microsecond for nine years");
        (self.token_low, self.token_high) = (value.0 as u32, (value.0 >> 32) as u16);
    }

    /// The durable marks, for digest and snapshot.
    pub const fn durable_marks(&self) -> u32 {
        self.marks & !(Flag::QUEUED.0 | Flag::RULED.0)
    }

    /// Takes over marks from a snapshot; false, and nothing is taken over, if no record has such durable marks.
    pub fn restore_marks(&mut self, marks: u32) -> bool {
        let low = marks & ((1 << GENERATION_SHIFT) - 1);
        let is_known = if marks & Flag::ALIVE.0 == 0 {
            low == 0
        } else {
            let state = ExecutionState::from_number(((low & STATE_MASK) >> STATE_SHIFT) as u8);
            let in_flight = matches!(state, Some(ExecutionState::Running | ExecutionState::Retrying));
            low & !(STATE_MASK | DURABLE_FLAGS) == 0 && state.is_some() && !in_flight
        };
        if is_known {
            self.marks = marks;
        }
        is_known
    }
}
