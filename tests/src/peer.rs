//! A peer that says exactly what a test tells it to, right or wrong, and hands out what it hears frame by frame.
//!
//! Deliberately absent: reconnects. When its session ends, the test learns it.

use anyhow::{Context as _, bail, ensure};
use std::collections::VecDeque;
use tickwheel_client::{ConnectConfig, ConnectError, Dialer, FrameBatch, JobBuilder, Lane, Refusal, Session};
use tickwheel_client::{SessionError, Topology};
use tickwheel_wire::{
    InstanceId,
    frame::{
        Frame, FrameType,
        request::{Counters, ReadCounters, SubmitJob, SubmitMode},
        session::Refused,
        work::{Attach, Attached, Complete, CompleteHead, DispatchHead, Outcome},
    },
};

/// A frame that was heard.
#[derive(Clone, Debug)]
pub struct Message {
    /// The lane it came on.
    pub lane: Lane,
    /// Its type.
    pub frame_type: FrameType,
    body: Vec<u8>,
}

impl Message {
    /// The frame, if it is one of this type.
    ///
    /// # Errors
    /// When it is another, or malformed.
    pub fn decode<'a, F: Frame<'a>>(&'a self) -> anyhow::Result<F> {
        if self.frame_type != F::TYPE {
            let refused = Refused::decode_body(&self.body).ok().filter(|_| self.frame_type == FrameType::Refused);
            bail!("heard {:?} {refused:?} instead of {:?}", self.frame_type, F::TYPE);
        }
        Ok(F::decode_body(&self.body)?)
    }
}

/// A peer with an open session.
#[derive(Debug)]
pub struct Peer {
    session: Session,
    batch: FrameBatch,
    heard: VecDeque<Message>,
    /// The socket lives as long as the session.
    _dialer: Dialer,
}

impl Peer {
    /// Opens a session with the shard that `config` names by its socket address.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Panics
    /// If the address is no socket address.
    pub async fn open(config: ConnectConfig) -> Result<Self, ConnectError> {
        let address = config.address.parse().expect("tests name socket addresses");
        let dialer = Dialer::new(config)?;
        let session = dialer.open(address).await?;
        Ok(Self { session, batch: FrameBatch::new(), heard: VecDeque::new(), _dialer: dialer })
    }

    /// What the node told about itself.
    pub fn topology(&self) -> &Topology {
        self.session.topology()
    }

    /// Says one frame.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn say<'a>(&mut self, lane: Lane, frame: &impl Frame<'a>) -> Result<(), SessionError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.say_bytes(lane, &bytes).await
    }

    /// Says any bytes.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn say_bytes(&mut self, lane: Lane, bytes: &[u8]) -> Result<(), SessionError> {
        self.session.send(lane, bytes).await
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// How the session ended.
    pub async fn hear(&mut self) -> Result<Message, SessionError> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Ok(message);
            }
            self.session.receive(&mut self.batch).await?;
            self.heard.extend(self.batch.frames().map(|frame| Message {
                lane: frame.lane,
                frame_type: frame.frame_type,
                body: frame.body.to_vec(),
            }));
        }
    }

    /// Waits for the next frame, which is a refusal: of which request, and why.
    ///
    /// # Errors
    /// When it is something else.
    pub async fn hear_refusal(&mut self) -> anyhow::Result<(u64, Refusal)> {
        let message = self.hear().await?;
        let refused: Refused<'_> = message.decode()?;
        Ok((refused.request_id, Refusal::from(&refused)))
    }

    /// Waits for the end of the session, which the node closes: code and reason.
    ///
    /// # Errors
    /// When a frame comes, or it ends otherwise.
    pub async fn hear_close(&mut self) -> anyhow::Result<(u64, String)> {
        match self.hear().await {
            Ok(message) => bail!("heard {message:?} instead of the end"),
            Err(SessionError::ClosedByNode { code, reason }) => Ok((code, reason)),
            Err(other) => bail!("the session ended with {other}"),
        }
    }

    /// Submits a job, to be created, without waiting for the answer.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn submit(&mut self, request_id: u64, job: &JobBuilder) -> Result<(), SessionError> {
        let definition = job.definition();
        let partition = self.topology().partition_of(&definition.tenant, &definition.name);
        let mut spec = Vec::new();
        definition.spec().encode(&mut spec);
        let frame = SubmitJob {
            request_id,
            partition,
            mode: SubmitMode::Create,
            expected_revision: 0,
            idempotency_key: &[],
            idempotency_window_ms: 0,
            spec: &spec,
        };
        self.say(Lane::Control, &frame).await
    }

    /// Attaches as a worker with room for eight attempts.
    ///
    /// # Errors
    /// When the node does not agree.
    pub async fn attach(&mut self, instance: u128, pools: &str) -> anyhow::Result<()> {
        let attach = Attach { request_id: 1, instance: InstanceId(instance), capacity: 8, pools };
        self.say(Lane::Control, &attach).await?;
        self.hear().await?.decode::<Attached>().map(drop)
    }

    /// Completes an attempt on `lane`.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn complete(
        &mut self,
        lane: Lane,
        attempt: &DispatchHead,
        outcome: Outcome,
        output: &[u8],
    ) -> Result<(), SessionError> {
        let DispatchHead { job, fire_sequence, token, .. } = *attempt;
        let head = CompleteHead { job, fire_sequence, token, run_us: 1, outcome, error_bytes: 0 };
        self.say(lane, &Complete { head, error: "", output }).await
    }

    /// Asks the session's shard for one of its counters. The answer does not wait for the log. Other frames that come
    /// before it are kept for [`Peer::hear`].
    ///
    /// # Errors
    /// When the session has ended, or there is no such counter.
    pub async fn counter(&mut self, name: &str) -> anyhow::Result<u64> {
        let request_id = u64::MAX;
        self.say(Lane::Control, &ReadCounters { request_id }).await?;
        let mut others = VecDeque::new();
        let answer = loop {
            let message = self.hear().await?;
            if message.frame_type == FrameType::Counters {
                break message;
            }
            ensure!(others.len() < 1_000, "no counters among a thousand frames");
            others.push_back(message);
        };
        others.append(&mut self.heard);
        self.heard = others;
        let counters: Counters<'_> = answer.decode()?;
        let found = counters.entries().filter_map(Result::ok).find(|(found, _)| *found == name);
        found.map(|(_, value)| value).with_context(|| format!("there is no counter {name}"))
    }

    /// Whether a frame was heard that nobody has taken yet.
    pub fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }
}
