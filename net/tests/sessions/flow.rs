//! Peers and lanes that are slow, busy or gone do not hold up the others.

use crate::support::{PeerOptions, World, known};
use quinn_proto::ConnectionError;
use std::time::Duration;
use tickwheel_net::{Close, CloseCode, CloseReason, EndpointConfig, Event, Lane, SendError};
use tickwheel_wire::SessionId;

const BODY: [u8; 10_000] = [5; 10_000];

/// Sends frames until the backlog bound refuses one; how many were taken.
fn fill_backlog(world: &mut World, session: SessionId, lane: Lane) -> usize {
    let mut count = 0;
    loop {
        match world.send(session, lane, &BODY) {
            Ok(()) if count < 1000 => count += 1,
            Ok(()) => panic!("the backlog has no bound"),
            Err(SendError::Backlog { backlog_bytes, refused_bytes }) => {
                assert!(backlog_bytes + refused_bytes > 2 << 20 && backlog_bytes <= 2 << 20);
                return count;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn small_backlog() -> World {
    World::new(EndpointConfig { backlog_bytes_max: 2 << 20, ..EndpointConfig::default() })
}

#[test]
fn slow_peer_does_not_block_other_peers() {
    let mut world = small_backlog();
    let (slow, slow_session) = world.open(&PeerOptions::default());
    let (quick, quick_session) = world.open(&PeerOptions::default());
    for peer in [slow, quick] {
        world.peers[peer].send(Lane::P1, &known(b"open"));
    }
    world.run_until(|world| world.received.len() == 2);
    world.peers[slow].ignores = [true; 4];
    let mut sent = 0;
    while sent < 200 {
        match world.send(slow_session, Lane::P1, &BODY) {
            Ok(()) | Err(SendError::Backlog { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        world.send(quick_session, Lane::P1, &BODY).unwrap();
        sent += 1;
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(world.peers[quick].frames(Lane::P1).len(), sent);
    let window_bytes = 1 << 20;
    assert!(world.server.backlog_bytes(slow_session).unwrap() + window_bytes >= (sent - 2) * BODY.len());
    world.peers[slow].ignores = [false; 4];
    world.peers[slow].touch();
    world.run_until(|world| world.peers[slow].frames(Lane::P1).len() == sent);
}

#[test]
fn a_full_backlog_refuses_and_tells_when_there_is_room() {
    let mut world = small_backlog();
    let (peer, session) = world.open(&PeerOptions::default());
    let count = fill_backlog(&mut world, session, Lane::P1);
    assert_eq!(count, (2 << 20) / (BODY.len() + 8));
    assert!(matches!(world.send(session, Lane::Control, &BODY), Err(SendError::Backlog { .. })));
    world.run_for(Duration::from_secs(1));
    assert!(!world.events.contains(&Event::Writable { session }));
    world.peers[peer].send(Lane::P1, &known(b"open"));
    world.run_until(|world| world.events.contains(&Event::Writable { session }));
    world.run_until(|world| world.peers[peer].frames(Lane::P1).len() == count);
    assert_eq!(world.server.backlog_bytes(session), Some(0));
    assert_eq!(world.events.iter().filter(|event| matches!(event, Event::Writable { .. })).count(), 1);
}

#[test]
fn a_lane_that_is_not_read_leaves_the_other_lanes_alone() {
    let mut world = small_backlog();
    let (peer, session) = world.open(&PeerOptions::default());
    world.peers[peer].send(Lane::P2, &known(b"open"));
    world.run_until(|world| !world.received.is_empty());
    world.peers[peer].ignores[Lane::P2.index()] = true;
    for _ in 0..150 {
        world.send(session, Lane::P2, &BODY).unwrap();
    }
    world.run_for(Duration::from_millis(200));
    assert!(world.server.backlog_bytes(session).unwrap() > 0, "the lane is blocked by its window");
    for lane in [Lane::Control, Lane::P0, Lane::P1] {
        world.send(session, lane, b"passes").unwrap();
        world.run_until(|world| world.peers[peer].frames(lane) == [b"passes"]);
    }
    assert!(world.peers[peer].frames(Lane::P2).is_empty());
}

#[test]
fn urgent_frames_overtake_what_waits_on_lower_lanes() {
    // What waits on P2 is four times the window, so it fills all that it may.
    let mut world = World::new(EndpointConfig { send_window_bytes: 1 << 18, ..EndpointConfig::default() });
    let (peer, session) = world.open(&PeerOptions::default());
    world.peers[peer].send(Lane::P2, &known(b"open"));
    world.run_until(|world| !world.received.is_empty());
    for _ in 0..100 {
        world.send(session, Lane::P2, &BODY).unwrap();
    }
    world.turn();
    for _ in 0..10 {
        world.send(session, Lane::P0, &BODY).unwrap();
    }
    world.run_until(|world| world.peers[peer].frames(Lane::P2).len() == 100);
    assert_eq!(world.peers[peer].frames(Lane::P0).len(), 10);
    let arrivals = &world.peers[peer].arrivals;
    let first = arrivals.iter().position(|(lane, _)| *lane == Lane::P0).unwrap();
    let last = arrivals.iter().rposition(|(lane, _)| *lane == Lane::P0).unwrap();
    let bytes_of_p2 = |part: &[(Lane, usize)]| -> usize {
        part.iter().filter(|(lane, _)| *lane == Lane::P2).map(|(_, bytes)| bytes).sum()
    };
    let (before, between) = (bytes_of_p2(&arrivals[..first]), bytes_of_p2(&arrivals[first..last]));
    let window_bytes = 64 << 10;
    assert!(before < window_bytes, "{before} bytes were under way before the urgent frames");
    assert!(between < 2 * 1472, "{between} bytes came between the urgent frames");
}

#[test]
fn a_busy_peer_is_read_by_portions() {
    let mut world = World::new(EndpointConfig::default());
    let (busy, busy_session) = world.open(&PeerOptions::default());
    let (_, other_session) = world.open(&PeerOptions::default());
    let other = world.peers.len() - 1;
    world.is_reading = false;
    for _ in 0..50 {
        world.peers[busy].send(Lane::P1, &known(&BODY));
    }
    world.run_for(Duration::from_secs(1));
    world.peers[other].send(Lane::P1, &known(b"small"));
    world.run_for(Duration::from_secs(1));
    world.is_reading = true;
    world.lane_bytes_max = 4096;
    world.run_until(|world| world.received.len() == 51);
    let turn = world.received.iter().position(|frame| frame.session == other_session).unwrap();
    assert!(turn <= 1, "{turn} frames of the busy peer were read first");
    assert_eq!(world.bodies(busy_session, Lane::P1).len(), 50);
}

#[test]
fn a_peer_that_sends_without_bound_is_held_by_the_window() {
    let mut world = World::new(EndpointConfig { lane_receive_window_bytes: 1 << 16, ..EndpointConfig::default() });
    let (peer, session) = world.open(&PeerOptions::default());
    world.is_reading = false;
    for _ in 0..100 {
        world.peers[peer].send(Lane::P1, &known(&BODY));
    }
    world.run_for(Duration::from_secs(1));
    let taken_bytes = 100 * (BODY.len() + 8) - world.peers[peer].unsent_bytes();
    assert_eq!(taken_bytes, 1 << 16);
    world.is_reading = true;
    world.run_until(|world| world.bodies(session, Lane::P1).len() == 100);
}

#[test]
fn a_reused_slot_is_another_session() {
    let mut world = World::new(EndpointConfig::default());
    let (first, old) = world.open(&PeerOptions::default());
    let (bystander, _) = world.open(&PeerOptions::default());
    let now = world.now;
    world.server.close(now, old, Close::new(CloseCode::Replaced, "newer one"));
    world.server.close(now, old, Close::new(CloseCode::Internal, "again"));
    world.run_until(|world| world.peers[first].lost.is_some());
    let Some(ConnectionError::ApplicationClosed(close)) = &world.peers[first].lost else { panic!() };
    assert_eq!(close.error_code.into_inner(), u64::from(CloseCode::Replaced.number()));
    world.run_until(|world| world.server.connection_count() == 1);
    let (_, new) = world.open(&PeerOptions::default());
    assert_eq!(new.0 & 0xffff_ffff, old.0 & 0xffff_ffff, "the slot is used again");
    assert_ne!(new, old);
    assert_eq!(world.send(old, Lane::Control, b"x"), Err(SendError::Closed));
    assert_eq!(world.server.backlog_bytes(old), None);
    let now = world.now;
    world.server.close(now, old, Close::new(CloseCode::Internal, "stale"));
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.server.session_count(), world.peers[bystander].lost.is_none()), (2, true));
    let closed = world.events.iter().filter(|event| matches!(event, Event::Closed { session, .. } if *session == old));
    assert_eq!(closed.count(), 1);
}

#[test]
fn closing_all_tells_every_peer_and_drains() {
    let mut world = World::new(EndpointConfig::default());
    for _ in 0..5 {
        world.open(&PeerOptions::default());
    }
    let now = world.now;
    let close = Close::new(CloseCode::ShuttingDown, "see you");
    world.server.close_all(now, &close);
    world.run_until(|world| world.server.connection_count() == 0);
    assert!(world.peers.iter().all(|peer| matches!(&peer.lost, Some(ConnectionError::ApplicationClosed(_)))));
    let told = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Closed { reason: CloseReason::Local(reason), .. } if *reason == close));
    assert_eq!((told.count(), world.server.session_count()), (5, 0));
    assert!(!world.server.has_work() && world.server.next_timeout().is_none());
}
