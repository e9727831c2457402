//! What shards promise each other: no slot lost or doubled, nobody starves, silence when idle, no talk when busy.

use super::{model::*, *};
use proptest::prelude::*;
use std::collections::BTreeMap;

const fn slots(concurrency: u32) -> Capacity {
    Capacity { concurrency, prefetch: 0 }
}

fn enqueue(node: &mut Node, shard: usize, pool: u16, count: u64) {
    for key in 0..count {
        let class = Class { pool: PoolId(pool), priority: Priority::P1, tenant: TenantId(0) };
        node.shards[shard].enqueue(ReadyKey(key), class).unwrap();
    }
}

/// A round in which nothing is late: all complete, everything is delivered, every shard has its turn.
fn round(node: &mut Node) {
    while !node.running.is_empty() {
        node.complete(0);
    }
    node.deliver_all();
    for shard in 0..node.shards.len() {
        node.turn(shard);
    }
    node.check();
}

#[test]
fn one_slot_serves_all_shards_in_turn() {
    const COUNT: usize = if cfg!(miri) { 15 } else { 200 };
    for shard_count in 2..=if cfg!(miri) { 2 } else { 6 } {
        let mut node = Node::new(shard_count, 1_000, 1);
        let shard_count = usize::from(shard_count);
        node.attach(1, &[0], slots(1));
        for shard in 0..shard_count {
            enqueue(&mut node, shard, 0, COUNT as u64);
        }
        for _ in 0..4 * COUNT * shard_count {
            round(&mut node);
        }
        assert_eq!(node.served.len(), COUNT * shard_count);
        let start = 2 * shard_count;
        for (place, turn) in node.served[start..(COUNT - 10) * shard_count].windows(shard_count).enumerate() {
            let mut shards: Vec<usize> = turn.iter().map(|(shard, _)| *shard).collect();
            shards.sort_unstable();
            assert_eq!(shards, (0..shard_count).collect::<Vec<_>>(), "from execution {} on", start + place);
        }
        node.run_until_silent();
        node.check_at_rest();
    }
}

#[test]
fn shards_with_enough_workers_of_their_own_do_not_talk() {
    let mut node = Node::new(4, 1_000, 1);
    for shard in 0..4 {
        node.attach(shard, &[0], slots(64));
    }
    for _ in 0..if cfg!(miri) { 2 } else { 500 } {
        for shard in 0..4 {
            enqueue(&mut node, shard, 0, 50);
        }
        round(&mut node);
    }
    assert_eq!(node.message_count, 0);
}

#[test]
#[cfg_attr(miri, ignore = "needs many windows of turns")]
fn busy_shards_with_equal_workers_talk_once_and_lend_nothing() {
    let mut node = Node::new(4, 1_000, 1);
    for shard in 0..4 {
        node.attach(shard, &[0], slots(64));
        enqueue(&mut node, shard, 0, 100_000);
    }
    for _ in 0..500 {
        round(&mut node);
    }
    assert!(node.message_count <= 4 * 3, "{} messages for {} executions", node.message_count, node.served.len());
    assert!(node.shards.iter().all(|shard| shard.loan_counts(PoolId(0)) == LoanCounts::default()));
}

#[test]
#[cfg_attr(miri, ignore = "needs many windows of turns")]
fn contended_workers_of_one_shard_are_shared_evenly_and_then_quietly() {
    let mut node = Node::new(2, 1_000, 1);
    for _ in 0..100 {
        node.attach(0, &[0], slots(1));
    }
    for shard in 0..2 {
        enqueue(&mut node, shard, 0, 200_000);
    }
    for _ in 0..1_000 {
        round(&mut node);
    }
    let (messages, served) = (node.message_count, node.served.len());
    for _ in 0..500 {
        round(&mut node);
    }
    assert_eq!(node.message_count, messages, "a settled node keeps its loans");
    let counts = [0, 1].map(|shard| node.served[served..].iter().filter(|served| served.0 == shard).count());
    assert_eq!(counts, [25_000, 25_000]);
}

