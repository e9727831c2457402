//! Entry points for arbitrary bytes: each takes what a stranger or a broken disk may present, and only panics if something is wrong.
//!
//! The bytes of corpora and mutations come from elsewhere. Invariants: no state is kept from one call to the next; equal bytes take the same
//! way. Deliberately absent: anything that needs files, sockets or a clock.

mod log;
mod snapshot;

pub use log::log;
pub use snapshot::snapshot;

use std::{path::Path, sync::Arc, time::Duration};
use tickwheel_engine::{
    partition::Partition,
    schedule::{Schedule, Zones},
    shard::{Directory, Effects, Identity, Input, PartitionLimits, Pool, Role, Shard, ShardConfig, Tenant},
};
use tickwheel_server::{
    import::{
        crontab::{self, Format},
        kubernetes, systemd,
    },
    jobs_file,
};
use tickwheel_wire::{
    Now, PartitionCount, PartitionId, Reader, SessionId, SessionRef, ShardId, Timestamp,
    event::Event,
    frame::{FrameHeader, FrameType, REQUEST_HEAD_BYTES},
};

/// A target: its name, which is also its corpus' folder, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 9] = [
    ("frames", frames),
    ("events", events),
    ("cron", cron),
    ("jobs_file", jobs_file),
    ("crontab", crontab),
    ("kubernetes", kubernetes),
    ("systemd", systemd),
    ("snapshot", snapshot),
    ("log", log),
];

/// The sessions that the frames of [`frames`] come from.
const ROLES: [Role; 3] = [Role::Client, Role::Worker, Role::Admin];
/// Moments at which expressions are evaluated: around both clock changes of a year, a leap day, and the ends of what can be said.
const MOMENTS_S: [u64; 5] = [0, 1_709_164_800, 1_774_742_400, 1_792_886_400, 253_370_764_800];

/// What a `Dispatch` and the worker's frames about it begin with: job, fire sequence and token.
const ATTEMPT_BYTES: usize = 24;
/// Flag of a header: the frame goes to the core as it is.
const AS_IT_IS: u16 = 0x8000;

/// Frames, one behind the other, as sessions of all roles send them to a core; time passes in between. The bits of each header's flags above
/// the lowest choose the session and the time. So that changed bytes reach what lies behind the first checks, requests are addressed to the
/// core's only partition, and what a worker reports is about the newest attempt that was dispatched, unless the flags forbid.
pub fn frames(mut bytes: &[u8]) {
    let tenants = ["default", "acme"].map(|name| Tenant { name: name.into(), weight: 1 });
    let pools = vec![Pool::shared("standard"), Pool::shared("high")];
    let directory = Arc::new(Directory::new(tenants.to_vec(), pools).expect("valid names"));
    let identities = ROLES.map(|role| identity(&directory, role));
    let count = PartitionCount::new(1).expect("a valid count");
    let config = ShardConfig::new(ShardId(0), 1, count, Arc::clone(&directory));
    let mut now = Now { wall: Timestamp::from_micros(1_767_225_600_000_000), monotonic: Duration::ZERO };
    let mut core = Shard::new(config, now);
    core.adopt(Partition::new(PartitionId(0), PartitionLimits::default()), now);
    let (mut effects, mut attempt, mut body) = (Effects::new(), None, Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<{ FrameHeader::BYTES }>() {
        let Ok(header) = FrameHeader::from_bytes(head) else { return };
        let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX).min(rest.len());
        body.clear();
        body.extend_from_slice(&rest[..body_bytes]);
        bytes = &rest[body_bytes..];
        if header.flags & AS_IT_IS == 0 {
            readdress(header.frame_type, &mut body, attempt);
        }
        let place = usize::from(header.flags >> 1) % ROLES.len();
        let session = SessionRef { shard: ShardId(0), session: SessionId(place as u64 + 1) };
        let identity = &identities[place];
        let input = Input::Frame { session, identity, lane: 0, frame_type: header.frame_type, body: &body };
        core.handle(now, input, &mut effects);
        core.fire(now, &mut effects);
        attempt = newest_dispatch(&effects).or(attempt);
        effects.clear();
        let passed = Duration::from_millis(u64::from(header.flags >> 3 & 0xfff));
        now = Now { wall: now.wall.saturating_add(passed), monotonic: now.monotonic + passed };
    }
    core.fire(now, &mut effects);
}

