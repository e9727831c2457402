//! Who gets in, and what the others are told.

use crate::support::{AUTHORITY, Authority, Faults, PeerOptions, World, known, worker};
use bytes::BytesMut;
use quinn_proto::ConnectionError;
use std::{sync::Arc, time::Duration};
use tickwheel_net::{Close, CloseCode, CloseReason, EndpointConfig, Event, Identity, Lane, Role};

fn options_of(authority: &Authority, name: &str, uris: &[String]) -> PeerOptions {
    PeerOptions { certificate: Some(Arc::new(authority.peer(name, uris))), ..PeerOptions::default() }
}

fn opened_count(world: &World) -> usize {
    world.events.iter().filter(|event| matches!(event, Event::Opened { .. })).count()
}

fn rejection(world: &World) -> Option<&CloseReason> {
    world.events.iter().find_map(|event| match event {
        Event::Rejected { reason, .. } => Some(reason),
        _ => None,
    })
}

/// Connects, expects no session, a rejection on the server and an error on the client's side, and returns both.
fn refused(options: &PeerOptions) -> (CloseReason, ConnectionError) {
    let mut world = World::new(EndpointConfig::default());
    let peer = world.connect(options);
    world.run_until(|world| rejection(world).is_some() && world.peers[peer].lost.is_some());
    assert_eq!(opened_count(&world), 0);
    world.run_until(|world| world.server.connection_count() == 0);
    (rejection(&world).unwrap().clone(), world.peers[peer].lost.clone().unwrap())
}

fn assert_alert(error: &ConnectionError, alert: u64) {
    let ConnectionError::ConnectionClosed(close) = error else { panic!("{error:?}") };
    assert_eq!(u64::from(close.error_code), 0x100 | alert, "{close:?}");
}

