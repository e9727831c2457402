//! The shard's socket over loopback: batches arrive whole, a flood is taken in bounded portions, refusals are typed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::EcnCodepoint;
use tickwheel_server::runtime::{
    counters::ShardCounters,
    idle::{Idle, IdleStrategy, Rest, ShardWaker},
    socket::{BindError, Datagram, Outgoing, Received, SEGMENTS_MAX, Sent, ShardSocket, SocketOptions},
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn socket(options: SocketOptions) -> (ShardSocket, Arc<ShardCounters>) {
    let counters = Arc::new(ShardCounters::default());
    let socket = ShardSocket::bind(LOOPBACK, options, Arc::clone(&counters)).expect("a free port");
    (socket, counters)
}

fn outgoing(destination: SocketAddr, contents: &[u8], segment_bytes: Option<usize>) -> Outgoing<'_> {
    Outgoing { destination, source_ip: None, ecn: Some(EcnCodepoint::Ect0), contents, segment_bytes }
}

fn wait_until_readable(socket: &ShardSocket) {
    let waker = ShardWaker::new().expect("a descriptor");
    let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
    let mut idle = Idle::new(waker, strategy, Arc::default()).expect("precise timers");
    let deadline = Instant::now() + Duration::from_secs(30);
    let rest = idle.rest(Instant::now(), Some(deadline), &[socket.as_fd()], || false);
    assert_eq!(rest, Rest::Ready, "nothing came");
}

/// Receives until `count` datagrams are there, asleep in between.
fn receive(socket: &mut ShardSocket, count: usize) -> Vec<Datagram> {
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        wait_until_readable(socket);
        socket.receive(|datagram| datagrams.push(datagram)).expect("a socket that works");
    }
    datagrams
}

#[test]
fn a_full_batch_arrives_as_the_datagrams_that_were_sent() {
    let (sender, sender_counters) = socket(SocketOptions::default());
    let (mut receiver, receiver_counters) = socket(SocketOptions::default());
    let segments = sender.segments_max(1000);
    assert_eq!(segments, SEGMENTS_MAX, "loopback has segmentation offload");
    // The last datagram is shorter than the others.
    let contents: Vec<u8> =
        (0..segments * 1000 - 300).map(|index| u8::try_from(index / 1000).expect("at most 64")).collect();
    assert_eq!(sender.try_send(&outgoing(receiver.local_address(), &contents, Some(1000))), Sent::Taken);

    let datagrams = receive(&mut receiver, segments);
    for (index, datagram) in datagrams.iter().enumerate() {
        assert_eq!(datagram.bytes.len(), if index + 1 == segments { 700 } else { 1000 });
        assert!(datagram.bytes.iter().all(|byte| usize::from(*byte) == index), "datagram {index} holds others' bytes");
        assert_eq!(datagram.remote, sender.local_address());
        assert_eq!(datagram.local_ip, Some(LOOPBACK.ip()));
        assert_eq!(datagram.ecn, Some(EcnCodepoint::Ect0));
    }
    assert_eq!(datagrams.len(), segments);
    assert_eq!((sender_counters.sends.count(), sender_counters.system_calls.count()), (1, 1));
    assert_eq!(receiver_counters.datagrams_received.count(), segments as u64);
    assert!(receiver_counters.system_calls.count() < 10, "a system call per batch, not per datagram");
}

#[test]
fn a_flood_is_taken_in_bounded_portions_and_nothing_is_lost() {
    let options = SocketOptions { messages_per_receive_max: 32, ..SocketOptions::default() };
    let (mut receiver, _) = socket(options);
    let plain = UdpSocket::bind(LOOPBACK).expect("a port");
    for number in 0..100_u8 {
        plain.send_to(&[number; 100], receiver.local_address()).expect("sent");
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        wait_until_readable(&receiver);
        let before = seen.len();
        let received = receiver.receive(|datagram| seen.push(datagram.bytes[0])).expect("a socket that works");
        let portion = seen.len() - before;
        assert!(portion <= 32, "a portion of {portion} datagrams");
        assert_eq!(received, if portion == 32 { Received::More } else { Received::Drained });
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_second_socket_on_the_port_is_refused_by_name() {
    let (first, _) = socket(SocketOptions::default());
    let address = first.local_address();
    let refused = ShardSocket::bind(address, SocketOptions::default(), Arc::default());
    assert!(matches!(refused, Err(BindError::InUse { address: named }) if named == address));
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let refused = ShardSocket::bind(foreign, SocketOptions::default(), Arc::default());
    assert!(matches!(refused, Err(BindError::NotLocal { .. })));
}

#[test]
fn what_the_system_refuses_is_dropped_and_counted() {
    let (sender, counters) = socket(SocketOptions::default());
    // Broadcasting needs an option that the socket does not set.
    let broadcast = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
    assert_eq!(sender.try_send(&outgoing(broadcast, b"x", None)), Sent::Dropped);
    assert_eq!((counters.sends.count(), counters.sends_dropped.count()), (0, 1));
}

#[test]
fn a_remote_that_is_gone_does_not_break_the_socket() {
    let (mut here, _) = socket(SocketOptions::default());
    let gone = UdpSocket::bind(LOOPBACK).and_then(|socket| socket.local_addr()).expect("a port that is free again");
    for _ in 0..3 {
        here.try_send(&outgoing(gone, b"anyone there?", None));
        here.receive(|_| panic!("nobody answers")).expect("a socket that works");
    }
    let (sender, _) = socket(SocketOptions::default());
    assert_eq!(sender.try_send(&outgoing(here.local_address(), b"hello", None)), Sent::Taken);
    assert_eq!(&receive(&mut here, 1)[0].bytes[..], b"hello");
}

#[test]
fn the_kernels_buffers_are_enlarged() {
    let small = SocketOptions { receive_buffer_bytes: 4096, send_buffer_bytes: 4096, ..SocketOptions::default() };
    let (small, _) = socket(small);
    let (large, _) = socket(SocketOptions::default());
    let (small, large) = (small.buffer_bytes().expect("known"), large.buffer_bytes().expect("known"));
    assert!(large.0 > small.0 && large.1 > small.1, "{large:?} against {small:?}");
}
