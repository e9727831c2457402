//! A client: does what the plan says with its jobs, one thing after the other for each job, repeats what was not answered, and
//! holds every answer against the reference model.

mod list;
mod stated;

use super::{
    auditor::Auditor,
    model::{Fact, Job},
    node::shard_address,
    plan::{Deed, Operation, Schedule, Stated},
    random::Stream,
    session::{Arrived, Session, Who},
    violation::{Promise, Violation, demand},
    world::{ActorContext, CONNECT_MAX},
};
use list::List;
use stated::Meant;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};
use tickwheel_net::Lane;
use tickwheel_wire::{
    FireSequence, JobId, PartitionId, Timestamp,
    frame::{
        Frame, FrameType,
        request::{
            BackfillJob, BackfillTaken, CancelExecution, Done, ExecutionState, ExecutionView, JobByName, JobCommand,
            JobVerb, JobView, PageEnd, RedriveExecution, RemoveCalendar, SetCalendar, SubmitJob, SubmitMode, Submitted,
            Watch,
        },
        session::{RefusalCode, Refused},
    },
    job::{JobSpec, ScheduleSpec},
    partition_of,
};

/// How long a client waits before it asks again after a refusal for lack of something.
const ASK_AGAIN: Duration = Duration::from_millis(700);

/// What a submission was told (job, revision, whether it was created), and until when its key is remembered.
type Told = Option<(JobId, u64, bool, Timestamp)>;

/// What a watch has shown: fire sequence and attempt, and whether it was running.
type Shown = ((u64, u16), bool);

/// A request on its way.
#[derive(Clone, Debug)]
struct Request {
    operation: Operation,
    partition: PartitionId,
    tenant: &'static str,
    bytes: Vec<u8>,
    asked_at: Duration,
    sent_count: u32,
    again_at: Option<Duration>,
    /// What the first submission with the same key was told, and until when that holds.
    first: Told,
    meant: Meant,
    /// What is to be cancelled that was in flight when it was asked for.
    cancelled: Option<(JobId, FireSequence)>,
    /// How many firings a backfill finds, at least and at most, if that is sure.
    backfilled: Option<(usize, usize)>,
    list: Option<List>,
}

impl Request {
    /// Writes down what is asked, about the job of this name as the model has it. `None`: there is nothing to ask.
    fn say(
        &mut self,
        request_id: u64,
        (name, model): (&str, Option<&Job>),
        is_sure: bool,
        context: &ActorContext<'_>,
    ) -> Option<()> {
        let Self { operation, partition, tenant, bytes, meant, cancelled, backfilled, list, .. } = self;
        let (partition, tenant) = (*partition, *tenant);
        match &operation.deed {
            Deed::Submit { definition, mode, stated, key } => {
                if *mode == SubmitMode::Upsert {
                    *meant = Meant::of_submission(*stated, model, is_sure);
                }
                let window_ms = |(window, _): (Duration, _)| u32::try_from(window.as_millis()).expect("short");
                let submit = SubmitJob {
                    request_id,
                    partition,
                    mode: *mode,
                    expected_revision: meant.expected.revision,
                    idempotency_key: if key.is_some() { operation.label.as_bytes() } else { &[] },
                    idempotency_window_ms: key.map_or(0, window_ms),
                    spec: &definition.encode(),
                };
                submit.encode(bytes);
            }
            Deed::Command(verb, stated) => {
                *meant = Meant::new(*stated, model, is_sure);
                let expected = meant.expected;
                JobCommand { request_id, partition, verb: *verb, tenant, name, expected }.encode(bytes);
            }
            Deed::Cancel => {
                let found = model?;
                let next = found.has_room().then_some(found.fire_sequence + 1);
                // Runs are short, so the low halves are all.
                let may_end: Vec<_> = found.flights.keys().map(|sequence| u64::from(*sequence)).chain(next).collect();
                let number = usize::try_from(request_id).expect("runs are short") % may_end.len();
                let fire_sequence = FireSequence(may_end[number]);
                *cancelled = (Some(fire_sequence.0) != next).then_some((found.id, fire_sequence));
                CancelExecution { request_id, partition, job: found.id, fire_sequence }.encode(bytes);
            }
            Deed::Redrive => {
                let found = model?;
                let newest = found.backlog.dead_letters.last().map(|letter| letter.0);
                let fire_sequence = FireSequence(newest.map_or(found.fire_sequence, u64::from));
                let redrive = RedriveExecution { request_id, partition, job: found.id, fire_sequence };
                // Said twice at once, as by a client in doubt: the second is refused.
                redrive.encode(bytes);
                redrive.encode(bytes);
            }
            Deed::Backfill(ago) => {
                let found = model?;
                let from = context.wall.saturating_sub(*ago);
                let until = found.third_firing_from(from);
                // Others may set its calendars meanwhile.
                let is_sure = is_sure && !found.excluded.names_calendars();
                *backfilled = is_sure.then(|| found.backfill_between(from, until, context.node_wall));
                let dry_run = false;
                BackfillJob { request_id, partition, tenant, name, from, until, dry_run }.encode(bytes);
            }
            Deed::Get => JobByName { request_id, partition, tenant, name }.encode(bytes),
            Deed::Watch => Watch { request_id, partition, tenant, name: "" }.encode(bytes),
            Deed::List(selector, limit, _) => *list = Some(List::new(*selector, *limit)),
            Deed::SetCalendar(name, exclusions) => {
                SetCalendar { request_id, partition, tenant, name, exclusions }.encode(bytes);
            }
            Deed::RemoveCalendar(name) => RemoveCalendar { request_id, partition, tenant, name }.encode(bytes),
        }
        Some(())
    }
}