#[test]
fn idle_slots_of_a_sleeping_shard_come_home_when_they_are_wanted() {
    let mut node = Node::new(2, 1_000, 1);
    node.attach(0, &[0], slots(8));
    enqueue(&mut node, 1, 0, 8);
    for _ in 0..4 {
        round(&mut node);
    }
    assert_eq!(node.shards[1].loan_counts(PoolId(0)).borrowed, 8);
    // From here on shard 1 has a turn only when it is spoken to.
    enqueue(&mut node, 0, 0, 8);
    node.turn(0);
    assert_eq!(node.running.len(), 0);
    while node.deliver(0, 1) {}
    node.turn(1);
    while node.deliver(1, 0) {}
    assert!(!node.turn(0), "slots have come, so the turn that takes them in asks for another one");
    node.check();
    node.turn(0);
    assert_eq!(node.running.iter().filter(|running| running.shard == 0).count(), 8);
}

#[test]
fn shard_whose_queue_turned_out_empty_is_not_lent_to_again() {
    let mut node = Node::new(3, 1_000, 1);
    node.attach(0, &[0], slots(1));
    enqueue(&mut node, 1, 0, 50);
    node.turn(1);
    while node.deliver(1, 0) {}
    node.turn(0);
    while node.deliver(0, 1) {}
    // All that waited is out of date: the owner uses no slot.
    while node.shards[1].next().is_some() {}
    enqueue(&mut node, 2, 0, 50);
    for _ in 0..6 {
        round(&mut node);
    }
    let messages = node.message_count;
    for _ in 0..20 {
        round(&mut node);
    }
    assert_eq!(node.message_count, messages, "only one shard wants the slot");
    assert!(node.served.len() >= 20 && node.served.iter().all(|(shard, _)| *shard == 2));
}

#[test]
fn slots_lent_for_one_pool_are_called_back_for_another() {
    let mut node = Node::new(3, 1_000, 1);
    node.attach(0, &[3, 5], slots(1));
    enqueue(&mut node, 1, 3, 100);
    for _ in 0..10 {
        round(&mut node);
    }
    enqueue(&mut node, 2, 5, 100);
    enqueue(&mut node, 0, 5, 100);
    for _ in 0..if cfg!(miri) { 30 } else { 120 } {
        round(&mut node);
    }
    for shard in 0..3 {
        let count = node.served.iter().filter(|served| served.0 == shard).count();
        assert!(
            count >= if cfg!(miri) { 2 } else { 8 },
            "shard {shard} was served {count} times of {}",
            node.served.len()
        );
    }
}

#[test]
fn detached_worker_takes_its_loans_with_it() {
    let mut node = Node::new(2, 1_000, 1);
    let worker = node.attach(0, &[0], slots(4));
    enqueue(&mut node, 1, 0, 100);
    for _ in 0..4 {
        round(&mut node);
    }
    let lent = node.running[0];
    assert_eq!(node.running.len(), 4);
    node.complete(1);
    node.detach(worker);
    for _ in 0..3 {
        round(&mut node);
    }
    assert_eq!(node.running.len(), 0);
    assert!(!node.shards[1].release(lent.handle), "the slot is gone");
    assert_eq!(node.shards[1].loan_counts(PoolId(0)), LoanCounts::default());
    node.attach(0, &[0], slots(4));
    node.run_until_silent();
    node.check_at_rest();
}

#[test]
fn drain_calls_lent_slots_back() {
    let mut node = Node::new(2, 1_000, 1);
    let worker = node.attach(0, &[0], slots(4));
    enqueue(&mut node, 1, 0, 100);
    for _ in 0..4 {
        round(&mut node);
    }
    let NodeWorker { handle, .. } = node.workers[worker];
    node.shards[0].set_capacity(handle, Capacity::default()).unwrap();
    node.workers[worker].capacity = Capacity::default();
    for _ in 0..4 {
        round(&mut node);
    }
    assert_eq!(node.running.len(), 0);
    assert_eq!(node.shards[0].loan_counts(PoolId(0)).lent, 0);
}

