//! Sleeping and waking: no wake-up is lost, none costs a system call that it need not, and nothing but an event ends a
//! sleep.

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tickwheel_server::runtime::{
    counters::ShardCounters,
    idle::{Idle, IdleStrategy, Rest, ShardWaker},
    queues::{Full, Port, mesh},
};
use tickwheel_wire::ShardId;

/// So far away that a test which reaches it has lost a wake-up.
const NEVER: Duration = Duration::from_secs(60);

const NO_SPIN: IdleStrategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };

struct Sleeper {
    waker: ShardWaker,
    counters: Arc<ShardCounters>,
    idle: Idle,
}

fn sleeper(strategy: IdleStrategy) -> Sleeper {
    let waker = ShardWaker::new().expect("a descriptor");
    let counters = Arc::new(ShardCounters::default());
    let idle = Idle::new(waker.clone(), strategy, Arc::clone(&counters)).expect("precise timers");
    Sleeper { waker, counters, idle }
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(20))
}

#[test]
fn a_deadline_ends_one_sleep_and_costs_one_system_call() {
    let Sleeper { counters, mut idle, .. } = sleeper(NO_SPIN);
    let deadline = Instant::now() + Duration::from_millis(200);
    let rest = idle.rest(Instant::now(), Some(deadline), &[], || false);
    assert_eq!(rest, Rest::Deadline);
    assert!(Instant::now() >= deadline, "it woke before its deadline");
    assert_eq!((counters.sleeps.count(), counters.system_calls.count()), (1, 1));
}

#[test]
fn work_that_is_seen_before_the_sleep_costs_no_system_call() {
    let Sleeper { counters, mut idle, .. } = sleeper(NO_SPIN);
    assert_eq!(idle.rest(Instant::now(), None, &[], || true), Rest::Work);
    assert_eq!(counters.system_calls.count(), 0);
}

#[test]
fn a_shard_that_just_worked_does_not_sleep() {
    let strategy = IdleStrategy { spin: Duration::from_millis(50), ..NO_SPIN };
    let Sleeper { counters, mut idle, .. } = sleeper(strategy);
    let worked_at = Instant::now();
    idle.worked(worked_at);
    let within = worked_at + Duration::from_millis(49);
    assert_eq!(idle.rest(within, None, &[], || panic!("it does not look")), Rest::Spun);
    let beyond = worked_at + Duration::from_millis(50);
    assert_eq!(idle.rest(beyond, None, &[], || true), Rest::Work);
    assert_eq!(counters.system_calls.count(), 0);
}

#[test]
fn a_near_deadline_is_spun_towards() {
    let strategy = IdleStrategy { timer_lead: Duration::from_millis(5), ..NO_SPIN };
    let Sleeper { counters, mut idle, .. } = sleeper(strategy);
    let now = Instant::now();
    assert_eq!(idle.rest(now, Some(now + Duration::from_millis(4)), &[], || true), Rest::Spun);
    assert_eq!(idle.rest(now, Some(now + Duration::from_millis(6)), &[], || true), Rest::Work);
    assert_eq!(counters.system_calls.count(), 0);
}

#[test]
fn a_deadline_in_the_past_does_not_sleep() {
    let Sleeper { counters, mut idle, .. } = sleeper(NO_SPIN);
    let now = Instant::now();
    assert_eq!(idle.rest(now, Some(now - Duration::from_secs(1)), &[], || false), Rest::Spun);
    assert_eq!(counters.system_calls.count(), 0);
}

#[test]
fn waking_a_shard_that_runs_makes_no_system_call() {
    let Sleeper { waker, mut idle, .. } = sleeper(NO_SPIN);
    assert!(!waker.wake(), "it has never slept");
    idle.rest(Instant::now(), soon(), &[], || false);
    assert!(!waker.wake(), "it is awake again");
    assert_eq!(idle.rest(Instant::now(), soon(), &[], || false), Rest::Deadline, "no signal was left behind");
}

