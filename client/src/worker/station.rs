//! One worker instance at one shard: its session, its tasks, its reconnects.
//!
//! Order on a new session: `Attach`, then, once `Attached` has come, `Reattach` for what still runs or waits and every
//! unacknowledged `Complete`. Completions wait for `Attached` because they travel on other lanes, which could overtake it.
//!
//! Invariants: nothing is forgotten while a session is away; what handlers do goes on meanwhile. The loop never waits for
//! anything but its select. Deliberately absent: which frames are due (the [`Ledger`] says), how a handler is run (`runner`).

use super::{
    Core, WorkerError,
    attempt::{Attempt, Key},
    ledger::{Admission, Bounds, Ledger, Presentation, SignOfLife},
    runner::{self, Completion},
};
use crate::{
    backoff::Backoff,
    batch::{FrameBatch, Lane, RawFrame},
    error::{ConnectError, Refusal, SessionError},
    link::{CloseOnDrop, Outbox},
    session::{Session, SessionReceiver},
    topology::Topology,
};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tickwheel_wire::{
    InstanceId, ShardId,
    frame::{
        Frame, FrameType,
        session::{GoAway, Refused},
        work::{Attach, Attached, CancelAttempt, Capacity, Complete, Completed, Dispatch, Outcome, Reattached},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

/// Request id of the only request that a worker makes on a session.
const ATTACH_REQUEST: u64 = 1;
/// How long a drained worker waits for the last acknowledgements beyond the grace period.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a drained worker stays after it has told the node that it takes nothing more: nothing answers that frame, and a
/// dispatch that crossed it must not be lost.
const LINGER: Duration = Duration::from_millis(200);

/// Which shard of the node a station belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// The one that the instance id picks.
    Home,
    /// This one.
    Shard(ShardId),
}

impl Seat {
    fn shard(self, instance: InstanceId, topology: &Topology) -> ShardId {
        match self {
            Self::Shard(shard) => shard,
            Self::Home => {
                let index = instance.0 % u128::from(topology.shard_count());
                ShardId(u16::try_from(index).expect("the remainder is below a u16"))
            }
        }
    }
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// What is held is being finished, until then.
    Finishing(Instant),
    /// Handlers were told to stop; the last acknowledgements are awaited, until then.
    Ending(Instant),
    /// Nothing more is awaited.
    Over,
}

/// What happens on this side of the connection.
enum Local {
    Ended(Key, Completion),
    Progress(Key),
    DrainAsked,
    DrainLimit,
}

/// How a session ended.
enum End {
    Drained,
    Lost(SessionError),
    /// The node asked to come back later.
    GoAway(Duration),
}

pub(super) struct Station {
    core: Arc<Core>,
    seat: Seat,
    instance: InstanceId,
    ledger: Ledger,
    tasks: JoinSet<Completion>,
    task_keys: HashMap<task::Id, Key>,
    progressed: (mpsc::Sender<Key>, mpsc::Receiver<Key>),
    drain_asked: watch::Receiver<bool>,
    drain: Drain,
    /// When the node of the present session was told that nothing more is taken.
    closed_at: Option<Instant>,
}

impl Station {
    pub fn new(
        core: Arc<Core>,
        seat: Seat,
        instance: InstanceId,
        bounds: Bounds,
        drain_asked: watch::Receiver<bool>,
    ) -> Self {
        Self {
            core,
            seat,
            instance,
            ledger: Ledger::new(bounds),
            tasks: JoinSet::new(),
            task_keys: HashMap::new(),
            // One slot for every attempt that can be held: each has at most one word in the queue.
            progressed: mpsc::channel(2 * bounds.capacity),
            drain_asked,
            drain: Drain::No,
            closed_at: None,
        }
    }

    /// Works until it is drained.
    pub async fn run(mut self) -> Result<(), WorkerError> {
        let mut backoff = Backoff::new();
        loop {
            let Some(session) = self.connect(&mut backoff).await? else { break };
            let delay = match self.serve(session, &mut backoff).await {
                End::Drained => break,
                End::Lost(error) if error.is_permanent() => return Err(WorkerError::Session(error)),
                End::Lost(error) => {
                    tracing::warn!(%error, "the worker's session was lost");
                    backoff.failed()
                }
                End::GoAway(delay) => delay,
            };
            self.ledger.session_lost();
            if self.meanwhile(sleep(delay)).await.is_none() {
                break;
            }
        }
        match self.ledger.unacknowledged_count() {
            0 => Ok(()),
            completion_count => Err(WorkerError::Unacknowledged { completion_count }),
        }
    }

    /// Opens a session; none when there is nothing left to connect for.
    async fn connect(&mut self, backoff: &mut Backoff) -> Result<Option<Session>, WorkerError> {
        let (core, seat, instance) = (Arc::clone(&self.core), self.seat, self.instance);
        loop {
            // Every second attempt asks the configured address, in case the node came back with other shards.
            let afresh = backoff.failures() % 2 == 1;
            let attempt = core.directory.open(|topology| seat.shard(instance, topology), afresh);
            let Some(result) = self.meanwhile(attempt).await else { return Ok(None) };
            let delay = match result {
                Ok(session) => return Ok(Some(session)),
                Err(error) => self.connect_failed(error, backoff)?,
            };
            if self.meanwhile(sleep(delay)).await.is_none() {
                return Ok(None);
            }
        }
    }

    fn connect_failed(&self, error: ConnectError, backoff: &mut Backoff) -> Result<Duration, WorkerError> {
        if error.is_permanent() {
            return Err(WorkerError::Connect(error));
        }
        tracing::warn!(%error, "the worker cannot connect");
        Ok(backoff.failed())
    }

    /// Awaits `work` while handlers go on; none when the worker is drained before.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            if matches!(self.drain, Drain::Ending(_)) {
                self.give_up(None);
            }
            if self.is_drained() {
                return None;
            }
            tokio::select! {
                result = &mut work => return Some(result),
                local = self.local() => self.take(local, None),
            }
        }
    }

    async fn serve(&mut self, session: Session, backoff: &mut Backoff) -> End {
        let (sender, mut receiver) = session.split();
        let (_close, lanes) = CloseOnDrop::split(sender);
        let outbox = Outbox::default();
        self.attach(&outbox);
        tokio::select! {
            error = outbox.drive(lanes) => End::Lost(error),
            end = self.exchange(&outbox, &mut receiver, backoff) => end,
        }
    }

    fn attach(&mut self, outbox: &Outbox) {
        self.closed_at = None;
        let capacity = u32::try_from(self.ledger.bounds().capacity).expect("checked by the builder");
        let (request_id, instance) = (ATTACH_REQUEST, self.instance);
        outbox.push(Lane::Control, &Attach { request_id, instance, capacity, pools: &self.core.pools });
    }

    async fn exchange(&mut self, outbox: &Outbox, receiver: &mut SessionReceiver, backoff: &mut Backoff) -> End {
        let mut batch = FrameBatch::new();
        let mut node = NodeState::default();
        loop {
            match self.drain {
                Drain::No => self.start_ready(),
                Drain::Finishing(_) => {
                    self.tell_drain(outbox);
                    self.start_ready();
                }
                Drain::Ending(_) => {
                    self.tell_drain(outbox);
                    self.give_up(node.attached.then_some(outbox));
                }
                Drain::Over => return End::Drained,
            }
            let leave_at = self.leave_at();
            if leave_at.is_some_and(|at| at <= Instant::now()) {
                return End::Drained;
            }
            if let Some(delay) = node.away
                && self.ledger.is_empty()
            {
                return End::GoAway(delay);
            }
            let wake = self.ledger.next_wake().into_iter().chain(leave_at).min();
            tokio::select! {
                received = receiver.receive(&mut batch) => {
                    if let Err(error) = received.and_then(|()| self.deliver_all(&batch, outbox, &mut node)) {
                        // The node said when to come back, and now it has closed.
                        return node.away.map_or(End::Lost(error), End::GoAway);
                    }
                    if node.attached {
                        backoff.succeeded();
                    }
                }
                local = self.local() => {
                    self.take(local, node.attached.then_some(outbox));
                    self.take_ended(node.attached.then_some(outbox));
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.send_due(outbox),
            }
        }
    }

    /// Starts what waits, as far as slots are free.
    fn start_ready(&mut self) {
        while let Some(attempt) = self.ledger.start_next() {
            let key = attempt.key();
            let handler = self.core.handler(attempt.handler());
            let task = self.tasks.spawn(runner::run(handler, attempt, self.core.cancel_grace));
            self.task_keys.insert(task.id(), key);
        }
    }

    fn deliver_all(&mut self, batch: &FrameBatch, outbox: &Outbox, node: &mut NodeState) -> Result<(), SessionError> {
        let now = Instant::now();
        batch.frames().try_for_each(|frame| self.deliver(frame, outbox, node, now))
    }

    fn deliver(
        &mut self,
        frame: RawFrame<'_>,
        outbox: &Outbox,
        node: &mut NodeState,
        now: Instant,
    ) -> Result<(), SessionError> {
        match frame.frame_type {
            FrameType::Dispatch => {
                let outbox = node.attached.then_some(outbox);
                return self.admit(&Dispatch::decode_body(frame.body)?, now, outbox);
            }
            FrameType::Completed => self.ledger.completed(&Completed::decode_body(frame.body)?, now),
            FrameType::CancelAttempt => {
                let complete = self.ledger.cancel(&CancelAttempt::decode_body(frame.body)?);
                send_complete(complete, node.attached.then_some(outbox));
            }
            FrameType::Reattached => self.ledger.reattached(&Reattached::decode_body(frame.body)?, now),
            FrameType::Attached => self.attached(&Attached::decode_body(frame.body)?, outbox, node),
            FrameType::GoAway => {
                let go_away = GoAway::decode_body(frame.body)?;
                node.away = Some(Duration::from_millis(go_away.retry_ms.into()));
            }
            FrameType::Refused => {
                return Err(SessionError::Refused(Refusal::from(&Refused::decode_body(frame.body)?)));
            }
            _ => {}
        }
        Ok(())
    }

    fn admit(&mut self, dispatch: &Dispatch<'_>, now: Instant, outbox: Option<&Outbox>) -> Result<(), SessionError> {
        let key = Key { job: dispatch.head.job, token: dispatch.head.token };
        if self.ledger.knows(key) {
            return Ok(());
        }
        let attempt = Attempt::new(dispatch, now, self.progressed.0.clone());
        match self.ledger.admit(attempt, now) {
            Admission::Admitted | Admission::Known => Ok(()),
            Admission::Cancelled => {
                send_complete(self.ledger.completion(key), outbox);
                Ok(())
            }
            // What is not presented on the next session counts as undelivered, so parting loses nothing.
            Admission::Overflow => Err(SessionError::Protocol("more dispatches than the worker's capacity")),
        }
    }

    fn attached(&self, frame: &Attached, outbox: &Outbox, node: &mut NodeState) {
        if frame.request_id == ATTACH_REQUEST && !std::mem::replace(&mut node.attached, true) {
            tracing::debug!(reattach_ms = frame.reattach_ms, "attached");
            self.ledger.presentations().for_each(|presentation| present(&presentation, outbox));
        }
    }

    fn send_due(&mut self, outbox: &Outbox) {
        let now = Instant::now();
        while let Some(presentation) = self.ledger.next_due(now) {
            present(&presentation, outbox);
        }
    }

    /// The next thing that happens on this side. Cancel safe.
    async fn local(&mut self) -> Local {
        let limit = match self.drain {
            Drain::Finishing(limit) | Drain::Ending(limit) => Some(limit),
            Drain::No | Drain::Over => None,
        };
        let (drain_asked, drain) = (&mut self.drain_asked, self.drain);
        let asked = async {
            // A handle that is gone cannot ask any more.
            if drain_asked.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Some(joined) = self.tasks.join_next_with_id() => ended(&mut self.task_keys, joined),
            Some(key) = self.progressed.1.recv() => Local::Progress(key),
            () = asked, if drain == Drain::No => Local::DrainAsked,
            () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => Local::DrainLimit,
        }
    }

    /// Takes notice of it; `outbox` is that of a session on which completions may be sent.
    fn take(&mut self, local: Local, outbox: Option<&Outbox>) {
        match local {
            Local::Ended(key, completion) => send_complete(self.ledger.finish(key, completion), outbox),
            Local::Progress(key) => {
                // Without a session on which it may be told, the next one hears it.
                if let (Some(sign), Some(outbox)) = (self.ledger.heartbeat(key), outbox) {
                    push_sign(&sign, outbox);
                }
            }
            Local::DrainAsked => self.drain = Drain::Finishing(Instant::now() + self.core.drain_timeout),
            Local::DrainLimit => self.drain_limit(),
        }
    }

    /// Takes what else has ended, so that completions leave together.
    fn take_ended(&mut self, outbox: Option<&Outbox>) {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            let local = ended(&mut self.task_keys, joined);
            self.take(local, outbox);
        }
    }

    fn drain_limit(&mut self) {
        let end = Instant::now() + self.core.cancel_grace + ACKNOWLEDGE_TIMEOUT;
        self.drain = if matches!(self.drain, Drain::Ending(_)) { Drain::Over } else { Drain::Ending(end) };
    }

    fn tell_drain(&mut self, outbox: &Outbox) {
        if self.closed_at.is_none() {
            self.closed_at = Some(Instant::now());
            outbox.push(Lane::Control, &Capacity { capacity: 0 });
        }
    }

    /// What runs is told to stop, what waits goes back.
    fn give_up(&mut self, outbox: Option<&Outbox>) {
        for key in self.ledger.give_up() {
            send_complete(self.ledger.completion(key), outbox);
        }
    }

    /// Whether there is nothing to connect for any more.
    fn is_drained(&self) -> bool {
        match self.drain {
            Drain::No => false,
            Drain::Finishing(_) | Drain::Ending(_) => self.ledger.is_empty(),
            Drain::Over => true,
        }
    }

    /// When the present session may be left for good, as far as it can be seen now.
    fn leave_at(&self) -> Option<Instant> {
        self.closed_at.filter(|_| self.is_drained()).map(|at| at + LINGER)
    }
}

