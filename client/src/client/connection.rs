//! The task that owns the session with one shard: sends what is asked, matches answers with questions, reconnects.
//!
//! Invariants: what may be repeated is sent again, in order, after a reconnect; what may not fails as soon as its session is
//! lost; what was never sent is not lost with a session. Answers that nobody waits for any more are dropped. The queue of
//! commands is bounded, and commands are taken only while few bytes wait to be written.
//! Deliberately absent: time-outs, which the callers keep.

use super::request::{Call, Command, Sink, Step};
use crate::{
    backoff::Backoff,
    batch::{FrameBatch, Lane, RawFrame},
    error::{ConnectError, Refusal, RequestError, SessionError},
    link::{CloseOnDrop, Directory, Outbox},
    session::{Session, SessionReceiver},
    types::{OwnedRemark, Transition},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tickwheel_wire::{
    PartitionId, Reader, ShardId,
    frame::{
        Frame, FrameHeader, FrameType,
        request::Unwatch,
        request_head,
        session::{GoAway, Refused},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// Commands that wait for the task, per shard.
pub(super) const COMMANDS_MAX: usize = 4096;
/// Commands taken at once.
const COMMANDS_PER_TURN: usize = 256;
/// Above this no further commands are taken, in bytes.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// Requests in flight, per shard.
const PENDING_MAX: usize = 1 << 16;
/// How often a full set of requests in flight is searched for those that nobody waits for.
const FULL_CHECK: Duration = Duration::from_secs(1);
/// Requests in flight at which those that nobody waits for are looked for the first time.
const PRUNE_COUNT_MIN: usize = 1024;

/// What the tasks of one client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub directory: Directory,
    /// The last request id given out; 0 is the session's own.
    pub request_ids: AtomicU64,
    /// True once the client is closed.
    pub closed: watch::Sender<bool>,
}

impl Shared {
    pub fn next_request_id(&self) -> u64 {
        self.request_ids.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How a session ended.
enum End {
    /// The client was dropped.
    Dropped,
    /// The session is gone.
    Lost(SessionError),
    /// The node asked to come back later.
    GoAway(Duration),
}

pub(super) struct Connection {
    shard: ShardId,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// Sent and not answered, by request id, which is the order of sending.
    pending: BTreeMap<u64, Pending>,
    prune_count: usize,
}

struct Pending {
    /// Kept for repetition; empty when that is not allowed.
    frame: Vec<u8>,
    sink: Sink,
    /// What was remarked on the view that is to come.
    remark: OwnedRemark,
}

impl Connection {
    pub fn new(shard: ShardId, shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> Self {
        Self { shard, shared, commands, pending: BTreeMap::new(), prune_count: PRUNE_COUNT_MIN }
    }

    /// Runs until the client is closed or dropped.
    pub async fn run(mut self, session: Option<Session>) {
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => {}
            () = self.work(session) => {}
        }
        self.fail_all(&RequestError::Closed);
    }

    async fn work(&mut self, mut session: Option<Session>) {
        let mut backoff = Backoff::new();
        loop {
            let open = match session.take() {
                Some(session) => session,
                None => match self.connect(&mut backoff).await {
                    Some(session) => session,
                    None => return,
                },
            };
            backoff.succeeded();
            match self.serve(open).await {
                End::Dropped => return,
                End::Lost(error) => {
                    tracing::debug!(shard = self.shard.0, %error, "the session was lost");
                    self.lost(&error);
                }
                End::GoAway(delay) => {
                    self.lost(&SessionError::ClosedHere);
                    sleep(delay).await;
                }
            }
        }
    }

    /// Opens a session as soon as there is something to send; none when the client is dropped.
    async fn connect(&mut self, backoff: &mut Backoff) -> Option<Session> {
        loop {
            while self.pending.is_empty() {
                if let Command::Call(call) = self.commands.recv().await? {
                    self.hold(call);
                }
            }
            // Every second attempt asks the configured address, in case the node came back with other shards.
            let afresh = backoff.failures() % 2 == 1;
            match self.shared.directory.open(|_| self.shard, afresh).await {
                Ok(session) => return Some(session),
                Err(error) => self.failed(&error),
            }
            sleep(backoff.failed()).await;
            self.prune();
        }
    }

    /// An attempt to connect failed. When that will not change by itself, whoever waits is told.
    fn failed(&mut self, error: &ConnectError) {
        tracing::debug!(shard = self.shard.0, %error, "no session");
        if error.is_permanent() {
            self.fail_all(&RequestError::Unreachable(error.to_string()));
        }
    }

    fn fail_all(&mut self, error: &RequestError) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.sink.fail(error.clone());
        }
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Call(call) = command {
                call.sink.fail(error.clone());
            }
        }
    }

    /// The session is gone: what must not be repeated fails.
    fn lost(&mut self, error: &SessionError) {
        if error.is_permanent() {
            self.fail_all(&RequestError::Unreachable(error.to_string()));
        }
        for (id, pending) in std::mem::take(&mut self.pending) {
            if pending.frame.is_empty() {
                pending.sink.fail(RequestError::Disconnected);
            } else if !pending.sink.is_closed() {
                let sink = pending.sink.anew();
                self.pending.insert(id, Pending { remark: OwnedRemark::default(), sink, ..pending });
            }
        }
    }

    async fn serve(&mut self, session: Session) -> End {
        let (sender, mut receiver) = session.split();
        let (_close, lanes) = CloseOnDrop::split(sender);
        let outbox = Outbox::default();
        self.repeat(&outbox);
        tokio::select! {
            error = outbox.drive(lanes) => End::Lost(error),
            end = self.exchange(&outbox, &mut receiver) => end,
        }
    }

    /// Sends again what the last session left unanswered.
    fn repeat(&mut self, outbox: &Outbox) {
        let mut ended = Vec::new();
        for (id, pending) in &self.pending {
            if let Sink::Watch(watch) = &pending.sink
                && watch.ready.is_none()
                && let (Step::Unwatch, answer) = watch.tell(Transition::Resumed)
            {
                ended.push((*id, answer));
                continue;
            }
            outbox.push_bytes(Lane::Control, &pending.frame);
        }
        for (id, answer) in ended {
            if let Some(pending) = self.pending.remove(&id)
                && let Some(answer) = answer
            {
                pending.sink.finish(answer);
            }
        }
    }

    async fn exchange(&mut self, outbox: &Outbox, receiver: &mut SessionReceiver) -> End {
        let (mut batch, mut commands) = (FrameBatch::new(), Vec::with_capacity(COMMANDS_PER_TURN));
        let mut away: Option<(Instant, Duration)> = None;
        loop {
            if let Some((_, delay)) = away
                && !self.pending.values().any(|pending| !matches!(pending.sink, Sink::Watch(_)))
            {
                return End::GoAway(delay);
            }
            let full = self.pending.len() >= PENDING_MAX;
            // What waits to be written are requests, and their answers wake this loop up again.
            let open = !full && away.is_none() && outbox.queued_bytes() < QUEUED_BYTES_MAX;
            tokio::select! {
                received = receiver.receive(&mut batch) => {
                    if let Err(error) = received {
                        return End::Lost(error);
                    }
                    for frame in batch.frames() {
                        match self.deliver(frame, outbox) {
                            Ok(None) => {}
                            Ok(Some(delay)) => away = Some((Instant::now() + delay, delay)),
                            Err(error) => return End::Lost(error),
                        }
                    }
                }
                count = self.commands.recv_many(&mut commands, COMMANDS_PER_TURN), if open => {
                    if count == 0 {
                        return End::Dropped;
                    }
                    for command in commands.drain(..) {
                        self.obey(command, outbox);
                    }
                }
                () = sleep(FULL_CHECK), if full => self.prune(),
                () = sleep_until(away.map_or_else(Instant::now, |(at, _)| at)), if away.is_some() => {
                    return End::GoAway(Duration::ZERO);
                }
            }
        }
    }

    fn obey(&mut self, command: Command, outbox: &Outbox) {
        match command {
            Command::Call(call) => {
                outbox.push_bytes(Lane::Control, &call.frame);
                self.hold(call);
            }
            Command::Unwatch(watches) => {
                for (id, partition) in watches {
                    if self.pending.remove(&id).is_some() {
                        self.unwatch(id, partition, outbox);
                    }
                }
            }
        }
    }

    fn hold(&mut self, call: Call) {
        if self.pending.len() >= self.prune_count {
            self.prune();
        }
        let frame = if call.repeatable { call.frame } else { Vec::new() };
        self.pending.insert(call.request_id, Pending { frame, sink: call.sink, remark: OwnedRemark::default() });
    }

    /// Forgets requests that nobody waits for. Called when their number doubled, so that it costs little per request.
    fn prune(&mut self) {
        self.pending.retain(|_, pending| !pending.sink.is_closed());
        self.prune_count = PRUNE_COUNT_MIN.max(2 * self.pending.len());
    }

    fn unwatch(&self, watch: u64, partition: PartitionId, outbox: &Outbox) {
        outbox.push(Lane::Control, &Unwatch { request_id: self.shared.next_request_id(), partition, watch });
    }

    /// Takes a frame. Says how long to stay away if the node asks for that.
    fn deliver(&mut self, frame: RawFrame<'_>, outbox: &Outbox) -> Result<Option<Duration>, SessionError> {
        if frame.frame_type == FrameType::GoAway {
            let go_away = GoAway::decode_body(frame.body)?;
            return Ok(Some(Duration::from_millis(go_away.retry_ms.into())));
        }
        let request_id = Reader::new(frame.body).u64("request_id")?;
        if request_id == 0 && frame.frame_type == FrameType::Refused {
            return Err(SessionError::Refused(Refusal::from(&Refused::decode_body(frame.body)?)));
        }
        let Some(pending) = self.pending.get_mut(&request_id) else {
            return Ok(None);
        };
        let (step, answer) = pending.sink.accept(frame, &mut pending.remark)?;
        if step != Step::More
            && let Some(Pending { frame, sink, .. }) = self.pending.remove(&request_id)
        {
            if step == Step::Unwatch
                && let Ok((_, partition)) = request_head(&frame[FrameHeader::BYTES..])
            {
                self.unwatch(request_id, partition, outbox);
            }
            if let Some(answer) = answer {
                sink.finish(answer);
            }
        }
        Ok(None)
    }
}
