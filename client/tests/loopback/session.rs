//! Opening sessions and moving frames in batches.

use crate::node::{Authority, Node, patiently};
use std::sync::Arc;
use tickwheel_client::{ConnectError, Dialer, FrameBatch, Lane, RefusalCode, Session, SessionError};
use tickwheel_wire::{
    PartitionId, ShardId,
    frame::{
        Frame, FrameHeader,
        session::{GoAway, Refused},
        work::Capacity,
    },
};

async fn open(node: &Node) -> Result<Session, ConnectError> {
    patiently(Dialer::new(node.peer()).unwrap().open(node.address())).await
}

#[tokio::test]
async fn the_welcome_tells_the_topology() {
    let node = Node::new();
    let (session, _node_session) = tokio::join!(open(&node), node.welcome_to(1, &[11, 12], &[0, 1, 1, 0]));
    let session = session.unwrap();
    let topology = session.topology();
    assert_eq!((topology.shard, topology.shard_count(), topology.tenant.as_str()), (ShardId(1), 2, "acme"));
    assert_eq!(topology.port(ShardId(1)), Some(12));
    assert_eq!(topology.shard_of(PartitionId(2)), Some(ShardId(1)));
    assert_eq!(topology.shard_of(PartitionId(4)), None);
}

#[tokio::test]
async fn frames_pass_in_batches_on_every_lane_in_order() {
    const COUNT: u32 = 20_000;
    let node = Node::new();
    let (session, mut node_session) = tokio::join!(open(&node), node.welcome());
    let (mut sender, mut receiver) = session.unwrap().split();
    let echo = async {
        for lane in Lane::ALL {
            for index in 0..COUNT {
                let frame = node_session.receive(lane).await;
                assert_eq!(frame.decode::<Capacity>().capacity, index);
                node_session.send(lane, &frame.decode::<Capacity>()).await;
            }
        }
    };
    let send = async {
        let mut bytes = Vec::new();
        (0..COUNT).for_each(|capacity| Capacity { capacity }.encode(&mut bytes));
        for lane in Lane::ALL {
            sender.send(lane, &bytes).await.unwrap();
        }
    };
    let receive = async {
        let (mut batch, mut next, mut batches) = (FrameBatch::new(), [0; 4], 0);
        while next != [COUNT; 4] {
            receiver.receive(&mut batch).await.unwrap();
            batches += 1;
            for frame in batch.frames() {
                let next = &mut next[frame.lane as usize];
                assert_eq!(Capacity::decode_body(frame.body).unwrap().capacity, *next);
                *next += 1;
            }
        }
        batches
    };
    let ((), (), batches) = patiently(async { tokio::join!(echo, send, receive) }).await;
    assert!(batches < 4 * COUNT, "several frames per batch");
}

#[tokio::test]
async fn a_refused_version_is_a_typed_and_permanent_error() {
    let node = Node::new();
    let refuse = async {
        let mut session = node.accept().await;
        let code = RefusalCode::UnsupportedVersion;
        let refused = Refused { request_id: 0, code, detail: 9, field: "", message: "version 9 is spoken here" };
        session.send(Lane::Control, &refused).await;
        session
    };
    let (result, _session) = tokio::join!(open(&node), refuse);
    let error = result.unwrap_err();
    assert!(error.is_permanent());
    assert!(
        matches!(error, ConnectError::Refused(refusal) if refusal.code == RefusalCode::UnsupportedVersion && refusal.detail == 9)
    );
}

#[tokio::test]
async fn a_close_before_the_welcome_tells_its_code() {
    let node = Node::new();
    let (result, ()) = tokio::join!(open(&node), async { node.accept().await.close(10, "not here") });
    let error = result.unwrap_err();
    assert!(error.is_permanent());
    assert!(
        matches!(error, ConnectError::Session(SessionError::ClosedByNode { code: 10, reason }) if reason == "not here")
    );
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_tls_errors_on_both_sides() {
    let (node, stranger) = (Node::new(), Authority::new());
    let distrusting = Dialer::new(node.authority().peer(&stranger, node.address())).unwrap();
    let distrusted = Dialer::new(stranger.peer(node.authority(), node.address())).unwrap();
    let node = Arc::new(node);
    for dialer in [distrusting, distrusted] {
        let serving = Arc::clone(&node);
        let task = tokio::spawn(async move { serving.accept().await });
        let error = patiently(dialer.open(node.address())).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls(_)), "{error}");
        assert!(error.is_permanent());
        assert!(task.await.is_err(), "the node has no session either");
    }
}

#[tokio::test]
async fn frames_right_behind_the_welcome_and_before_the_end_are_delivered() {
    let node = Node::new();
    let serve = async {
        let mut session = node.welcome().await;
        session.send(Lane::Control, &GoAway { retry_ms: 5, message: "" }).await;
        let critical = FrameHeader { body_bytes: 0, frame_type: 0x7000, flags: FrameHeader::CRITICAL };
        session.send_bytes(Lane::P2, &critical.to_bytes()).await;
        session
    };
    let (session, _node_session) = tokio::join!(open(&node), serve);
    let (_sender, mut receiver) = session.unwrap().split();
    let (mut batch, mut seen) = (FrameBatch::new(), 0);
    let end = loop {
        match patiently(receiver.receive(&mut batch)).await {
            Ok(()) => seen += batch.frames().count(),
            Err(error) => break error,
        }
    };
    assert_eq!((seen, end), (1, SessionError::UnknownFrame(0x7000)));
}
