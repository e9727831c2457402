//! What shards promise each other.

use crate::{
    idle::ShardWaker,
    queues::{Full, Port, mesh},
};
use loom::thread;
use tickwheel_wire::ShardId;

const RECEIVER: ShardId = ShardId(0);

/// Checks a model over all orders in which the running thread is changed, before it has to be, a few times at most: three threads, or two
/// that meet twice, have more orders than can be tried, and most faults show with two changes.
fn check_within(changes: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(changes);
    builder.check(model);
}

fn shards(count: usize, capacity: usize) -> (Vec<ShardWaker>, Vec<Port<u32>>) {
    let wakers: Vec<_> = (0..count).map(|_| ShardWaker::new()).collect();
    let ports = mesh(&wakers, capacity);
    (wakers, ports)
}

/// Turns until `count` messages have come, and sleeps whenever there is none.
fn receive(waker: &ShardWaker, port: &mut Port<u32>, count: usize) -> Vec<u32> {
    let mut received = Vec::new();
    loop {
        while let Some((_, message)) = port.try_receive() {
            received.push(message);
        }
        if received.len() >= count {
            return received;
        }
        waker.rest(|| port.has_messages());
    }
}

#[test]
fn loom_a_message_to_a_shard_that_falls_asleep_wakes_it() {
    loom::model(|| {
        let (wakers, mut ports) = shards(2, 2);
        let mut sender = ports.pop().expect("two ports");
        let sending = thread::spawn(move || {
            sender.try_send(RECEIVER, 7).expect("there is room");
            sender.flush();
        });
        assert_eq!(receive(&wakers[0], &mut ports[0], 1), [7]);
        sending.join().expect("the sender ends");
    });
}

#[test]
fn loom_messages_of_several_turns_come_in_order() {
    check_within(5, || {
        let (wakers, mut ports) = shards(2, 2);
        let mut sender = ports.pop().expect("two ports");
        let sending = thread::spawn(move || {
            for message in 1..=2 {
                sender.try_send(RECEIVER, message).expect("there is room");
                sender.flush();
            }
        });
        assert_eq!(receive(&wakers[0], &mut ports[0], 2), [1, 2]);
        sending.join().expect("the sender ends");
    });
}

#[test]
fn loom_of_two_senders_none_is_missed() {
    check_within(3, || {
        let (wakers, mut ports) = shards(3, 1);
        let senders: Vec<_> = ports.drain(1..).collect();
        let sending = senders.into_iter().map(|mut sender| {
            thread::spawn(move || {
                let number = u32::from(sender.shard().0);
                sender.try_send(RECEIVER, number).expect("there is room");
                sender.flush();
            })
        });
        let sending: Vec<_> = sending.collect();
        let mut received = receive(&wakers[0], &mut ports[0], 2);
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        sending.into_iter().for_each(|sending| sending.join().expect("the sender ends"));
    });
}

#[test]
fn loom_a_sleep_that_something_else_ends_loses_no_later_message() {
    check_within(5, || {
        let (wakers, mut ports) = shards(2, 2);
        let mut sender = ports.pop().expect("two ports");
        let sending = thread::spawn(move || {
            for message in 1..=2 {
                sender.try_send(RECEIVER, message).expect("there is room");
                sender.flush();
            }
        });
        wakers[0].rest_through(|| ports[0].has_messages(), || ());
        assert_eq!(receive(&wakers[0], &mut ports[0], 2), [1, 2]);
        sending.join().expect("the sender ends");
    });
}

#[test]
fn loom_a_full_queue_refuses_and_what_is_in_it_still_wakes() {
    loom::model(|| {
        let (wakers, mut ports) = shards(2, 1);
        let mut sender = ports.pop().expect("two ports");
        let sending = thread::spawn(move || {
            sender.try_send(RECEIVER, 1).expect("there is room");
            let refused = sender.try_send(RECEIVER, 2);
            sender.flush();
            refused
        });
        let mut received = receive(&wakers[0], &mut ports[0], 1);
        let refused = sending.join().expect("the sender ends");
        received.extend(ports[0].try_receive().map(|(_, message)| message));
        match refused {
            Ok(()) => assert_eq!(received, [1, 2]),
            Err(Full(message)) => assert_eq!((message, &*received), (2, &[1][..])),
        }
    });
}

#[test]
fn loom_of_those_who_wake_a_sleeper_one_signals() {
    loom::model(|| {
        let waker = ShardWaker::new();
        let signals = waker.rest_through(
            || false,
            || {
                let waking = [waker.clone(), waker.clone()].map(|waker| thread::spawn(move || u32::from(waker.wake())));
                waking.into_iter().map(|waking| waking.join().expect("the waker ends")).sum::<u32>()
            },
        );
        assert_eq!(signals, Some(1), "one sleep takes one system call");
    });
}
