//! The timing wheel of a shard: tens of millions of deadlines, inserted and delivered in constant time, in the order of
//! their ticks.
//!
//! Hierarchical timing wheel after Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), with three
//! changes. Slots hold contiguous entries instead of linked ones, so that delivery and cascading read memory in order;
//! cancelling is lazy, so that an entry needs no back reference; and every level has two windows, so that cascading
//! runs ahead of need and in slices.
//!
//! ```text
//! level   slot covers       window              holds, seen from the cursor
//! 0       1 tick = 64 us    1,024 = 65.5 ms     this window and the next
//! 1       65.5 ms           1,024 = 67.1 s      the same, of longer windows
//! 2       67.1 s            2,048 = 38.2 h
//! 3       38.2 h            1,024 = 4.5 years
//! beyond  (a sorted map)                        everything later
//! ```
//!
//! An entry goes to the lowest level that reaches its tick. Let `c` be the slot of a level above the lowest that the
//! cursor lies in: that level holds nothing at `c`, and slot `c + 1` is being emptied into the levels below while the
//! cursor crosses `c`, for they already reach `c + 1`. Outer levels round nothing: the slot and the low half of the
//! tick in the entry give the exact tick back.
//!
//! Invariants:
//! - nothing is delivered early (deadlines round up to a tick), nothing is lost, nothing is delivered twice;
//! - all ticks below the cursor have been delivered, and no occupied slot starts below it;
//! - one call of [`Wheel::expire`] delivers at most `limit` entries and moves at most
//!   `2 * limit +` [`MOVES_PER_CALL`], whatever is resident and however far time has jumped.
//!
//! Tick length: the mean rounding of 32 us is a fifteenth of the latency that half of all firings must meet (500 us, a
//! commit of 150 to 300 us included), and empty ticks cost nothing. Deliberately absent: a clock, removal of
//! entries (see [`Wheel::purge`]), any meaning of keys.

mod arena;
mod beyond;
mod bitmap;
mod purge;
mod ring;

use arena::Arena;
use beyond::Beyond;
use purge::Sweep;
use ring::Ring;
use tickwheel_wire::Timestamp;

/// Length of a tick in microseconds, a power of two.
pub const TICK_MICROS: u64 = 1 << TICK_SHIFT;
const TICK_SHIFT: u32 = 6;

/// Entries that one call of [`Wheel::expire`] may move between levels, besides two for each that it may deliver.
///
/// A slice of this size takes 10 to 30 us. Two per delivery, because in the long run an entry due within a day moves
/// twice: so cascading keeps up with whatever rate the caller's limit sustains.
pub const MOVES_PER_CALL: usize = 1024;

const LEVELS: usize = 4;
/// Slots per window, as a power of two.
const LEVEL_BITS: [u32; LEVELS] = [10, 10, 11, 10];
/// Ticks per slot, as a power of two; the last is the window of the highest level.
const SHIFTS: [u32; LEVELS + 1] = [0, 10, 20, 31, 41];
const _: () = {
    let mut level = 0;
    while level < LEVELS {
        assert!(SHIFTS[level] + LEVEL_BITS[level] == SHIFTS[level + 1], "a slot is a window of the level below");
        assert!(SHIFTS[level] <= 32, "an entry keeps 32 bits of its tick");
        level += 1;
    }
};

/// Which tick a key is armed for: its low bits. The owner keeps the value of the latest insertion of each key and
/// compares it when an entry is delivered, to recognise entries that are dead.
///
/// Equal deadlines have equal values. Different ones nearly always differ: the value repeats after 2^32 ticks (76 hours),
/// and within that time one pair of neighbouring ticks shares a value. An owner that must never fire early therefore also
/// compares its own due time. [`Armed::NONE`] is the value of no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Armed(u32);

impl Armed {
    /// The value of a key that is not armed. No entry has it.
    pub const NONE: Self = Self(u32::MAX);

    #[inline]
    const fn of(tick_low: u32) -> Self {
        // `NONE` must stay free, so the last value of a round joins its neighbour.
        Self(if tick_low == u32::MAX { tick_low - 1 } else { tick_low })
    }
}

/// The timing wheel. See the [module](self) for how it works.
///
/// An entry is a (key, tick) pair. 12.1 B per entry and 165 KiB for the slots, plus 768 B at most for each slot in use
/// (10,240 slots: less than 8 MiB) and what is unused of two 772 KiB segments; deadlines more than 4.5 years away cost about 40 B. Memory that was needed once is kept.
#[derive(Debug)]
pub struct Wheel {
    /// All ticks before this one were delivered.
    cursor: u64,
    rings: [Ring; LEVELS],
    beyond: Beyond,
    /// Chunks of the lowest level. Apart from the others because they are used again within two windows: so they stay
    /// few pages, however much is resident.
    near: Arena,
    /// Chunks of the levels above.
    far: Arena,
    count: usize,
    dead_count: usize,
    moved_count: u64,
    /// [`MOVES_PER_CALL`], but for tests, which reach a half-emptied slot sooner with less.
    moves_per_call: usize,
    sweep: Option<Sweep>,
}

