//! What frames may look like, and what ends a session.

use crate::support::{Faults, KNOWN_TYPE, PeerOptions, World, frame, known, stream};
use quinn_proto::{ConnectionError, Dir};
use tickwheel_net::{Close, CloseCode, CloseReason, EndpointConfig, Event, Lane, SendError};
use tickwheel_wire::{SessionId, frame::FrameHeader, mix64};

const UNKNOWN_TYPE: u16 = 0x7fff;

/// Bytes without pattern.
fn noise(length: u64) -> Vec<u8> {
    (0..length).map(|i| mix64(i).to_le_bytes()[0]).collect()
}

/// The code with which the server closed `session`.
fn close_code(world: &World, session: SessionId) -> Option<CloseCode> {
    world.events.iter().find_map(|event| match event {
        Event::Closed { session: closed, reason: CloseReason::Local(close) } if *closed == session => Some(close.code),
        _ => None,
    })
}

/// Lets one of two peers send `bytes`, expects its session closed with `code` on both sides, and the other one alive.
fn assert_closes(lane: Lane, bytes: &[u8], code: CloseCode) -> World {
    let mut world = World::new(EndpointConfig::default());
    world.verdict = |body| match body {
        b"bad" => Err(Close::new(CloseCode::Forbidden, "bad body")),
        _ => Ok(()),
    };
    let (guilty, session) = world.open(&PeerOptions::default());
    let (bystander, other) = world.open(&PeerOptions::default());
    world.peers[guilty].send(lane, bytes);
    world.run_until(|world| close_code(world, session).is_some() && world.peers[guilty].lost.is_some());
    assert_eq!(close_code(&world, session), Some(code));
    let Some(ConnectionError::ApplicationClosed(close)) = &world.peers[guilty].lost else { panic!() };
    assert_eq!(CloseCode::from_number(close.error_code.into_inner()), Some(code));
    assert_eq!(world.send(session, Lane::Control, b"x"), Err(SendError::Closed));
    world.does_echo = true;
    world.peers[bystander].send(Lane::P0, &known(b"still here"));
    world.run_until(|world| world.peers[bystander].frames(Lane::P0) == [b"still here"]);
    assert_eq!(world.bodies(other, Lane::P0), [b"still here"]);
    assert_eq!(world.server.session_count(), 1);
    world
}

#[test]
fn frames_of_all_sizes_survive_a_bad_network_in_both_directions() {
    let mut world = World::new(EndpointConfig::default());
    world.does_echo = true;
    let (peer, session) = world.open(&PeerOptions::default());
    world.faults = Faults { loss: 5, repeat: 5, reorder: 20, corrupt: 2 };
    let sizes = [0, 1, 7, 8, 9, 24, 80, 1171, 1172, 1173, 4000, 65_536, 300_000];
    let bodies: Vec<Vec<u8>> = sizes.iter().map(|&size| noise(size)).collect();
    for lane in Lane::ALL {
        for body in &bodies {
            world.peers[peer].send(lane, &known(body));
        }
    }
    world.run_until(|world| Lane::ALL.iter().all(|lane| world.peers[peer].frames(*lane).len() == bodies.len()));
    for lane in Lane::ALL {
        assert!(world.bodies(session, lane) == bodies, "{lane:?}: what the server received");
        assert!(world.peers[peer].frames(lane) == bodies, "{lane:?}: what came back");
    }
}

#[test]
fn large_datagrams_are_discovered_and_carry_bulk() {
    let mut world = World::new(EndpointConfig { mtu_bytes: 8952, ..EndpointConfig::default() });
    world.does_echo = true;
    let (peer, _) = world.open(&PeerOptions { mtu_bytes: 8952, ..PeerOptions::default() });
    let body = noise(1 << 20);
    world.peers[peer].send(Lane::P1, &known(&body));
    world.run_until(|world| world.peers[peer].frames(Lane::P1).len() == 1);
    assert!(world.peers[peer].frames(Lane::P1)[0] == body);
    let mtu_bytes = world.peers[peer].connection.current_mtu();
    assert!(mtu_bytes > 8900, "the client discovered {mtu_bytes}");
}

#[test]
fn an_oversized_frame_closes_its_session_alone() {
    let header = FrameHeader { body_bytes: (1 << 20) + 1, frame_type: KNOWN_TYPE, flags: 0 };
    let world = assert_closes(Lane::P2, &header.to_bytes(), CloseCode::FrameTooLarge);
    assert!(world.received.iter().all(|frame| frame.lane == Lane::P0));
}