/// What a client does with one job.
#[derive(Debug, Default)]
struct Errand {
    waiting: VecDeque<(Operation, Told)>,
    is_busy: bool,
    /// Something of its last request may still be on its way.
    is_doubtful: bool,
    /// Its tenant, from the first submission on.
    tenant: Option<&'static str>,
}

/// See the module.
pub struct Client {
    index: usize,
    session: Option<Session>,
    sessions: u16,
    is_welcome: bool,
    connected_at: Duration,
    connect_at: Option<Duration>,
    errands: BTreeMap<usize, Errand>,
    requests: BTreeMap<u64, Request>,
    /// What each watch last showed of each job; of one that has run beside itself, of each execution.
    watched: BTreeMap<(u64, JobId, u64), Shown>,
    watches: BTreeMap<u64, ()>,
    next_request: u64,
    stream: Stream,
}

impl Client {
    /// The client that does every `count`th job's operations.
    pub fn new(index: usize, count: usize, operations: &[Operation], seed: u64) -> Self {
        let mut errands: BTreeMap<usize, Errand> = BTreeMap::new();
        for operation in operations.iter().filter(|operation| operation.job % count == index) {
            let errand = errands.entry(operation.job).or_default();
            if let (None, Deed::Submit { definition, .. }) = (errand.tenant, &operation.deed) {
                errand.tenant = Some(definition.tenant);
            }
            errand.waiting.push_back((operation.clone(), None));
        }
        Self {
            index,
            session: None,
            sessions: 0,
            is_welcome: false,
            connected_at: Duration::ZERO,
            connect_at: Some(Duration::ZERO),
            errands,
            requests: BTreeMap::new(),
            watched: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_request: 1,
            stream: Stream::new(seed, "client", index as u64),
        }
    }

    /// Its session, if it has one.
    pub const fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Whether all that it had to do is done.
    pub fn is_done(&self) -> bool {
        self.requests.is_empty() && self.errands.values().all(|errand| errand.waiting.is_empty())
    }

    /// What it still waits for.
    pub fn waits_for(&self) -> String {
        let waiting: usize = self.errands.values().map(|errand| errand.waiting.len()).sum();
        let asked: Vec<_> = self.requests.values().map(|request| &request.operation).collect();
        format!("client-{} has {waiting} operations to do and waits for {asked:?}", self.index)
    }

    /// Looks once more at each of its jobs.
    pub fn look_at_everything(&mut self, now: Duration) {
        for (job, errand) in &mut self.errands {
            let operation = Operation { label: format!("look{job}"), at: now, job: *job, deed: Deed::Get };
            errand.waiting.push_back((operation, None));
        }
    }