/// Two workers of shard 0 with a slot each, both lent to shard 1, which has more to do than they can.
fn node_with_two_lent_workers() -> (Node, [usize; 2]) {
    let mut node = Node::new(2, 1_000, 1);
    let workers = [0, 1].map(|_| node.attach(0, &[0], slots(1)));
    enqueue(&mut node, 1, 0, if cfg!(miri) { 50 } else { 1_000 });
    for shard in [1, 0, 1] {
        node.turn(shard);
        node.deliver_all();
    }
    assert_eq!(node.running.len(), 2);
    (node, workers)
}

fn running_on(node: &Node, worker: usize) -> Option<usize> {
    let session = node.workers[worker].session;
    node.running.iter().position(|running| running.session == session)
}

/// What waits on shard 0 has its turn on a worker that shard 1 keeps busy.
fn assert_is_served_soon(node: &mut Node, worker: usize) {
    for _ in 0..10 {
        for shard in [0, 1] {
            node.deliver_all();
            node.turn(shard);
        }
        if let Some(place) = running_on(node, worker) {
            node.complete(place);
        }
    }
    assert_eq!(node.shards[0].queued_total(), 0);
}

#[test]
fn slot_of_a_detached_worker_does_not_answer_a_recall() {
    let (mut node, [gone, left]) = node_with_two_lent_workers();
    let Running { shard, handle, .. } = node.running[running_on(&node, gone).unwrap()];
    let NodeWorker { handle: name, .. } = node.workers[gone];
    assert!(node.shards[0].detach(name));
    node.workers[gone].is_attached = false;
    enqueue(&mut node, 0, 0, 1);
    node.turn(0);
    // Of what shard 0 said, the first arrives by itself, and then the execution on the detached worker ends.
    assert!(node.deliver(0, 1));
    node.shards[shard].release(handle);
    node.running.swap_remove(running_on(&node, gone).unwrap());
    assert_is_served_soon(&mut node, left);
}

#[test]
fn slot_that_answers_one_recall_does_not_answer_another() {
    let (mut node, [drained, left]) = node_with_two_lent_workers();
    enqueue(&mut node, 0, 0, 1);
    node.turn(0);
    assert!(node.deliver(0, 1), "shard 0 calls a slot back");
    node.complete(running_on(&node, drained).unwrap());
    node.turn(1);
    // The slot is on its way back when its home calls it back by name.
    let NodeWorker { handle, .. } = node.workers[drained];
    node.shards[0].set_capacity(handle, Capacity::default()).unwrap();
    node.workers[drained].capacity = Capacity::default();
    assert_is_served_soon(&mut node, left);
}