#[test]
fn a_frame_of_exactly_the_limit_passes() {
    let mut world = World::new(EndpointConfig::default());
    let (peer, session) = world.open(&PeerOptions::default());
    world.peers[peer].send(Lane::Control, &known(&vec![3; 1 << 20]));
    world.run_until(|world| world.bodies(session, Lane::Control).len() == 1);
}

#[test]
fn an_unknown_critical_frame_closes_its_session_alone() {
    let bytes = [known(b"good"), frame(UNKNOWN_TYPE, FrameHeader::CRITICAL, b"?"), known(b"behind")].concat();
    let world = assert_closes(Lane::Control, &bytes, CloseCode::UnknownFrame);
    let control = world.received.iter().filter(|frame| frame.lane == Lane::Control);
    assert_eq!(control.map(|frame| frame.body.as_slice()).collect::<Vec<_>>(), [b"good"]);
}

#[test]
fn an_unknown_frame_that_is_not_critical_is_skipped() {
    let mut world = World::new(EndpointConfig::default());
    let (peer, session) = world.open(&PeerOptions::default());
    world.peers[peer].send(Lane::P1, &[frame(UNKNOWN_TYPE, 0, b"?"), known(b"good")].concat());
    world.run_until(|world| !world.received.is_empty());
    assert_eq!(world.bodies(session, Lane::P1), [b"good"]);
    assert_eq!(world.server.session_count(), 1);
}

#[test]
fn a_body_that_its_reader_refuses_closes_the_session_with_the_readers_code() {
    let bytes = [known(b"good"), known(b"bad"), known(b"behind")].concat();
    let world = assert_closes(Lane::P1, &bytes, CloseCode::Forbidden);
    assert!(world.received.iter().all(|frame| frame.body != b"behind"));
}

#[test]
fn a_lane_that_ends_closes_its_session() {
    type End = fn(&mut quinn_proto::Connection);
    let ends: [End; 3] = [
        |connection| connection.send_stream(stream(Lane::P0)).finish().unwrap(),
        |connection| connection.send_stream(stream(Lane::P0)).reset(9u32.into()).unwrap(),
        |connection| connection.recv_stream(stream(Lane::P0)).stop(9u32.into()).unwrap(),
    ];
    for end in ends {
        let mut world = World::new(EndpointConfig::default());
        let (peer, session) = world.open(&PeerOptions::default());
        world.peers[peer].send(Lane::P0, &known(b"first"));
        world.run_until(|world| !world.received.is_empty());
        end(&mut world.peers[peer].connection);
        world.peers[peer].touch();
        world.run_until(|world| close_code(world, session).is_some());
        assert_eq!(close_code(&world, session), Some(CloseCode::LaneClosed));
        assert_eq!(world.bodies(session, Lane::P0), [b"first"]);
    }
}

#[test]
fn only_four_bidirectional_streams_may_be_opened() {
    let mut world = World::new(EndpointConfig::default());
    let (peer, _) = world.open(&PeerOptions::default());
    let mut streams = world.peers[peer].connection.streams();
    assert!(streams.open(Dir::Uni).is_none());
    assert!((0..4).all(|_| streams.open(Dir::Bi).is_some()));
    assert!(streams.open(Dir::Bi).is_none());
}

#[test]
fn frames_for_a_lane_that_is_not_open_yet_wait_for_it() {
    let mut world = World::new(EndpointConfig::default());
    let (peer, session) = world.open(&PeerOptions::default());
    world.send(session, Lane::P1, b"early").unwrap();
    world.peers[peer].send(Lane::Control, &known(b"hello"));
    world.run_until(|world| !world.received.is_empty());
    assert!(world.server.backlog_bytes(session) > Some(0));
    world.peers[peer].send(Lane::P2, &known(b"opens the lanes below, too"));
    world.run_until(|world| world.peers[peer].frames(Lane::P1) == [b"early"]);
    assert_eq!(world.server.backlog_bytes(session), Some(0));
}

#[test]
fn a_peers_close_is_told_with_code_and_reason() {
    let mut world = World::new(EndpointConfig::default());
    let (peer, session) = world.open(&PeerOptions::default());
    world.close_peer(peer, 77, b"going home");
    world.run_until(|world| world.server.session_count() == 0);
    let reason = CloseReason::Peer { number: 77, reason: "going home".to_owned() };
    let closed: Vec<_> = world.events.iter().filter(|event| matches!(event, Event::Closed { .. })).collect();
    assert_eq!(closed, [&Event::Closed { session, reason }]);
    world.run_until(|world| world.server.connection_count() == 0);
    assert_eq!(world.events.len(), 2, "{:?}", world.events);
}