#[test]
fn two_wakers_make_one_system_call() {
    let Sleeper { waker, counters, mut idle } = sleeper(NO_SPIN);
    // The shard has published its sleep when it looks for work, so these wake-ups arrive at the worst moment.
    let mut system_calls = Vec::new();
    let rest = idle.rest(Instant::now(), Some(Instant::now() + NEVER), &[], || {
        system_calls.extend([waker.wake(), waker.wake()]);
        false
    });
    assert_eq!((rest, system_calls), (Rest::Woken, vec![true, false]));
    assert_eq!(counters.wakes.count(), 1);
}

#[test]
fn a_datagram_ends_the_sleep() {
    let Sleeper { mut idle, .. } = sleeper(NO_SPIN);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let sender = thread::spawn(move || {
        UdpSocket::bind("127.0.0.1:0").and_then(|sender| sender.send_to(b"x", address)).expect("sent");
    });
    let rest = idle.rest(Instant::now(), Some(Instant::now() + NEVER), &[socket.as_fd()], || false);
    assert_eq!(rest, Rest::Ready);
    sender.join().expect("no panic");
}

/// Plays `round_count` rounds of ping-pong over the mesh, asleep between the messages; the number of sleeps.
fn play(mut port: Port<u64>, waker: ShardWaker, round_count: u64) -> u64 {
    let serves = port.shard() == ShardId(0);
    let counters = Arc::new(ShardCounters::default());
    let mut idle = Idle::new(waker, NO_SPIN, Arc::clone(&counters)).expect("precise timers");
    let other = ShardId(1 - port.shard().0);
    let mut expected = 0;
    if serves {
        port.try_send(other, 0).expect("an empty queue");
        port.flush();
    }
    while expected < round_count {
        let Some((from, message)) = port.try_receive() else {
            let rest = idle.rest(Instant::now(), Some(Instant::now() + NEVER), &[], || port.has_messages());
            assert_ne!(rest, Rest::Deadline, "a wake-up was lost after {expected} rounds");
            continue;
        };
        assert_eq!((from, message), (other, expected));
        port.try_send(other, expected + u64::from(serves)).expect("at most one message is under way");
        port.flush();
        expected += 1;
    }
    counters.sleeps.count()
}

#[test]
fn no_wake_up_between_two_shards_is_lost() {
    let wakers = [ShardWaker::new().expect("a descriptor"), ShardWaker::new().expect("a descriptor")];
    let ports = mesh(&wakers, 4);
    let players: Vec<_> =
        ports.into_iter().zip(wakers).map(|(port, waker)| thread::spawn(move || play(port, waker, 50_000))).collect();
    let sleeps: u64 = players.into_iter().map(|player| player.join().expect("no wake-up lost")).sum();
    assert!(sleeps > 0, "nobody slept, so nothing was shown");
}

#[test]
fn a_full_queue_refuses_and_leaves_the_others_alone() {
    let wakers: Vec<_> = (0..3).map(|_| ShardWaker::new().expect("a descriptor")).collect();
    let mut ports = mesh(&wakers, 2);
    let mut third = ports.pop().expect("three ports");
    let mut second = ports.pop().expect("three ports");
    let mut first = ports.pop().expect("three ports");
    assert_eq!((first.shard(), first.shard_count()), (ShardId(0), 3));

    assert_eq!([first.try_send(ShardId(2), 10), first.try_send(ShardId(2), 11)], [Ok(()), Ok(())]);
    assert_eq!(first.try_send(ShardId(2), 12), Err(Full(12)));
    assert_eq!(first.try_send(ShardId(1), 13), Ok(()), "another receiver has a queue of its own");
    assert_eq!(second.try_send(ShardId(2), 20), Ok(()), "another sender has a queue of its own");

    assert!(third.has_messages());
    let received: Vec<_> = std::iter::from_fn(|| third.try_receive()).collect();
    assert_eq!(received, [(ShardId(0), 10), (ShardId(1), 20), (ShardId(0), 11)], "senders take turns, each in order");
    assert!(!third.has_messages());
    assert_eq!(first.try_send(ShardId(2), 12), Ok(()), "the places are free again");
    assert_eq!(second.try_receive(), Some((ShardId(0), 13)));
}