#[test]
fn debt_without_slots_to_pay_it_from_holds_up_nobody() {
    let mut node = Node::new(2, 1_000, 1);
    node.attach(0, &[0, 1, 2], slots(2));
    enqueue(&mut node, 0, 0, 126);
    for _ in 0..63 {
        round(&mut node);
    }
    for (pool, count) in [(0, 1), (1, 1), (2, 4)] {
        enqueue(&mut node, 1, pool, count);
    }
    node.turn(1);
    node.deliver_all();
    // The window ends: something is owed in each of the pools, and both slots go to the first two.
    node.turn(0);
    node.run_by_events();
    assert_eq!(node.shards[1].queued_total(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Enqueue { shard: usize, pool: u16, count: u64 },
    Attach { shard: usize, pools: Vec<u16>, concurrency: u32, prefetch: u32 },
    Detach(usize),
    Capacity { worker: usize, concurrency: u32 },
    Reattached(usize),
    Complete(usize),
    Turn(usize),
    Deliver(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let number = any::<usize>;
    prop_oneof![
        3 => (number(), 0..3_u16, 1..6_u64).prop_map(|(shard, pool, count)| Act::Enqueue { shard, pool, count }),
        2 => (number(), prop::collection::vec(0..3_u16, 1..3), 0..4_u32, 0..3_u32)
            .prop_map(|(shard, pools, concurrency, prefetch)| Act::Attach { shard, pools, concurrency, prefetch }),
        1 => number().prop_map(Act::Detach),
        1 => (number(), 0..5_u32).prop_map(|(worker, concurrency)| Act::Capacity { worker, concurrency }),
        1 => number().prop_map(Act::Reattached),
        12 => number().prop_map(Act::Complete),
        16 => number().prop_map(Act::Turn),
        20 => (number(), number()).prop_map(|(from, to)| Act::Deliver(from, to)),
    ]
}

/// One of those that fulfil a condition.
fn one_of(count: usize, number: usize, condition: impl Fn(usize) -> bool) -> Option<usize> {
    let able: Vec<usize> = (0..count).filter(|place| condition(*place)).collect();
    able.get(number.checked_rem(able.len())?).copied()
}

fn apply(node: &mut Node, act: Act) {
    let shard_count = node.shards.len();
    let attached = |node: &Node, number| one_of(node.workers.len(), number, |place| node.workers[place].is_attached);
    match act {
        Act::Enqueue { shard, pool, count } => enqueue(node, shard % shard_count, pool, count),
        Act::Attach { shard, pools, concurrency, prefetch } => {
            node.attach(shard % shard_count, &pools, Capacity { concurrency, prefetch });
        }
        Act::Detach(number) => {
            if let Some(worker) = attached(node, number) {
                node.detach(worker);
            }
        }
        Act::Capacity { worker, concurrency } => {
            if let Some(worker) = attached(node, worker) {
                let NodeWorker { home, handle, .. } = node.workers[worker];
                node.shards[home].set_capacity(handle, slots(concurrency)).unwrap();
                node.workers[worker].capacity = slots(concurrency);
            }
        }
        Act::Reattached(number) => {
            if let Some(worker) = attached(node, number) {
                let NodeWorker { home, handle, session, .. } = node.workers[worker];
                assert!(node.shards[home].occupy(handle));
                node.running.push(Running { shard: home, handle, session });
            }
        }
        Act::Complete(number) => {
            if let Some(place) = number.checked_rem(node.running.len()) {
                node.complete(place);
            }
        }
        Act::Turn(shard) => _ = node.turn(shard % shard_count),
        Act::Deliver(from, to) => {
            node.deliver(from % shard_count, to % shard_count);
        }
    }
}

/// A pool that no worker serves keeps its queue: everybody gets one of each at the end.
fn let_all_finish(node: &mut Node) {
    node.attach(0, &[0, 1, 2], slots(2));
    node.run_by_events();
    assert_eq!(node.shards.iter().map(Dispatcher::queued_total).sum::<u32>(), 0, "something starves");
    node.run_until_silent();
    node.check_at_rest();
}

/// While there is work in all pools on all shards, each of them goes on, although two slots may have to do for all.
fn let_all_go_on(node: &mut Node) {
    node.attach(0, &[0, 1, 2], slots(2));
    let queues: Vec<(usize, u16)> =
        (0..node.shards.len()).flat_map(|shard| [(shard, 0), (shard, 1), (shard, 2)]).collect();
    for (shard, pool) in &queues {
        enqueue(node, *shard, *pool, 4_000);
    }
    let counts = |node: &Node| -> Vec<u32> {
        queues.iter().map(|(shard, pool)| node.shards[*shard].queued(PoolId(*pool), Priority::P1)).collect()
    };
    for _ in 0..4 {
        let before = counts(node);
        for _ in 0..50 * queues.len() {
            for shard in 0..node.shards.len() {
                node.deliver_all();
                node.turn(shard);
            }
            if let Some(last) = node.running.len().checked_sub(1) {
                let place = node.random_below(last + 1);
                node.complete(place);
            }
        }
        for ((queue, before), after) in queues.iter().zip(before).zip(counts(node)) {
            assert!(after < before, "(shard, pool) {queue:?} starves with {after} waiting");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slots_are_neither_lost_nor_doubled_whatever_the_delays(
        shard_count in 2..if cfg!(miri) { 3 } else { 5_u16 },
        queue_length_max in 1..5_usize,
        acts in prop::collection::vec(act(), 1..if cfg!(miri) { 30 } else { 400 }),
    ) {
        let mut node = Node::new(shard_count, queue_length_max, 1);
        for act in acts {
            apply(&mut node, act);
            node.check();
        }
        let_all_finish(&mut node);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs many windows of turns")]
    fn nobody_starves_while_all_have_work_whatever_was_before(
        shard_count in 2..5_u16, queue_length_max in 1..5_usize, acts in prop::collection::vec(act(), 1..400),
    ) {
        let mut node = Node::new(shard_count, queue_length_max, 1);
        acts.into_iter().for_each(|act| apply(&mut node, act));
        let_all_go_on(&mut node);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "needs many windows of turns")]
    fn one_slot_is_never_given_to_a_shard_twice_before_all_others_had_it(shard_count in 2..7_u16, seed in any::<u64>()) {
        let mut node = Node::new(shard_count, 4, seed);
        let home = node.random_below(shard_count.into());
        node.attach(home, &[0], slots(1));
        for shard in 0..usize::from(shard_count) {
            enqueue(&mut node, shard, 0, 5_000);
        }
        for _ in 0..20_000 {
            random_act(&mut node);
        }
        check_waits(&node, usize::from(shard_count));
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs many windows of turns")]
    fn fewer_slots_than_shards_go_round_however_long_executions_take(
        (shard_count, worker_count) in (2..7_u16).prop_flat_map(|shards| (Just(shards), 1..usize::from(shards))),
        seed in any::<u64>(),
    ) {
        let mut node = Node::new(shard_count, 4, seed);
        for _ in 0..worker_count {
            node.attach(0, &[0], slots(1));
        }
        for shard in 0..usize::from(shard_count) {
            enqueue(&mut node, shard, 0, 5_000);
        }
        for _ in 0..2_000 {
            let running = node.random_below(10);
            if running < node.running.len() {
                node.complete(running);
            }
            // A message needs no longer than an execution.
            for _ in 0..3 {
                node.deliver_all();
                (0..node.shards.len()).for_each(|shard| _ = node.turn(shard));
            }
        }
        check_waits(&node, usize::from(shard_count));
    }
}

/// An execution ends, a message arrives or a shard has its turn, in no order.
fn random_act(node: &mut Node) {
    let shard_count = node.shards.len();
    match node.random_below(10) {
        0 if !node.running.is_empty() => {
            let place = node.random_below(node.running.len());
            node.complete(place);
        }
        1..5 => {
            let shard = node.random_below(shard_count);
            node.turn(shard);
        }
        _ => {
            let (from, to) = (node.random_below(shard_count), node.random_below(shard_count));
            node.deliver(from, to);
        }
    }
}

/// Between two executions of a shard, each other shard has one.
fn check_waits(node: &Node, shard_count: usize) {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    // Until the shards' demands have arrived the home serves itself.
    let start = node.served.len() / 2;
    let served = &node.served[start..];
    for (place, (shard, _)) in served.iter().enumerate() {
        let wait = place - last.insert(*shard, place).unwrap_or(0);
        assert!(wait <= shard_count, "shard {shard} waited {wait} until {} of {}", start + place, node.served.len());
    }
    for shard in 0..shard_count {
        let wait = served.len() - last.get(&shard).copied().unwrap_or(0);
        assert!(wait <= shard_count, "shard {shard} waits for {wait} executions");
    }
    assert!(served.len() > 4 * shard_count, "too few executions to tell: {}", served.len());
}