    /// When it has something to do next.
    pub fn next_time(&mut self, base: std::time::Instant) -> Option<Duration> {
        let session = self.session.as_mut().and_then(Session::next_timeout);
        let session = session.map(|at| at.saturating_duration_since(base));
        if !self.is_welcome {
            let patience = self.session.as_ref().map(|_| self.connected_at + CONNECT_MAX);
            return [self.connect_at, patience, session].into_iter().flatten().min();
        }
        let idle = self.errands.values().filter(|errand| !errand.is_busy);
        let waiting = idle.filter_map(|errand| errand.waiting.front().map(|(operation, _)| operation.at));
        let again = self.requests.values().filter_map(|request| request.again_at);
        waiting.chain(again).chain(session).min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the node broke a promise.
    pub fn turn(&mut self, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let now = context.now;
        let patience_is_over = !self.is_welcome && now >= self.connected_at + CONNECT_MAX;
        if self.session.as_ref().is_some_and(|session| session.is_lost() || patience_is_over) {
            self.leave(now, 1, 1_500);
        }
        if self.session.is_none() && self.connect_at.is_some_and(|at| at <= now) {
            self.connect(context);
        }
        let frames = self.session.as_mut().map(Session::frames).unwrap_or_default();
        for frame in frames {
            self.take(&frame, context)?;
        }
        if self.is_welcome {
            self.ask(context);
        }
        Ok(())
    }

    fn leave(&mut self, now: Duration, min_ms: u64, max_ms: u64) {
        self.session = None;
        self.is_welcome = false;
        self.watches.clear();
        self.watched.clear();
        self.connect_at = Some(now + self.stream.millis(min_ms, max_ms));
    }

    fn connect(&mut self, context: &ActorContext<'_>) {
        self.connect_at = None;
        self.connected_at = context.now;
        self.sessions += 1;
        let number = u8::try_from(self.index).expect("few");
        let address = SocketAddr::from(([127, 0, 1, number], 10_000 + self.sessions));
        let shard = u16::try_from(self.stream.below(context.shards.max(1).into())).expect("few");
        let (seed, window_bytes) = (self.stream.draw(), context.auditor.settings().window_bytes);
        self.session =
            Some(Session::connect(context.instant(), Who::Admin, (address, shard_address(shard)), window_bytes, seed));
    }

    fn ask(&mut self, context: &mut ActorContext<'_>) {
        let now = context.now;
        let mut due = Vec::new();
        for (job, errand) in self.errands.iter_mut().filter(|(_, errand)| !errand.is_busy) {
            if errand.waiting.front().is_some_and(|(operation, _)| operation.at <= now) {
                due.push((*job, errand.waiting.pop_front().expect("it was looked at")));
            }
        }
        for (job, (operation, first)) in due {
            self.begin(job, operation, first, context);
        }
        let again: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| request.again_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in again {
            self.send(id);
        }
    }

    /// Sends a request, once more if need be.
    fn send(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.again_at = None;
        if let Some(session) = &mut self.session {
            request.sent_count += 1;
            if let Some(list) = &mut request.list {
                request.bytes = list.ask(id);
            }
            session.send_bytes(Lane::Control, &request.bytes);
        }
    }

    fn begin(&mut self, job: usize, operation: Operation, first: Told, context: &mut ActorContext<'_>) {
        let Some(errand) = self.errands.get(&job) else { return };
        let (Some(tenant), is_sure) = (errand.tenant, !errand.is_doubtful) else { return };
        let name = format!("job-{job}");
        let partition = partition_of(tenant, &name, context.partition_count);
        let model = context.auditor.partition(partition).job(tenant, &name);
        let mut request = Request {
            operation,
            partition,
            tenant,
            bytes: Vec::new(),
            asked_at: context.now,
            sent_count: 0,
            again_at: None,
            first,
            meant: Meant::new(Stated::Nothing, model, is_sure),
            cancelled: None,
            backfilled: None,
            list: None,
        };
        let request_id = self.next_request;
        self.next_request += 1;
        if request.say(request_id, (&name, model), is_sure, context).is_none() {
            return;
        }
        context.trace.note(
            context.now,
            format_args!("client-{}", self.index),
            format_args!(
                "asks {}: {:?} of {tenant}/{name} (partition {})",
                request.operation.label, request.operation.deed, partition.0
            ),
        );
        self.errands.get_mut(&job).expect("it was looked up").is_busy = true;
        self.requests.insert(request_id, request);
        self.send(request_id);
    }

    fn take(&mut self, frame: &Arrived, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let body = frame.body.as_slice();
        match FrameType::from_number(frame.frame_type) {
            Some(FrameType::Welcome) => {
                self.is_welcome = true;
                let ids: Vec<_> = self.requests.keys().copied().collect();
                ids.into_iter().for_each(|id| self.send(id));
            }
            Some(FrameType::Submitted) => {
                let answer = Submitted::decode_body(body).expect("the node encodes it");
                self.answered(answer.request_id, context, |request, context| {
                    check_submitted(request, &answer, context)
                })?;
            }
            Some(FrameType::Done) => {
                let answer = Done::decode_body(body).expect("the node encodes it");
                if self
                    .requests
                    .get(&answer.request_id)
                    .is_some_and(|request| matches!(request.operation.deed, Deed::Watch))
                {
                    self.watches.insert(answer.request_id, ());
                }
                self.answered(answer.request_id, context, |request, context| check_done(request, &answer, context))?;
            }
            Some(FrameType::BackfillTaken) => {
                let answer = BackfillTaken::decode_body(body).expect("the node encodes it");
                self.answered(answer.request_id, context, |request, context| {
                    check_backfill(request, &answer, context)
                })?;
            }
            Some(FrameType::JobView) => {
                let answer = JobView::decode_body(body).expect("the node encodes it");
                let request = self.requests.get_mut(&answer.request_id);
                if let Some(list) = request.and_then(|request| request.list.as_mut()) {
                    list.show(&answer);
                    return Ok(());
                }
                self.answered(answer.request_id, context, |request, context| check_view(request, &answer, context))?;
            }
            Some(FrameType::PageEnd) => {
                let end = PageEnd::decode_body(body).expect("the node encodes it");
                self.end_page(&end, context)?;
            }
            Some(FrameType::ExecutionView) => {
                let view = ExecutionView::decode_body(body).expect("the node encodes it");
                self.watch(&view, context.auditor)?;
            }
            Some(FrameType::Refused) => {
                let refused = Refused::decode_body(body).expect("the node encodes it");
                self.refused(&refused, context)?;
            }
            Some(FrameType::GoAway) => self.leave(context.now, 300, 2_000),
            _ => {}
        }
        Ok(())
    }

    /// A page of a list has come: the next is asked for, or what has to be done with the jobs that were shown is put in front of what else
    /// is to be done with them.
    fn end_page(&mut self, end: &PageEnd, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let Some(request) = self.requests.get_mut(&end.request_id) else { return Ok(()) };
        let Some(list) = &mut request.list else { return Ok(()) };
        if !list.end_page(end.cursor, context.partition_count)? {
            self.send(end.request_id);
            return Ok(());
        }
        let (list, operation) = (list.clone(), request.operation.clone());
        self.answered(end.request_id, context, |request, context| {
            list.check(request.asked_at, context.auditor).map(|()| None)
        })?;
        let Deed::List(_, _, Some(verb)) = operation.deed else { return Ok(()) };
        for row in list.rows() {
            let job = row.name.strip_prefix("job-").and_then(|number| number.parse().ok()).expect("a plan's name");
            let errand = self.errands.get_mut(&job).filter(|errand| errand.tenant == Some(row.tenant.as_str()));
            let Some(errand) = errand else { continue };
            let deed = Deed::Command(verb, Stated::Seen(row.job, row.revision));
            let label = format!("{}/{}", operation.label, row.name);
            errand.waiting.push_front((Operation { label, at: context.now, job, deed }, None));
        }
        Ok(())
    }

    /// An answer has come: it is checked, and the job's next operation may follow.
    fn answered(
        &mut self,
        id: u64,
        context: &mut ActorContext<'_>,
        check: impl FnOnce(&Request, &mut ActorContext<'_>) -> Result<Told, Violation>,
    ) -> Result<(), Violation> {
        // A request that was sent again may be answered twice.
        let Some(request) = self.requests.remove(&id) else { return Ok(()) };
        context.auditor.tally.answers += 1;
        let first = check(&request, context).map_err(|violation| Violation {
            what: format!("{} (client-{}, {:?})", violation.what, self.index, request.operation),
            ..violation
        })?;
        context.trace.note(
            context.now,
            format_args!("client-{}", self.index),
            format_args!("is answered {}", request.operation.label),
        );
        let Some(errand) = self.errands.get_mut(&request.operation.job) else { return Ok(()) };
        errand.is_busy = false;
        errand.is_doubtful =
            request.list.is_none() && request.sent_count > 1 || request.operation.deed == Deed::Redrive;
        // A submission with a key is made once more, within its window.
        if let (Some(told), Deed::Submit { key: Some((_, after)), .. }, None) =
            (first, &request.operation.deed, request.first)
        {
            let at = context.now + *after;
            errand.waiting.push_front((Operation { at, ..request.operation.clone() }, Some(told)));
        }
        Ok(())
    }

    fn refused(&mut self, refused: &Refused<'_>, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let Some(request) = self.requests.get_mut(&refused.request_id) else { return Ok(()) };
        context.trace.note(
            context.now,
            format_args!("client-{}", self.index),
            format_args!("is refused {}: {} {}", request.operation.label, refused.code, refused.message),
        );
        if matches!(refused.code, RefusalCode::OutOfSpace | RefusalCode::Draining | RefusalCode::Overloaded) {
            request.again_at = Some(context.now + ASK_AGAIN);
            return Ok(());
        }
        let code = refused.code;
        self.answered(refused.request_id, context, |request, context| check_refused(request, code, context))
    }

    /// What a watch shows of an execution goes forward only, and no attempt begins before the end of the last one was shown. So it is with
    /// all executions of a job of which one at a time may be in flight.
    fn watch(&mut self, view: &ExecutionView<'_>, auditor: &Auditor) -> Result<(), Violation> {
        if !self.watches.contains_key(&view.request_id) {
            return Ok(());
        }
        let attempt = (view.fire_sequence.0, view.attempt);
        let is_running = view.state == ExecutionState::Running;
        let found = auditor.partition(view.job.partition()).job_by_id(view.job);
        let beside = if found.is_some_and(|found| !found.has_allowed) { 0 } else { view.fire_sequence.0 };
        let last = self.watched.insert((view.request_id, view.job, beside), (attempt, is_running));
        let Some((last, was_running)) = last else { return Ok(()) };
        let name = view.name;
        demand!(last <= attempt, Answers, "a watch of {name} showed {last:?} and then {attempt:?}");
        demand!(!was_running || last == attempt, Answers, "a watch of {name} did not show the end of {last:?}");
        Ok(())
    }
}

/// The request's job as the model has it.
fn job_of<'a>(request: &Request, context: &'a ActorContext<'_>) -> Option<&'a Job> {
    let name = format!("job-{}", request.operation.job);
    context.auditor.partition(request.partition).job(request.tenant, &name)
}

fn check_submitted(request: &Request, answer: &Submitted, context: &mut ActorContext<'_>) -> Result<Told, Violation> {
    let Submitted { job, revision, created, .. } = *answer;
    let Deed::Submit { definition, mode, stated, .. } = &request.operation.deed else {
        return Err(Violation::new(Promise::Answers, format!("{:?} is answered `submitted`", request.operation)));
    };
    if context.auditor.has_lied {
        return Ok(None);
    }
    context.auditor.partition_mut(request.partition).tell(Fact::Revision(job, revision))?;
    let is_conflict = *stated == Stated::OtherRevision && *mode == SubmitMode::Upsert && request.first.is_none();
    demand!(!is_conflict, Answers, "a wrong revision was accepted");
    if let Some((first_job, first_revision, first_created, until)) = request.first {
        let is_same = (job, revision, created) == (first_job, first_revision, first_created);
        demand!(
            is_same || context.wall >= until,
            Jobs,
            "the second submission with a key made {job} revision {revision}, the first {first_job} {first_revision}"
        );
        return Ok(None);
    }
    let Some(found) = context.auditor.partition(request.partition).job_by_id(job) else { return Ok(None) };
    demand!(found.revision == revision, Jobs, "the answer tells revision {revision}, the job has {}", found.revision);
    demand!(found.spec.0 == definition.encode(), Jobs, "the job is not what was submitted: {found:?}");
    demand!(created == (revision == 1), Answers, "`created` is {created} for revision {revision}");
    Ok(Some((job, revision, created, found.key_until)))
}

fn check_done(request: &Request, answer: &Done, context: &mut ActorContext<'_>) -> Result<Told, Violation> {
    if context.auditor.has_lied {
        return Ok(None);
    }
    match &request.operation.deed {
        Deed::Command(verb, _) => {
            request.meant.check_done()?;
            let model = context.auditor.partition_mut(request.partition);
            model.tell_done(answer.job);
            let found = model.job_by_id(answer.job);
            match verb {
                JobVerb::Pause => {
                    demand!(found.is_none_or(|job| job.is_paused), Jobs, "paused, but the job is not");
                }
                JobVerb::Resume => {
                    demand!(found.is_none_or(|job| !job.is_paused), Jobs, "resumed, but the job is not");
                }
                JobVerb::Delete => demand!(found.is_none(), Jobs, "deleted, but the job is there"),
                JobVerb::Trigger | JobVerb::ClearBacklog => {}
            }
        }
        Deed::Cancel | Deed::Redrive => context.auditor.partition_mut(request.partition).tell_done(answer.job),
        Deed::SetCalendar(name, entries) => {
            let model = context.auditor.partition_mut(request.partition);
            model.tell_calendar((request.tenant, name), Some(entries), request.asked_at)?;
        }
        Deed::RemoveCalendar(name) => {
            let model = context.auditor.partition_mut(request.partition);
            model.tell_calendar((request.tenant, name), None, request.asked_at)?;
        }
        Deed::Watch => {}
        Deed::Submit { .. } | Deed::Get | Deed::Backfill(_) | Deed::List(..) => {
            return Err(Violation::new(Promise::Answers, "answered `done`"));
        }
    }
    Ok(None)
}

fn check_backfill(
    request: &Request,
    answer: &BackfillTaken,
    context: &mut ActorContext<'_>,
) -> Result<Told, Violation> {
    demand!(matches!(request.operation.deed, Deed::Backfill(_)), Answers, "answered with a backfill");
    if context.auditor.has_lied {
        return Ok(None);
    }
    if let Some((least, most)) = request.backfilled.filter(|_| request.sent_count == 1) {
        let count = answer.count as usize;
        demand!((least..=most).contains(&count), Accounted, "{count} firings were found, there are {least} to {most}");
    }
    if answer.count > 0 {
        context.auditor.partition_mut(request.partition).tell_done(answer.job);
    }
    Ok(None)
}

fn check_view(request: &Request, view: &JobView<'_>, context: &mut ActorContext<'_>) -> Result<Told, Violation> {
    demand!(matches!(request.operation.deed, Deed::Get), Answers, "answered with a job");
    if context.auditor.has_lied {
        return Ok(None);
    }
    context.auditor.partition_mut(request.partition).tell(Fact::Revision(view.job, view.revision))?;
    let Some(found) = context.auditor.partition(request.partition).job_by_id(view.job) else { return Ok(None) };
    // Only schedules are shown in other words: relative times are resolved.
    let decode = |bytes| JobSpec::decode(bytes).expect("the node encodes it");
    let (shown, submitted) = (decode(view.spec), decode(&found.spec.0));
    demand!(
        found.revision == view.revision
            && found.is_paused == view.paused
            && shown.schedules().map(unresolved).eq(submitted.schedules().map(unresolved))
            && JobSpec { schedule: submitted.schedule, also: submitted.also, paused: submitted.paused, ..shown }
                == submitted,
        Jobs,
        "shown is {view:?}, the job is {found:?}"
    );
    demand!(view.fire_sequence.0 <= found.fire_sequence, Answers, "firing {} is shown", view.fire_sequence.0);
    Ok(None)
}

/// The schedule without what is resolved in it.
const fn unresolved(schedule: ScheduleSpec<'_>) -> ScheduleSpec<'_> {
    match schedule {
        ScheduleSpec::Interval { every_us, .. } => ScheduleSpec::Interval { every_us, anchor: Timestamp::MAX },
        ScheduleSpec::After { .. } | ScheduleSpec::Once { .. } => ScheduleSpec::Once { at: Timestamp::MAX },
        other => other,
    }
}

/// Whether what the request was to cancel has been in flight all the time.
fn is_in_flight(request: &Request, context: &ActorContext<'_>) -> bool {
    let Some((job, FireSequence(sequence))) = request.cancelled else { return false };
    let found = context.auditor.partition(request.partition).job_by_id(job);
    found.is_some_and(|found| found.flights.keys().any(|known| u64::from(*known) == sequence))
}

fn check_refused(request: &Request, code: RefusalCode, context: &mut ActorContext<'_>) -> Result<Told, Violation> {
    // What was sent more than once may have been done before.
    let is_repeated = request.sent_count > 1;
    let found = job_of(request, context).cloned();
    let name = format!("job-{}", request.operation.job);
    let has_had = context.auditor.partition(request.partition).has_had(request.tenant, &name, request.asked_at);
    let expected = match (&request.operation.deed, code) {
        _ if context.auditor.has_lied => true,
        (Deed::Submit { mode: SubmitMode::Create, .. }, RefusalCode::AlreadyExists) => match request.first {
            Some((.., until)) => context.wall >= until,
            None => is_repeated || has_had,
        },
        (Deed::Submit { .. } | Deed::Command(..), RefusalCode::RevisionConflict) => {
            context.auditor.tally.conflicts += 1;
            request.meant.check_unchanged(is_repeated, context.auditor)?;
            request.meant.may_conflict(job_of(request, context), is_repeated)
        }
        (Deed::Submit { definition, .. }, RefusalCode::NeverFires) => {
            let bytes = definition.encode();
            let spec = JobSpec::decode(&bytes).expect("a plan's definition");
            let calendars = &context.auditor.partition(request.partition).calendars;
            // The time that a delay counts from is that of the decision, which may have been any since it was asked for.
            let is_relative = matches!(definition.schedule, Schedule::After(_)) && !spec.exclusions.is_empty();
            let is_sure = !is_relative && !calendars.may_lack(&spec, request.asked_at);
            !is_sure || Job::proposed(&spec, context.wall, calendars).first_firing(context.wall).is_never()
        }
        (Deed::Submit { definition, .. }, RefusalCode::InvalidField) => {
            let bytes = definition.encode();
            let spec = JobSpec::decode(&bytes).expect("a plan's definition");
            let calendars = &context.auditor.partition(request.partition).calendars;
            calendars.may_lack(&spec, request.asked_at)
        }
        (Deed::RemoveCalendar(name), RefusalCode::UnknownCalendar) => {
            let calendars = &context.auditor.partition(request.partition).calendars;
            let may_have_changed = calendars.may_have_changed(request.tenant, name, request.asked_at);
            is_repeated || may_have_changed || calendars.get(request.tenant, name).is_none()
        }
        (Deed::Command(..) | Deed::Get | Deed::Cancel | Deed::Redrive | Deed::Backfill(_), RefusalCode::UnknownJob) => {
            is_repeated || found.is_none()
        }
        // A fixed delay has no past.
        (Deed::Backfill(_), RefusalCode::InvalidField) => true,
        (Deed::Cancel, RefusalCode::UnknownExecution) => is_repeated || !is_in_flight(request, context),
        (Deed::Command(JobVerb::Trigger, _), RefusalCode::OverlapSkipped)
        | (Deed::Redrive, RefusalCode::UnknownExecution) => true,
        _ => false,
    };
    demand!(expected, Answers, "refused with `{code}`; the job is {found:?}");
    Ok(None)
}