#[test]
fn a_handshake_yields_the_identity_in_the_certificate() {
    let admin = Identity { name: "root".to_owned(), role: Role::Admin, tenant: None, pools: Vec::new() };
    let tenant = Some("acme".to_owned());
    let client = Identity { name: "cli".to_owned(), role: Role::Client, tenant: tenant.clone(), pools: Vec::new() };
    let pools = vec!["high".to_owned(), "spot".to_owned()];
    let worker = Identity { name: "w-1".to_owned(), role: Role::Worker, tenant, pools };
    for expected in [admin, client, worker] {
        let mut world = World::new(EndpointConfig::default());
        let options = options_of(&AUTHORITY, &expected.name, &expected.subject_alt_names());
        let (_, id) = world.open(&options);
        let Event::Opened { session, identity, .. } = &world.events[0] else { panic!("{:?}", world.events) };
        assert_eq!((*session, identity), (id, &expected));
        assert_eq!((world.server.session_count(), world.server.backlog_bytes(id)), (1, Some(0)));
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let identity = worker("w");
    let (unknown_authority, decrypt_error) = (48, 51);
    for (name, alert) in [("another authority", unknown_authority), ("test authority", decrypt_error)] {
        let stranger = options_of(&Authority::new(name), &identity.name, &identity.subject_alt_names());
        let (reason, error) = refused(&stranger);
        assert!(matches!(reason, CloseReason::Transport(_)), "{reason}");
        assert_alert(&error, alert);
    }
}

#[test]
fn a_peer_without_certificate_is_refused() {
    let (reason, error) = refused(&PeerOptions { certificate: None, ..PeerOptions::default() });
    assert!(matches!(reason, CloseReason::Transport(_)), "{reason}");
    let certificate_required = 116;
    assert_alert(&error, certificate_required);
}

#[test]
fn another_application_protocol_is_refused() {
    for alpn in [vec![b"tickwheel/2".to_vec()], vec![]] {
        let (_, error) = refused(&PeerOptions { alpn, ..PeerOptions::default() });
        let no_application_protocol = 120;
        assert_alert(&error, no_application_protocol);
    }
}

#[test]
fn a_certificate_without_role_is_closed_with_its_code() {
    let (reason, error) = refused(&options_of(&AUTHORITY, "w", &["tickwheel://tenant/acme".to_owned()]));
    assert!(matches!(reason, CloseReason::Local(Close { code: CloseCode::InvalidIdentity, .. })), "{reason}");
    let ConnectionError::ApplicationClosed(close) = error else { panic!("{error:?}") };
    assert_eq!(CloseCode::from_number(close.error_code.into_inner()), Some(CloseCode::InvalidIdentity));
    assert!(String::from_utf8_lossy(&close.reason).contains("role"), "{close:?}");
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let config = EndpointConfig { handshake_timeout: Duration::from_secs(3), ..EndpointConfig::default() };
    let mut world = World::new(config);
    let peer = world.connect(&PeerOptions::default());
    let start = world.now;
    world.turn();
    world.unreachable.push(peer);
    world.run_until(|world| rejection(world).is_some());
    let took = world.now - start;
    assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let CloseReason::Local(close) = rejection(&world).unwrap() else { panic!("{:?}", world.events) };
    assert_eq!(close.code, CloseCode::HandshakeTimeout);
    world.run_until(|world| world.server.connection_count() == 0);
}

#[test]
fn handshakes_succeed_over_a_bad_network() {
    let mut world = World::new(EndpointConfig::default());
    world.faults = Faults { loss: 15, repeat: 10, reorder: 30, corrupt: 5 };
    for _ in 0..10 {
        world.open(&PeerOptions::default());
    }
    assert_eq!(world.server.session_count(), 10);
}

#[test]
fn sessions_beyond_the_bound_are_refused_until_one_leaves() {
    let mut world = World::new(EndpointConfig { sessions_max: 2, ..EndpointConfig::default() });
    let (first, _) = world.open(&PeerOptions::default());
    world.open(&PeerOptions::default());
    let third = world.connect(&PeerOptions::default());
    world.run_until(|world| world.peers[third].lost.is_some());
    let Some(ConnectionError::ConnectionClosed(close)) = &world.peers[third].lost else { panic!() };
    let connection_refused = 2;
    assert_eq!(u64::from(close.error_code), connection_refused);
    assert_eq!(world.server.stats().attempts_refused, 1);
    world.close_peer(first, 0, b"");
    world.run_until(|world| world.server.connection_count() == 1);
    world.open(&PeerOptions::default());
    assert_eq!(world.server.session_count(), 2);
}

#[test]
fn a_crowd_beyond_the_handshake_bound_gets_in_by_waves() {
    let mut world = World::new(EndpointConfig { handshakes_max: 4, ..EndpointConfig::default() });
    for _ in 0..20 {
        world.connect(&PeerOptions::default());
    }
    world.run_until(|world| {
        assert!(world.server.connection_count() - world.server.session_count() <= 4);
        opened_count(world) == 20
    });
    assert!(world.server.stats().attempts_refused >= 16);
}

#[test]
fn a_silent_session_times_out_and_a_kept_alive_one_stays() {
    let mut world = World::new(EndpointConfig::default());
    let (_, silent) = world.open(&PeerOptions::default());
    let keep_alive = Some(Duration::from_secs(10));
    let (_, alive) = world.open(&PeerOptions { keep_alive, ..PeerOptions::default() });
    world.run_for(Duration::from_secs(120));
    assert!(world.events.contains(&Event::Closed { session: silent, reason: CloseReason::TimedOut }));
    assert_eq!((world.server.session_count(), world.server.connection_count()), (1, 1));
    assert_eq!(world.server.backlog_bytes(alive), Some(0));
    assert!(world.send(silent, Lane::Control, b"late").is_err());
}

/// A datagram that looks like the first of a connection, but whose content no one encrypted.
fn forged_initial(world: &mut World, version: u32) -> Vec<u8> {
    let mut bytes = vec![0xc3];
    bytes.extend_from_slice(&version.to_be_bytes());
    for _ in 0..2 {
        bytes.push(8);
        bytes.extend_from_slice(&world.draw().to_be_bytes());
    }
    let payload_bytes = 1200 - bytes.len() - 3;
    bytes.push(0);
    bytes.extend_from_slice(&(0x4000 | u16::try_from(payload_bytes).unwrap()).to_be_bytes());
    while bytes.len() < 1200 {
        bytes.push(world.draw().to_be_bytes()[0]);
    }
    bytes
}

#[test]
fn forged_datagrams_disturb_nobody() {
    let mut world = World::new(EndpointConfig::default());
    world.does_echo = true;
    let (peer, _) = world.open(&PeerOptions::default());
    let remote = world.peers[peer].address;
    for round in 0..9000 {
        let mut bytes = match round % 3 {
            0 => forged_initial(&mut world, 1),
            1 => forged_initial(&mut world, 0x0a0a_0a0a),
            _ => (0..world.draw() % 1500).map(|_| world.draw().to_be_bytes()[0]).collect(),
        };
        if let Some(byte) = bytes.get_mut(1 + round % 40).filter(|_| round % 7 == 0) {
            *byte ^= 0x55;
        }
        let now = world.now;
        world.server.handle_datagram(now, remote, None, None, BytesMut::from(bytes.as_slice()));
    }
    let mut answers = 0;
    let (now, mut buffer) = (world.now, Vec::new());
    while world.server.poll_transmit(now, 64, &mut buffer).is_some() {
        answers += 1;
    }
    assert_eq!(answers, 256, "answers beyond the bound are dropped");
    world.turn();
    let reported = world.events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count();
    assert_eq!(reported, 256, "rejections beyond the bound are only counted");
    assert!(world.server.stats().attempts_rejected > 256);
    assert_eq!((world.server.connection_count(), world.server.session_count()), (1, 1));
    world.peers[peer].send(Lane::P0, &known(b"still here"));
    world.run_until(|world| world.peers[peer].frames(Lane::P0) == [b"still here"]);
}