/// Changes where a frame goes, or which attempt it is about.
fn readdress(frame_type: u16, body: &mut [u8], attempt: Option<[u8; ATTEMPT_BYTES]>) {
    let reports = [FrameType::Complete, FrameType::Heartbeat, FrameType::Reattach];
    if frame_type >> 8 == FrameType::SubmitJob.number() >> 8 {
        if let Some(partition) = body.get_mut(REQUEST_HEAD_BYTES - 2..REQUEST_HEAD_BYTES) {
            partition.fill(0);
        }
        let place = body.get_mut(REQUEST_HEAD_BYTES..REQUEST_HEAD_BYTES + ATTEMPT_BYTES);
        if frame_type == FrameType::ReportStatus.number()
            && let (Some(place), Some(attempt)) = (place, attempt)
        {
            place.copy_from_slice(&attempt);
        }
    } else if reports.iter().any(|report| report.number() == frame_type)
        && let (Some(place), Some(attempt)) = (body.get_mut(..ATTEMPT_BYTES), attempt)
    {
        place.copy_from_slice(&attempt);
    }
}

/// The attempt of the last `Dispatch` among the outputs.
fn newest_dispatch(effects: &Effects) -> Option<[u8; ATTEMPT_BYTES]> {
    let mut newest = None;
    for output in effects.oldest().outputs() {
        let mut bytes = &effects.oldest().bytes()[output.range.clone()];
        while let Some((head, rest)) = bytes.split_first_chunk::<{ FrameHeader::BYTES }>() {
            let header = FrameHeader::from_bytes(head).expect("a core writes headers");
            let (body, behind) = rest.split_at(usize::try_from(header.body_bytes).expect("a bounded body"));
            bytes = behind;
            if header.frame_type == FrameType::Dispatch.number() {
                newest = body.first_chunk().copied();
            }
        }
    }
    newest
}

fn identity(directory: &Directory, role: Role) -> Identity {
    let pools: &[&str] = if role == Role::Worker { &["standard", "high"] } else { &[] };
    let tenant = (role == Role::Client).then_some("acme");
    directory.identify("fuzz", role, tenant, pools).expect("tenant and pools are known")
}

/// Events as the log holds them: what can be read is written as it was.
///
/// # Panics
/// If an event is not encoded as it was read.
pub fn events(bytes: &[u8]) {
    let (mut input, mut encoded) = (Reader::new(bytes), Vec::new());
    while let Ok(event) = Event::decode(&mut input) {
        event.encode(&mut encoded);
        assert!(bytes.starts_with(&encoded), "{event:?}");
    }
}

/// A cron expression and, in its first line, the name of its zone.
///
/// # Panics
/// If a next fire is not after the moment asked for, or is not the first.
pub fn cron(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (zone, expression) = text.split_once('\n').unwrap_or(("UTC", text));
    let Ok(schedule) = Schedule::cron(expression, zone, &mut Zones::new()) else { return };
    for moment in MOMENTS_S.map(|s| Timestamp::from_micros(s * 1_000_000)) {
        let Some(next) = schedule.next_after(moment) else { continue };
        assert!(next > moment, "{text:?}: {next:?} after {moment:?}");
        let before = Timestamp::from_micros(next.as_micros() - 1);
        assert_eq!(schedule.next_after(before), Some(next), "{text:?} after {moment:?}");
    }
}

/// A jobs file.
pub fn jobs_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = jobs_file::parse(text, "fuzz.toml", None);
    }
}

/// A crontab of either form.
pub fn crontab(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for format in [Format::User, Format::System] {
            let _ = crontab::import_in_zone(text, Path::new("/var/spool/cron/crontabs/fuzz"), format, "Europe/Berlin");
        }
    }
}

/// Manifests of Kubernetes.
pub fn kubernetes(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = kubernetes::import(text, Path::new("fuzz.yaml"));
    }
}

/// Units of systemd: each begins behind a line `=== PATH`, its path in their folder.
pub fn systemd(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let units = text.split("=== ").filter_map(|unit| unit.split_once('\n'));
    let texts = units.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let _ = systemd::import_texts(Path::new("fuzz"), texts, "Europe/Berlin");
}
