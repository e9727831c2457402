//! Bad input against a whole node: whoever sends it is told what is wrong, in a typed way; its request or its session
//! ends; a bystander notices nothing.

mod stranger;

use anyhow::Context as _;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use stranger::fate;
use tempfile::TempDir;
use tickwheel_client::{
    ConnectConfig, ConnectError, Credentials, JobBuilder, Lane, PartitionId, Refusal, RefusalCode, RetryPolicy,
    SessionError,
};
use tickwheel_net::{CloseCode, Identity, Role};
use tickwheel_server::certificates::{Authority, Files, ensure_local};
use tickwheel_tests::{PATIENCE, TestNode, bystander::Bystander, data_directory, peer::Peer};
use tickwheel_wire::{
    FireSequence, JobId, Token,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{
            ExecutionById, ExecutionState, ExecutionView, ExpectedJob, JobByName, JobCommand, JobVerb, ReadCounters,
        },
        request::{SubmitJob, SubmitMode, Submitted},
        session::{GoAway, Hello, PROTOCOL_VERSION},
        work::{Attach, Completed, Dispatch, DispatchHead, Heartbeat, Outcome, Verdict},
    },
};
use tokio::time::timeout;

const SETTINGS: &str = "[node]\nshards = 2\npartitions = 8\n[log]\nsegment_bytes = 4194304\n\
    [limits]\nframe_bytes = 65536\npayload_bytes = 16384\n[[tenant]]\nname = \"acme\"\n";
const FRAME_BYTES_MAX: u32 = 65_536;
const PAYLOAD_BYTES_MAX: usize = 16_384;

/// A node, and what is needed to bother it.
struct Scene {
    data: TempDir,
    node: TestNode,
}

impl Scene {
    fn certificates(&self) -> PathBuf {
        self.data.path().join("certs")
    }

    fn config(&self, name: &str) -> anyhow::Result<ConnectConfig> {
        self.node.connect_config(self.data.path(), name, 0)
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.config("admin")?.address.parse()?)
    }

    async fn peer(&self, name: &str) -> anyhow::Result<Peer> {
        Ok(Peer::open(self.config(name)?).await?)
    }

    /// Issues a certificate of the node's authority.
    fn issue(&self, name: &str, role: Role, tenant: Option<&str>, pools: &[&str]) -> anyhow::Result<()> {
        let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
        let identity = Identity { name: name.to_owned(), role, tenant: tenant.map(str::to_owned), pools };
        Authority::open(&self.certificates())?.issue_identity(name, &identity, 1)?;
        Ok(())
    }
}

/// Runs `body` against a node while a bystander stands by.
fn check(body: impl AsyncFnOnce(&Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), SETTINGS)?;
    let scene = Scene { data, node };
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let all = async {
            let bystander = Bystander::start(&scene.node, scene.data.path()).await?;
            body(&scene).await?;
            bystander.leave().await
        };
        timeout(PATIENCE, all).await.context("the test took too long")?
    })?;
    // What the bystander was told to run is of no interest any more.
    scene.node.stop(Duration::ZERO)
}

fn job(name: &str) -> JobBuilder {
    JobBuilder::new(name).tenant("default").handler("any").every(Duration::from_secs(86_400))
}

fn bytes_of<'a>(frame: &impl Frame<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn raw(frame_type: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader { body_bytes: u32::try_from(body.len()).expect("short"), frame_type, flags };
    [&header.to_bytes()[..], body].concat()
}

fn code_of(number: u64) -> CloseCode {
    CloseCode::from_number(number).expect("a code of the protocol")
}

#[test]
fn bytes_that_are_no_frames_end_only_their_session_and_say_why() -> anyhow::Result<()> {
    check(async |scene| {
        let too_long = FrameHeader {
            body_bytes: FRAME_BYTES_MAX + 1,
            frame_type: FrameType::SubmitJob.number(),
            flags: FrameHeader::CRITICAL,
        };
        let hello = Hello { version_min: 1, version_max: 1, software: "again" };
        let goodbye = GoAway { retry_ms: 1, message: "from a peer" };
        let cases = [
            (raw(FrameType::SubmitJob.number(), 1, &[1, 2, 3]), CloseCode::MalformedFrame, "request_id"),
            (raw(FrameType::SubmitJob.number(), 1, &[0; 9]), CloseCode::MalformedFrame, "partition"),
            (raw(0x7fff, FrameHeader::CRITICAL, b"?"), CloseCode::UnknownFrame, "0x7fff"),
            (too_long.to_bytes().to_vec(), CloseCode::FrameTooLarge, "65536"),
            (bytes_of(&hello), CloseCode::ProtocolViolation, "hello"),
            (bytes_of(&goodbye), CloseCode::ProtocolViolation, "go-away"),
        ];
        for (bytes, expected, word) in cases {
            let mut peer = scene.peer("admin").await?;
            peer.say_bytes(Lane::Control, &bytes).await?;
            let (code, reason) = peer.hear_close().await?;
            assert_eq!(code_of(code), expected, "{reason}");
            assert!(reason.contains(word), "{expected}: {word:?} is not in {reason:?}");
        }
        let mut worker = scene.peer("worker").await?;
        worker.attach(1, "standard").await?;
        worker.say_bytes(Lane::P0, &raw(FrameType::Complete.number(), 1, &[7; 5])).await?;
        assert_eq!(code_of(worker.hear_close().await?.0), CloseCode::MalformedFrame);
        Ok(())
    })
}

