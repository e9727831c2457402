//! The control thread that trusts no sleeper: it wakes any shard that is past the deadline which it published.
//!
//! Shards wake up by themselves, so on a healthy machine this thread never acts. It stands against what the shard cannot
//! see: a lost timer, a runtime that parks with work still runnable (as glommio 0.9.0 can), a suspended machine. It also notices a
//! shard that runs but does not finish its turn, which it can only report.
//!
//! Invariants: a shard sleeps at most [`GRACE`] and one [`PERIOD`] beyond its deadline; rousing a healthy shard
//! is harmless. Cost: 20 wake-ups a second of a few microseconds each, on an unpinned thread.
//!
//! Deliberately absent: any remedy for a stuck turn. That is a defect, and the operator's to see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tickwheel_wire::ShardId;

use super::{clock::since_origin, counters::ShardCounters, idle::ShardWaker};

/// How often the shards are looked at.
pub const PERIOD: Duration = Duration::from_millis(50);
/// How far past its deadline a sleeper may be before it is woken.
pub const GRACE: Duration = Duration::from_millis(20);
/// How long one turn may take before it is reported.
pub const TURN_MAX: Duration = Duration::from_secs(5);

/// What the watchdog watches of one shard.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The shard.
    pub shard: ShardId,
    /// Wakes it and tells its deadline.
    pub waker: ShardWaker,
    /// Counts its turns.
    pub counters: Arc<ShardCounters>,
}

/// The running watchdog; ends when dropped.
#[derive(Debug)]
pub struct Watchdog {
    rescues: Arc<AtomicU64>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts to watch `shards`.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(shards: Vec<Watched>) -> std::io::Result<Self> {
        let rescues = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = mpsc::channel();
        let mut watch = Watch { shards: shards.into_iter().map(Turn::of).collect(), rescues: Arc::clone(&rescues) };
        let thread = thread::Builder::new().name("tw-watchdog".into()).spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                watch.look(Instant::now());
            }
        })?;
        Ok(Self { rescues, stop: Some(stop), thread: Some(thread) })
    }

    /// How often a shard had to be woken because it was past its deadline.
    pub fn rescues(&self) -> u64 {
        self.rescues.load(Ordering::Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A watchdog that panicked has nothing left to tell here.
            let _ = thread.join();
        }
    }
}

struct Watch {
    shards: Vec<Turn>,
    rescues: Arc<AtomicU64>,
}

/// The turn in which a shard was last seen.
struct Turn {
    watched: Watched,
    count: u64,
    seen_at: Instant,
    reported: bool,
}

impl Turn {
    fn of(watched: Watched) -> Self {
        Self { watched, count: 0, seen_at: Instant::now(), reported: false }
    }

    /// How long the shard has been in the same turn, once per turn beyond the bound.
    fn stuck_for(&mut self, now: Instant, asleep: bool) -> Option<Duration> {
        let count = self.watched.counters.turns.count();
        if asleep || count != self.count {
            (self.count, self.seen_at, self.reported) = (count, now, false);
        }
        let stuck = now.saturating_duration_since(self.seen_at);
        let reports = stuck > TURN_MAX && !self.reported;
        self.reported |= reports;
        reports.then_some(stuck)
    }
}

impl Watch {
    fn look(&mut self, now: Instant) {
        for turn in &mut self.shards {
            let (shard, waker) = (turn.watched.shard.0, &turn.watched.waker);
            let overdue = waker.sleeps_until().and_then(|until| since_origin(now).checked_sub(until + GRACE));
            let overdue = overdue.filter(|overdue| !overdue.is_zero());
            if let Some(overdue) = overdue {
                tracing::warn!(shard, ?overdue, "woke a shard that slept past its deadline");
                self.rescues.fetch_add(1, Ordering::Relaxed);
                waker.signal();
            }
            let asleep = waker.is_asleep();
            if let Some(stuck) = turn.stuck_for(now, asleep) {
                tracing::error!(shard, ?stuck, "a shard does not finish its turn");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::idle::{Idle, IdleStrategy, Rest},
        *,
    };

    fn watched() -> Watched {
        let waker = ShardWaker::new().expect("a descriptor");
        Watched { shard: ShardId(0), waker, counters: Arc::default() }
    }

    fn idle(watched: &Watched) -> Idle {
        let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
        Idle::new(watched.waker.clone(), strategy, Arc::clone(&watched.counters)).expect("precise timers")
    }

    #[test]
    fn a_sleeper_whose_timer_is_lost_is_woken() {
        let watched = watched();
        let idle = idle(&watched);
        let watchdog = Watchdog::start(vec![watched]).expect("a thread");
        for _ in 0..3 {
            // The promise holds a deadline, and the sleep does not: as if the kernel or the executor had lost the timer.
            idle.publish_sleep(Some(Instant::now() + Duration::from_millis(1)));
            assert_eq!(idle.sleep(Some(Instant::now() + Duration::from_secs(30)), &[]), Rest::Woken);
            idle.take_signal();
        }
        assert!(watchdog.rescues() >= 3);
    }

    #[test]
    fn a_shard_that_keeps_its_promise_is_left_alone() {
        let watched = watched();
        let mut idle = idle(&watched);
        let shards = vec![Turn::of(watched)];
        let mut watch = Watch { shards, rescues: Arc::default() };
        let begin = Instant::now();
        // Before the deadline, and within the grace after it.
        for after in [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(100) + GRACE] {
            let rest = idle.rest(begin, Some(begin + Duration::from_millis(100)), &[], || {
                watch.look(begin + after);
                true
            });
            assert_eq!((rest, watch.rescues.load(Ordering::Relaxed)), (Rest::Work, 0));
        }
        watch.look(begin + Duration::from_secs(60));
        assert_eq!(watch.rescues.load(Ordering::Relaxed), 0, "it is awake, so no deadline counts");
        assert_eq!(
            idle.rest(begin, Some(begin + Duration::from_millis(100)), &[], || {
                watch.look(begin + Duration::from_millis(101) + GRACE);
                true
            }),
            Rest::Work
        );
        assert_eq!(watch.rescues.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_turn_that_does_not_end_is_reported_once() {
        let mut turn = Turn::of(watched());
        let begin = turn.seen_at;
        assert_eq!(turn.stuck_for(begin + TURN_MAX, false), None);
        assert!(turn.stuck_for(begin + 2 * TURN_MAX, false).is_some_and(|stuck| stuck > TURN_MAX));
        assert_eq!(turn.stuck_for(begin + 3 * TURN_MAX, false), None, "once is enough");
        turn.watched.counters.turn();
        assert_eq!(turn.stuck_for(begin + 4 * TURN_MAX, false), None, "the next turn has begun");
        assert_eq!(turn.stuck_for(begin + 9 * TURN_MAX, true), None, "a sleeping shard is in no turn");
        assert_eq!(turn.stuck_for(begin + 10 * TURN_MAX, false), None);
        assert!(turn.stuck_for(begin + 11 * TURN_MAX, false).is_some());
    }
}
