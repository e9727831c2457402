//! glommio 0.9.0 can park with work still runnable when its time slice is over before anything ran, and then sleeps for
//! good. This provokes it and shows that a shard in the same conditions goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, timer::Timer};
use tickwheel_server::runtime::{
    counters::ShardCounters,
    idle::{Idle, IdleStrategy, ShardWaker},
    watchdog::{Watchdog, Watched},
};
use tickwheel_wire::ShardId;

/// A time slice that makes the stall likely.
const TIME_SLICE: Duration = Duration::from_micros(100);
const NAP: Duration = Duration::from_micros(300);
const OBSERVED: Duration = Duration::from_secs(8);

/// Naps through glommio's reactor without end.
async fn nap_in_reactor(count: Arc<AtomicU64>) {
    loop {
        Timer::new(NAP).await;
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Naps as a shard does, until told to stop.
async fn nap_as_shard(waker: ShardWaker, counters: Arc<ShardCounters>, stop: Arc<AtomicBool>) {
    let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
    let mut idle = Idle::new(waker, strategy, Arc::clone(&counters)).expect("precise timers");
    while !stop.load(Ordering::Relaxed) {
        counters.turn();
        let now = Instant::now();
        idle.rest(now, Some(now + NAP), &[], || false);
    }
}

/// Runs a task on an executor with the tiny time slice. The stall can also hit before the task's first instruction, where nothing
/// of ours runs yet: such an executor is left behind and another one tried.
fn spawn<F: Future<Output = ()> + 'static>(make: impl Fn() -> F + Clone + Send + 'static) -> mpsc::Receiver<()> {
    for _ in 0..20 {
        let (begun_sender, begun) = mpsc::channel();
        let (ended_sender, ended) = mpsc::channel();
        let make = make.clone();
        let task = move || async move {
            let _ = begun_sender.send(());
            make().await;
            let _ = ended_sender.send(());
        };
        LocalExecutorBuilder::default().preempt_timer(TIME_SLICE).spawn(task).expect("an executor");
        if begun.recv_timeout(Duration::from_secs(1)).is_ok() {
            return ended;
        }
    }
    panic!("no executor of twenty began");
}

#[test]
fn a_shard_goes_on_where_the_reactor_stalls() {
    let reactor_count = Arc::new(AtomicU64::new(0));
    let napper = Arc::clone(&reactor_count);
    let _reactor = spawn(move || nap_in_reactor(Arc::clone(&napper)));

    let (waker, counters, stop) = (
        ShardWaker::new().expect("a descriptor"),
        Arc::new(ShardCounters::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let watched = Watched { shard: ShardId(0), waker: waker.clone(), counters: Arc::clone(&counters) };
    let watchdog = Watchdog::start(vec![watched]).expect("a thread");
    let shard = (waker.clone(), Arc::clone(&counters), Arc::clone(&stop));
    let shard_ended = spawn(move || nap_as_shard(shard.0.clone(), Arc::clone(&shard.1), Arc::clone(&shard.2)));

    let begin = Instant::now();
    let (mut turns, mut naps, mut stalled) = (0, 0, false);
    while begin.elapsed() < OBSERVED {
        thread::park_timeout(Duration::from_secs(1));
        let (turns_now, naps_now) = (counters.turns.count(), reactor_count.load(Ordering::Relaxed));
        assert!(turns_now > turns, "the shard stopped after {turns} turns");
        stalled |= naps_now == naps;
        (turns, naps) = (turns_now, naps_now);
    }
    stop.store(true, Ordering::Relaxed);
    shard_ended.recv_timeout(Duration::from_secs(30)).expect("the shard ends when told");
    eprintln!(
        "shard: {turns} turns, {} rescues; glommio's reactor: {naps} naps, stalled for a second or for good: {stalled}",
        watchdog.rescues()
    );
}