#[test]
fn what_cannot_be_read_is_refused_and_the_session_goes_on() -> anyhow::Result<()> {
    check(async |scene| {
        let mut peer = scene.peer("admin").await?;
        // The head says where it belongs; the rest is missing.
        for partition in [0_u8, 1] {
            let body = [&7_u64.to_le_bytes()[..], &[partition, 0], b"\x01"].concat();
            peer.say_bytes(Lane::Control, &raw(FrameType::SubmitJob.number(), 1, &body)).await?;
            let (request_id, refusal) = peer.hear_refusal().await?;
            assert_eq!((request_id, refusal.code), (7, RefusalCode::Malformed), "{refusal}");
        }
        let frame = SubmitJob {
            request_id: 8,
            partition: PartitionId(0),
            mode: SubmitMode::Create,
            expected_revision: 0,
            idempotency_key: &[],
            idempotency_window_ms: 0,
            spec: b"\xff no definition",
        };
        peer.say(Lane::Control, &frame).await?;
        let (request_id, refusal) = peer.hear_refusal().await?;
        assert_eq!((request_id, refusal.code, &*refusal.field), (8, RefusalCode::Malformed, "spec"), "{refusal}");
        peer.say_bytes(Lane::Control, &raw(0x7fff, 0, b"from a later version")).await?;
        peer.submit(9, &job("after-all")).await?;
        assert_eq!(peer.hear().await?.decode::<Submitted>()?.request_id, 9, "the unknown frame was skipped");
        Ok(())
    })
}

#[test]
fn what_is_too_long_is_refused_with_its_limit() -> anyhow::Result<()> {
    check(async |scene| {
        let mut peer = scene.peer("admin").await?;
        let most = job("most").payload(vec![1; PAYLOAD_BYTES_MAX]);
        peer.submit(1, &most).await?;
        assert_eq!(peer.hear().await?.decode::<Submitted>()?.request_id, 1, "the limit itself is allowed");
        let cases = [
            (job("more").payload(vec![1; PAYLOAD_BYTES_MAX + 1]), RefusalCode::TooLarge, "payload", PAYLOAD_BYTES_MAX),
            (job(&"n".repeat(256)), RefusalCode::InvalidField, "name", 255),
            (job("handler").handler("h".repeat(129)), RefusalCode::InvalidField, "handler", 128),
            (job("pool").pool("p".repeat(65)), RefusalCode::InvalidField, "pool", 64),
            (job("tenant").tenant("t".repeat(65)), RefusalCode::InvalidField, "tenant", 64),
        ];
        for (job, code, field, limit) in cases {
            peer.submit(2, &job).await?;
            let (request_id, refusal) = peer.hear_refusal().await?;
            let Refusal { code: found, field: found_field, detail, message } = refusal;
            assert_eq!((request_id, found, &*found_field), (2, code, field), "{message}");
            assert_eq!(detail, limit as u64, "{message}");
            assert!(message.contains(&limit.to_string()), "{message}");
        }
        Ok(())
    })
}

