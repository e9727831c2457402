//! The cost of a turn follows the sessions that have something to do.

use crate::support::{PeerOptions, World, known};
use std::time::Duration;
use tickwheel_net::{EndpointConfig, Lane};

#[test]
fn a_thousand_idle_sessions_cost_nothing_in_a_turn_of_one() {
    let mut world = World::new(EndpointConfig::default());
    let keep_alive = Some(Duration::from_secs(20));
    let options = PeerOptions { keep_alive, ..PeerOptions::default() };
    for _ in 0..1000 {
        world.connect(&options);
    }
    world.run_until(|world| world.server.session_count() == 1000);
    // MTU discovery and the last acknowledgements settle.
    world.run_for(Duration::from_secs(5));
    assert!(!world.server.has_work());
    let before = world.server.stats();
    world.does_echo = true;
    world.peers[500].send(Lane::P0, &known(b"ping"));
    world.run_until(|world| world.peers[500].frames(Lane::P0) == [b"ping"]);
    let after = world.server.stats();
    let polled = after.sessions_polled - before.sessions_polled;
    let received = after.datagrams_received - before.datagrams_received;
    assert!(polled <= 4 * received.max(1) && received <= 4, "{polled} polls for {received} datagrams");
    // A minute of keep-alives: a handful of polls each, nothing that grows with the square of their number.
    world.run_for(Duration::from_secs(60));
    let idle = world.server.stats().sessions_polled - after.sessions_polled;
    assert!(idle <= 1000 * 3 * 6, "{idle} polls in an idle minute");
    assert_eq!(world.server.session_count(), 1000);
}