impl Wheel {
    /// An empty wheel whose time is `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            cursor: tick_at(now),
            rings: std::array::from_fn(|level| Ring::new(SHIFTS[level], LEVEL_BITS[level])),
            beyond: Beyond::default(),
            near: Arena::new(),
            far: Arena::new(),
            count: 0,
            dead_count: 0,
            moved_count: 0,
            moves_per_call: MOVES_PER_CALL,
            sweep: None,
        }
    }

    /// Arms `key` for `at`, rounded up to a tick; what is past is due at once.
    ///
    /// When the same key is armed for the same tick twice, the earlier entry must have been given up with
    /// [`Wheel::cancel`]. A deadline within the last tick before [`Timestamp::MAX`] never comes due.
    ///
    /// # Panics
    /// If `at` is "never".
    #[inline]
    pub fn insert(&mut self, at: Timestamp, key: u64) -> Armed {
        assert!(!at.is_never(), "what never comes due is not inserted");
        let tick = tick_after(at).max(self.cursor);
        self.place(tick, key);
        self.count += 1;
        Armed::of(low_half(tick))
    }

    /// Delivers what is due at `now`, in the order of the ticks, at most `limit` entries, and cascades ahead of need.
    ///
    /// Returns whether it stopped at a bound before everything due was delivered: call again then. Else call again at
    /// [`Wheel::next_deadline`]. Delivered entries may be dead: compare their [`Armed`], and report those that are
    /// with [`Wheel::discard`]. Changing or clearing the owner's value for a live one makes copies of it dead.
    ///
    /// # Panics
    /// If `now` is before the `now` of a call that returned false, or `limit` is 0.
    pub fn expire(&mut self, now: Timestamp, limit: usize, deliver: &mut impl FnMut(u64, Armed)) -> bool {
        let now_tick = tick_at(now);
        assert!(now_tick >= self.cursor, "time never decreases");
        assert!(limit > 0, "a limit of 0 never ends");
        let mut deliveries = limit;
        let mut moves = limit.saturating_mul(2).saturating_add(self.moves_per_call);
        // Each round but the last moves at least one entry.
        loop {
            let horizon = self.horizon();
            if !self.deliver_through(now_tick.min(horizon - 1), &mut deliveries, deliver) {
                return true;
            }
            if horizon > now_tick {
                break;
            }
            if moves == 0 {
                return true;
            }
            self.cursor = horizon - 1;
            self.cascade(&mut moves);
        }
        self.cursor = now_tick;
        self.cascade(&mut moves);
        false
    }

    /// When to call [`Wheel::expire`] next: never later than the earliest entry is due, and earlier only when entries
    /// should move between levels. `None` when the wheel is empty.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let due = self.rings[0].next_occupied(self.cursor);
        let cascades = self.rings[1..].iter().filter_map(|ring| self.cascade_moment(ring));
        let tick = due.into_iter().chain(cascades).chain(self.beyond_moment()).min()?;
        Some(Timestamp::from_micros(tick.min(u64::MAX / TICK_MICROS) * TICK_MICROS))
    }

    /// Tells that one entry, still in the wheel, has become dead: its key was armed anew, or is no longer armed.
    #[inline]
    pub fn cancel(&mut self) {
        self.dead_count += 1;
    }

    /// Tells that one entry that was delivered turned out to be dead.
    ///
    /// # Panics
    /// If more entries turn out to be dead than were cancelled.
    #[inline]
    pub fn discard(&mut self) {
        self.remove_dead(1);
    }

    /// How many entries the wheel holds, dead ones included.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the wheel holds no entry.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many entries were cancelled and neither discarded nor purged since.
    pub const fn dead_count(&self) -> usize {
        self.dead_count
    }

    /// How many times an entry was moved to a lower level, since the wheel exists.
    pub const fn moved_count(&self) -> u64 {
        self.moved_count
    }

    /// Bytes of memory that the wheel holds, used or not.
    pub fn memory_bytes(&self) -> usize {
        let rings: usize = self.rings.iter().map(Ring::memory_bytes).sum();
        rings + self.near.memory_bytes() + self.far.memory_bytes() + self.beyond.memory_bytes()
    }

    /// Puts an entry into the lowest level that reaches its tick.
    #[inline]
    fn place(&mut self, tick: u64, key: u64) {
        // Each level whose two windows end before the tick passes it on; adding up their number avoids branches.
        let level: usize = SHIFTS[1..].iter().map(|&shift| usize::from(!self.reaches(shift, tick))).sum();
        if level == 0 {
            self.rings[0].push(&mut self.near, tick, key);
        } else if level < LEVELS {
            self.rings[level].push(&mut self.far, tick, key);
        } else {
            self.beyond.insert(tick, key);
        }
    }

    /// Whether `tick` lies in the window of `2^shift` ticks that the cursor is in, or in the next.
    #[inline]
    const fn reaches(&self, shift: u32, tick: u64) -> bool {
        tick >> shift <= (self.cursor >> shift) + 1
    }

    /// The first tick that is not yet wholly in the lowest level.
    fn horizon(&self) -> u64 {
        let rings = self.rings[1..].iter().filter_map(|ring| {
            let number = ring.next_occupied(ring.number(self.cursor) + 1)?;
            Some(ring.start(number))
        });
        rings.chain(self.beyond.first_tick().map(window_start)).min().unwrap_or(u64::MAX)
    }

    /// Delivers the lowest level up to and including tick `last`; false when the bound left some of it.
    #[inline]
    fn deliver_through(&mut self, last: u64, bound: &mut usize, deliver: &mut impl FnMut(u64, Armed)) -> bool {
        while let Some(tick) = self.rings[0].next_occupied(self.cursor).filter(|&tick| tick <= last) {
            self.cursor = tick;
            if *bound == 0 {
                return false;
            }
            let (chunk, range) = self.rings[0].slot(tick).front(*bound);
            let taken = range.len();
            for index in range {
                let entry = self.near.read(chunk, index);
                deliver(entry.key, Armed::of(entry.tick_low));
            }
            self.rings[0].consume(&mut self.near, tick, taken);
            self.count -= taken;
            *bound -= taken;
        }
        true
    }

    /// Moves entries down that the lower levels reach by now, at most `bound`, the most urgent level first.
    fn cascade(&mut self, bound: &mut usize) {
        let before = *bound;
        for level in 1..LEVELS {
            let number = self.rings[level].number(self.cursor) + 1;
            while *bound > 0 && self.rings[level].count(number) > 0 {
                *bound -= self.cascade_chunk(level, number, *bound);
            }
        }
        while *bound > 0 && self.beyond.first_tick().is_some_and(|tick| self.reaches(SHIFTS[LEVELS], tick)) {
            let (tick, key) = self.beyond.pop_first().expect("it has a first tick");
            self.place(tick, key);
            *bound -= 1;
        }
        self.moved_count += (before - *bound) as u64;
    }

    /// Moves entries of one chunk of slot `number` down; how many.
    fn cascade_chunk(&mut self, level: usize, number: u64, bound: usize) -> usize {
        let (chunk, range) = self.rings[level].slot(number).front(bound);
        let taken = range.len();
        let entries = self.far.copy(chunk);
        for index in range {
            let entry = entries.read(index);
            self.place(self.rings[level].tick(number, entry.tick_low), entry.key);
        }
        self.rings[level].consume(&mut self.far, number, taken);
        taken
    }

    /// When the next slice of `ring` should move: at the latest when its first occupied slot comes within reach, and
    /// from then on so often that slices of [`MOVES_PER_CALL`] finish in half of the time left.
    fn cascade_moment(&self, ring: &Ring) -> Option<u64> {
        let next = ring.number(self.cursor) + 1;
        let number = ring.next_occupied(next)?;
        if number > next {
            return Some(ring.start(number - 1));
        }
        let slices = ring.count(number).div_ceil(self.moves_per_call) as u64;
        let left = ring.start(number) - self.cursor;
        Some(self.cursor + (left / (2 * slices)).max(1))
    }

    fn beyond_moment(&self) -> Option<u64> {
        let window = self.beyond.first_tick()? >> SHIFTS[LEVELS];
        Some(((window - 1) << SHIFTS[LEVELS]).max(self.cursor + 1))
    }

    /// # Panics
    /// If there are fewer dead entries.
    fn remove_dead(&mut self, count: usize) {
        self.dead_count = self.dead_count.checked_sub(count).expect("only cancelled entries are dead");
    }
}

/// The tick that has begun at `now`.
#[inline]
const fn tick_at(now: Timestamp) -> u64 {
    now.as_micros() >> TICK_SHIFT
}

/// The first tick that begins at or after `at`.
#[inline]
const fn tick_after(at: Timestamp) -> u64 {
    at.as_micros().div_ceil(TICK_MICROS)
}

/// The first tick of the highest level's window that holds `tick`.
const fn window_start(tick: u64) -> u64 {
    tick >> SHIFTS[LEVELS] << SHIFTS[LEVELS]
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low_half(tick: u64) -> u32 {
    tick as u32
}

#[cfg(test)]
mod tests;