#[test]
fn a_session_that_does_not_begin_as_it_should_is_closed_with_the_reason() -> anyhow::Result<()> {
    check(async |scene| {
        let newer = PROTOCOL_VERSION + 1;
        let later = Hello { version_min: newer, version_max: newer + 1, software: "the future" };
        let early = JobByName { request_id: 1, partition: PartitionId(0), tenant: "default", name: "bystander" };
        let cases = [
            (bytes_of(&later), CloseCode::UnsupportedVersion, "version 1"),
            (bytes_of(&early), CloseCode::HelloExpected, "hello"),
            (raw(FrameType::Hello.number(), 1, &[1]), CloseCode::MalformedFrame, "hello"),
            (raw(0x7fff, FrameHeader::CRITICAL, &[]), CloseCode::UnknownFrame, "0x7fff"),
        ];
        for (bytes, expected, word) in cases {
            let end = fate(scene.address()?, &scene.certificates(), Some("admin"), &bytes).await?;
            let SessionError::ClosedByNode { code, reason } = SessionError::from(end.clone()) else {
                panic!("{expected}: {end}")
            };
            assert_eq!(code_of(code), expected, "{reason}");
            assert!(reason.contains(word), "{expected}: {word:?} is not in {reason:?}");
        }
        Ok(())
    })
}

#[test]
fn a_session_that_never_says_hello_is_closed() -> anyhow::Result<()> {
    check(async |scene| {
        let end = fate(scene.address()?, &scene.certificates(), Some("admin"), &[]).await?;
        let SessionError::ClosedByNode { code, reason } = SessionError::from(end.clone()) else { panic!("{end}") };
        assert_eq!(code_of(code), CloseCode::HelloExpected, "{reason}");
        Ok(())
    })
}

/// The TLS alert with which the node ended the handshake; QUIC adds 0x100.
fn alert(end: &quinn::ConnectionError) -> u64 {
    match end {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code).wrapping_sub(0x100),
        other => panic!("no alert: {other}"),
    }
}

#[test]
fn who_cannot_prove_who_they_are_does_not_get_in() -> anyhow::Result<()> {
    check(async |scene| {
        let (address, own) = (scene.address()?, scene.certificates());
        let certificate_required = 116;
        assert_eq!(alert(&fate(address, &own, None, &[]).await?), certificate_required);
        // A server's certificate is none for peers.
        let unsuitable = fate(address, &own, Some("server"), &[]).await?;
        assert!((42..=51).contains(&alert(&unsuitable)), "{unsuitable}");

        let elsewhere = data_directory()?;
        ensure_local(elsewhere.path())?;
        let (ours, theirs) = (Files::of(&own, "ca"), Files::of(elsewhere.path(), "admin"));
        let stranger = Credentials::from_files(ours.certificate, theirs.certificate, theirs.key)?;
        let refused = Peer::open(ConnectConfig::new(address.to_string(), stranger)).await;
        assert_tls(refused, "the node does not know their authority");

        let (theirs, ours) = (Files::of(elsewhere.path(), "ca"), Files::of(&own, "admin"));
        let distrustful = Credentials::from_files(theirs.certificate, ours.certificate, ours.key)?;
        let refused = Peer::open(ConnectConfig::new(address.to_string(), distrustful)).await;
        assert_tls(refused, "they do not know the node's authority");
        Ok(())
    })
}

#[track_caller]
fn assert_tls(opened: Result<Peer, ConnectError>, why: &str) {
    match opened {
        Err(error @ ConnectError::Tls(_)) => assert!(error.is_permanent()),
        other => panic!("{why}: {other:?}"),
    }
}