/// What the node has said on the present session.
#[derive(Debug, Default)]
struct NodeState {
    attached: bool,
    /// How long to stay away once all is finished.
    away: Option<Duration>,
}

fn ended(keys: &mut HashMap<task::Id, Key>, joined: Result<(task::Id, Completion), JoinError>) -> Local {
    let (id, completion) = joined.unwrap_or_else(|error| (error.id(), panicked(error)));
    let key = keys.remove(&id).expect("every task was entered when it was spawned");
    Local::Ended(key, completion)
}

/// Only where panics unwind; with `panic = "abort"` the process is gone and the node sees a lost worker.
fn panicked(error: JoinError) -> Completion {
    let message = match error.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => {
                payload.downcast_ref::<&str>().map_or_else(|| "no message".to_owned(), |&text| text.to_owned())
            }
        },
        Err(error) => error.to_string(),
    };
    Completion::failed(Outcome::Failed, "panic", &message)
}

fn send_complete(complete: Option<(Lane, Complete<'_>)>, outbox: Option<&Outbox>) {
    if let (Some((lane, frame)), Some(outbox)) = (complete, outbox) {
        outbox.push(lane, &frame);
    }
}

fn push_sign(sign: &SignOfLife, outbox: &Outbox) {
    outbox.push(Lane::Control, &sign.heartbeat);
    if let Some(frame) = sign.status() {
        outbox.push(Lane::Control, &frame);
    }
}

fn present(presentation: &Presentation<'_>, outbox: &Outbox) {
    match presentation {
        Presentation::Heartbeat(sign) => push_sign(sign, outbox),
        Presentation::Reattach(frame) => outbox.push(Lane::Control, frame),
        Presentation::Complete(lane, frame) => outbox.push(*lane, frame),
    }
}