#[test]
fn a_certificate_that_names_what_is_not_configured_is_closed_with_the_name() -> anyhow::Result<()> {
    check(async |scene| {
        scene.issue("lost", Role::Client, Some("nobody"), &[])?;
        scene.issue("poolless", Role::Worker, None, &["no-such-pool"])?;
        for (name, word) in [("lost", "nobody"), ("poolless", "no-such-pool")] {
            match Peer::open(scene.config(name)?).await {
                Err(error @ ConnectError::Session(SessionError::ClosedByNode { .. })) => {
                    assert!(error.is_permanent(), "{error}");
                    let ConnectError::Session(SessionError::ClosedByNode { code, reason }) = error else { continue };
                    assert_eq!(code_of(code), CloseCode::UnknownTenant);
                    assert!(reason.contains(word), "{reason}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        Ok(())
    })
}

#[test]
fn nobody_acts_beyond_their_role() -> anyhow::Result<()> {
    check(async |scene| {
        scene.issue("client", Role::Client, Some("acme"), &[])?;
        let mut client = scene.peer("client").await?;
        let stolen = DispatchHead { priority: tickwheel_wire::job::Priority::P1, ..head(JobId::from_raw(0), 1, 1) };
        for round in 0..2_u64 {
            // A job of each shard: what is for the other one is forwarded.
            let job = JobId::new(PartitionId(u16::try_from(round)?), 0, 0);
            client.complete(Lane::P1, &DispatchHead { job, ..stolen }, Outcome::Succeeded, b"").await?;
            let (request_id, refusal) = client.hear_refusal().await?;
            assert_eq!((request_id, refusal.code), (0, RefusalCode::WrongRole), "{refusal}");
        }
        client
            .say(
                Lane::Control,
                &Attach { request_id: 5, instance: tickwheel_client::InstanceId(1), capacity: 1, pools: "" },
            )
            .await?;
        let (request_id, refusal) = client.hear_refusal().await?;
        assert_eq!((request_id, refusal.code), (5, RefusalCode::WrongRole), "{refusal}");
        let mut worker = scene.peer("worker").await?;
        for peer in [&mut client, &mut worker] {
            peer.say(Lane::Control, &ReadCounters { request_id: 6 }).await?;
            let (request_id, refusal) = peer.hear_refusal().await?;
            assert_eq!((request_id, refusal.code), (6, RefusalCode::WrongRole), "{refusal}");
        }
        for index in 0..4 {
            worker.submit(index, &job(&format!("smuggled-{index}"))).await?;
            let (request_id, refusal) = worker.hear_refusal().await?;
            assert_eq!((request_id, refusal.code), (index, RefusalCode::WrongRole), "{refusal}");
        }
        let mut admin = scene.peer("admin").await?;
        let partition = admin.topology().partition_of("default", "smuggled-0");
        let asked = JobByName { request_id: 1, partition, tenant: "default", name: "smuggled-0" };
        admin.say(Lane::Control, &asked).await?;
        assert_eq!(admin.hear_refusal().await?.1.code, RefusalCode::UnknownJob, "nothing of it was created");
        Ok(())
    })
}

#[test]
fn nobody_acts_for_another_tenant_or_one_that_does_not_exist() -> anyhow::Result<()> {
    check(async |scene| {
        scene.issue("client", Role::Client, Some("acme"), &[])?;
        let mut client = scene.peer("client").await?;
        let mut admin = scene.peer("admin").await?;
        for (is_admin, tenant, code) in [
            (false, "default", RefusalCode::Forbidden),
            (false, "nobody", RefusalCode::UnknownTenant),
            (true, "nobody", RefusalCode::UnknownTenant),
        ] {
            let peer = if is_admin { &mut admin } else { &mut client };
            peer.submit(1, &job("bystander").tenant(tenant)).await?;
            let (_, refusal) = peer.hear_refusal().await?;
            assert_eq!((refusal.code, &*refusal.field), (code, "tenant"), "{refusal}");
            let partition = peer.topology().partition_of(tenant, "bystander");
            let (verb, name, expected) = (JobVerb::Delete, "bystander", ExpectedJob::default());
            let delete = JobCommand { request_id: 2, partition, verb, tenant, name, expected };
            peer.say(Lane::Control, &delete).await?;
            assert_eq!(peer.hear_refusal().await?.1.code, code);
        }
        client.submit(3, &job("own").tenant("acme")).await?;
        assert_eq!(client.hear().await?.decode::<Submitted>()?.request_id, 3);
        Ok(())
    })
}

#[test]
fn a_partition_that_is_not_the_names_own_is_refused_with_the_right_one() -> anyhow::Result<()> {
    check(async |scene| {
        let mut peer = scene.peer("admin").await?;
        let right = peer.topology().partition_of("default", "bystander");
        let ask = |partition| JobByName { request_id: 4, partition, tenant: "default", name: "bystander" };
        for partition in (0..8).map(PartitionId).filter(|partition| *partition != right) {
            peer.say(Lane::Control, &ask(partition)).await?;
            let (request_id, refusal) = peer.hear_refusal().await?;
            assert_eq!((request_id, refusal.code), (4, RefusalCode::NotOwner), "{refusal}");
            assert_eq!(refusal.detail, u64::from(right.0), "{refusal}");
        }
        for partition in [8, 4_095, u16::MAX].map(PartitionId) {
            peer.say(Lane::Control, &ask(partition)).await?;
            let (request_id, refusal) = peer.hear_refusal().await?;
            assert_eq!((request_id, refusal.code, refusal.detail), (4, RefusalCode::NotOwner, 0), "{refusal}");
            assert!(refusal.message.contains('8'), "{refusal}");
        }
        let id = ExecutionById {
            request_id: 5,
            partition: right,
            job: JobId::from_raw(u64::MAX),
            fire_sequence: FireSequence(1),
        };
        peer.say(Lane::Control, &id).await?;
        assert_eq!(peer.hear_refusal().await?.1.code, RefusalCode::NotOwner);
        Ok(())
    })
}

/// An attempt that was never dispatched.
fn head(job: JobId, fire_sequence: u64, token: u64) -> DispatchHead {
    DispatchHead {
        job,
        fire_sequence: FireSequence(fire_sequence),
        token: Token(token),
        scheduled_at: tickwheel_client::Timestamp::EPOCH,
        start_to_close_ms: 0,
        heartbeat_ms: 0,
        attempt: 1,
        priority: tickwheel_wire::job::Priority::P1,
        tenant_bytes: 0,
        name_bytes: 0,
        handler_bytes: 0,
    }
}

/// Completes `attempt` and returns the verdict.
async fn verdict(
    worker: &mut Peer,
    attempt: &DispatchHead,
    outcome: Outcome,
    output: &[u8],
) -> anyhow::Result<Verdict> {
    worker.complete(Lane::P1, attempt, outcome, output).await?;
    let completed: Completed = worker.hear().await?.decode()?;
    assert_eq!((completed.job, completed.token), (attempt.job, attempt.token));
    Ok(completed.verdict)
}

async fn dispatched(worker: &mut Peer) -> anyhow::Result<DispatchHead> {
    let message = worker.hear().await?;
    Ok(message.decode::<Dispatch<'_>>()?.head)
}

#[test]
fn a_completion_counts_only_with_the_running_token_from_the_instance_that_holds_it() -> anyhow::Result<()> {
    check(async |scene| {
        let mut holder = scene.peer("worker").await?;
        holder.attach(1, "standard").await?;
        let mut admin = scene.peer("admin").await?;
        let retry = RetryPolicy { initial_ms: 1, ..RetryPolicy::default() };
        let held = JobBuilder::new("held").tenant("default").handler("any").after(Duration::ZERO).retry(retry);
        admin.submit(1, &held).await?;
        admin.hear().await?.decode::<Submitted>()?;
        let first = dispatched(&mut holder).await?;

        let mut thief = scene.peer("worker").await?;
        let early = verdict(&mut thief, &first, Outcome::Succeeded, b"stolen").await?;
        assert_eq!(early, Verdict::Overloaded, "who is not attached is told to come back later");
        thief.attach(2, "high").await?;
        assert_eq!(verdict(&mut thief, &first, Outcome::Succeeded, b"stolen").await?, Verdict::StaleToken);
        let DispatchHead { job, fire_sequence, token, .. } = first;
        thief.say(Lane::P1, &Heartbeat { job, fire_sequence, token, progress_permille: 999 }).await?;
        assert_eq!(thief.hear().await?.frame_type, FrameType::CancelAttempt);

        assert_eq!(verdict(&mut holder, &first, Outcome::Failed, b"").await?, Verdict::Accepted);
        let second = dispatched(&mut holder).await?;
        assert_eq!(verdict(&mut holder, &second, Outcome::Failed, b"").await?, Verdict::Accepted);
        let third = dispatched(&mut holder).await?;
        assert!(first.token < second.token && second.token < third.token && third.fire_sequence == fire_sequence);
        let future = DispatchHead { token: Token(third.token.0 + 1), ..third };
        for wrong in [first, future] {
            assert_eq!(verdict(&mut holder, &wrong, Outcome::Succeeded, b"wrong").await?, Verdict::StaleToken);
        }
        let again = verdict(&mut holder, &second, Outcome::Succeeded, b"wrong").await?;
        assert_eq!(again, Verdict::Accepted, "the newest report was taken before: repeated, it changes nothing");
        let gone = JobId::new(job.partition(), job.generation() + 1, job.slot());
        let unknown = verdict(&mut holder, &head(gone, 1, 1), Outcome::Succeeded, b"wrong").await?;
        assert_eq!(unknown, Verdict::UnknownJob);

        let ask = ExecutionById { request_id: 2, partition: job.partition(), job, fire_sequence };
        assert_eq!(state(&mut admin, &ask).await?, (ExecutionState::Running, third.token, Vec::new()));
        assert_eq!(verdict(&mut holder, &third, Outcome::Succeeded, b"right").await?, Verdict::Accepted);
        assert_eq!(state(&mut admin, &ask).await?, (ExecutionState::Succeeded, third.token, b"right".to_vec()));
        Ok(())
    })
}

async fn state(admin: &mut Peer, ask: &ExecutionById) -> anyhow::Result<(ExecutionState, Token, Vec<u8>)> {
    admin.say(Lane::Control, ask).await?;
    let message = admin.hear().await?;
    let view: ExecutionView<'_> = message.decode()?;
    Ok((view.state, view.token, view.output.to_vec()))
}
