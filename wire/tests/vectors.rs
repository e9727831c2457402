//! The protocol's document, its test vectors and the code say the same.
//!
//! Each vector of `docs/protocol-vectors.txt` is built here from its fields, encoded, decoded, and compared both ways. The tables of
//! `docs/protocol.md` are read as a client in another language would read them: the fields of a frame, in the order, with the
//! types and at the offsets of its table, have to give the vector's bytes, and the numbers have to be those of the code. Close codes
//! are tested where they live, in `net`.

use std::{cell::Cell, fmt::Debug};
use tickwheel_wire::{
    FireSequence, InstanceId, JobId, PartitionCount, PartitionId, Reader, Timestamp, Token,
    frame::{Frame, FrameHeader, FrameType, request::*, session::*, work::*},
    job::{
        DayRule, DstGap, DstOverlap, JobSpec, JobSpecError, JobState, JobStates, Misfire, Overlap, Priority,
        RetryPolicy, ScheduleList, ScheduleSpec,
    },
    limits, name_hash, partition_of,
};

const VECTORS: &str = include_str!("../../docs/protocol-vectors.txt");
const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// One line of the vectors.
struct Vector {
    kind: &'static str,
    name: &'static str,
    fields: Vec<(&'static str, Value)>,
    bytes: Vec<u8>,
    /// How many fields were taken.
    taken: Cell<usize>,
}

/// A field's value as it is written, without quotation marks, and the bytes that it stands for if it is no number.
struct Value {
    text: &'static str,
    bytes: Vec<u8>,
}

impl Vector {
    /// The next field, which has this name.
    fn take(&self, name: &str) -> &Value {
        let (found, value) = self.fields.get(self.taken.get()).unwrap_or_else(|| panic!("{self:?} lacks `{name}`"));
        assert_eq!(*found, name, "{self:?}");
        self.taken.set(self.taken.get() + 1);
        value
    }

    fn is_taken(&self) -> bool {
        self.taken.get() == self.fields.len()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find_map(|(field, value)| (*field == name).then_some(value))
    }

    fn finish(&self) {
        assert!(self.is_taken(), "{self:?} has fields that its type has not");
    }
}

impl Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the vector {} {}", self.kind, self.name)
    }
}

fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    for line in VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&'static str> = line.split(" | ").collect();
        let [kind, name, fields, bytes] = columns[..] else { panic!("four columns: {line}") };
        let fields = parse_fields(fields, &vectors);
        vectors.push(Vector { kind, name, fields, bytes: parse_hex(bytes), taken: Cell::new(0) });
    }
    vectors
}

fn parse_fields(mut text: &'static str, earlier: &[Vector]) -> Vec<(&'static str, Value)> {
    let mut fields = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let length = match rest.as_bytes()[0] {
            b'"' => rest[1..].find('"').expect("a closing quotation mark") + 2,
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        fields.push((name, parse_value(&rest[..length], earlier)));
        text = rest[length..].trim_start();
    }
    assert!(text.is_empty(), "not a field: {text}");
    fields
}

fn parse_value(text: &'static str, earlier: &[Vector]) -> Value {
    let unquoted = text.trim_matches('"');
    let bytes = if let Some(hex) = text.strip_prefix("hex:") {
        parse_hex(hex)
    } else if let Some(name) = text.strip_prefix("job:") {
        let job = earlier.iter().find(|vector| vector.kind == "job" && vector.name == name);
        job.unwrap_or_else(|| panic!("no job vector {name}")).bytes.clone()
    } else if let Some(numbers) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        numbers.split(',').flat_map(|number| number.parse::<u16>().unwrap().to_le_bytes()).collect()
    } else if let Some(counters) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let mut bytes = Vec::new();
        for (name, value) in counters.split(',').filter_map(|counter| counter.split_once(':')) {
            Counters::push(&mut bytes, name, value.parse().unwrap());
        }
        bytes
    } else {
        unquoted.as_bytes().to_vec()
    };
    Value { text: unquoted, bytes }
}

fn parse_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "whole bytes: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn parse_number(text: &str) -> u128 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16),
        None if text == "never" => return u64::MAX.into(),
        None => text.parse(),
    };
    number.unwrap_or_else(|_| panic!("no number: {text}"))
}

fn parse_job(text: &str) -> JobId {
    let parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
    let [partition, slot, generation] = parts[..] else { panic!("no job id: {text}") };
    JobId::new(PartitionId(u16::try_from(partition).unwrap()), generation, slot)
}

/// What a field of a struct is made from.
trait FromValue<'a> {
    fn from_value(value: &'a Value) -> Self;
}

macro_rules! from_value {
    ($($type:ty: $value:ident => $to:expr;)*) => {$(
        impl<'a> FromValue<'a> for $type {
            fn from_value($value: &'a Value) -> Self {
                $to
            }
        }
    )*};
}

from_value! {
    u8: value => Self::try_from(parse_number(value.text)).unwrap();
    u16: value => Self::try_from(parse_number(value.text)).unwrap();
    u32: value => Self::try_from(parse_number(value.text)).unwrap();
    u64: value => Self::try_from(parse_number(value.text)).unwrap();
    u128: value => parse_number(value.text);
    bool: value => value.text.parse().unwrap();
    &'a str: value => str::from_utf8(&value.bytes).unwrap();
    &'a [u8]: value => &value.bytes;
    Timestamp: value => Self::from_micros(FromValue::from_value(value));
    JobId: value => parse_job(value.text);
    PartitionId: value => Self(FromValue::from_value(value));
    FireSequence: value => Self(FromValue::from_value(value));
    Token: value => Self(FromValue::from_value(value));
    InstanceId: value => Self(FromValue::from_value(value));
    SubmitMode: value => Self::from_name(value.text).unwrap();
    JobVerb: value => Self::from_name(value.text).unwrap();
    ExecutionState: value => Self::from_name(value.text).unwrap();
    RefusalCode: value => Self::from_name(value.text).unwrap();
    JobStates: value => {
        let number: u8 = FromValue::from_value(value);
        JobState::ALL.iter().copied().filter(|state| number & state.number() != 0).collect()
    };
    Priority: value => Self::from_name(value.text).unwrap();
    Misfire: value => Self::from_name(value.text).unwrap();
    Overlap: value => Self::from_name(value.text).unwrap();
    DstGap: value => Self::from_name(value.text).unwrap();
    DayRule: value => Self::from_name(value.text).unwrap();
    DstOverlap: value => Self::from_name(value.text).unwrap();
    Outcome: value => Self::from_name(value.text).unwrap();
    Verdict: value => Self::from_name(value.text).unwrap();
    CancelReason: value => Self::from_name(value.text).unwrap();
}

/// A struct from the next fields of a vector, in order; of a second one all fields may be absent.
macro_rules! build {
    ($vector:ident, $type:ident { $($field:ident)* } $(, $last:ident: $trailing:ident { $($more:ident)* })?) => {
        $type {
            $($field: FromValue::from_value($vector.take(stringify!($field))),)*
            $($last: if $vector.is_taken() { $trailing::default() } else { build!($vector, $trailing { $($more)* }) },)?
        }
    };
}

fn check<'a, F: Frame<'a> + PartialEq + Debug>(vector: &'a Vector, frame: &F) {
    vector.finish();
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes, vector.bytes, "{vector:?} is encoded");
    let (head, body) = vector.bytes.split_first_chunk().expect("a header");
    let header = FrameHeader::from_bytes(head).unwrap();
    assert_eq!((header.body_bytes as usize, header.frame_type), (body.len(), F::TYPE.number()), "{vector:?}");
    let is_skippable = matches!(F::TYPE, FrameType::ReportStatus | FrameType::Remark);
    assert_eq!(header.flags, if is_skippable { 0 } else { FrameHeader::CRITICAL }, "{vector:?}");
    assert_eq!(F::decode_body(body).as_ref(), Ok(frame), "{vector:?} is decoded");
}

fn check_frame(v: &Vector) {
    let frame_type = FrameType::from_name(v.name).unwrap_or_else(|| panic!("{v:?} has no type"));
    match frame_type.number() >> 8 {
        0 => check_session_frame(v, frame_type),
        1 => check_request(v, frame_type),
        2 => check_answer(v, frame_type),
        _ => check_work_frame(v, frame_type),
    }
}

fn check_session_frame(v: &Vector, frame_type: FrameType) {
    match frame_type {
        FrameType::Hello => check(v, &build!(v, Hello { version_min version_max software })),
        FrameType::Welcome => {
            let welcome = build!(v, Welcome {
                version cluster shard frame_bytes_max payload_bytes_max tenant shard_ports partition_shards
            });
            check(v, &welcome);
        }
        FrameType::Refused => check(v, &build!(v, Refused { request_id code detail field message })),
        FrameType::GoAway => check(v, &build!(v, GoAway { retry_ms message })),
        other => panic!("{other} is no frame of a session"),
    }
}

fn check_request(v: &Vector, frame_type: FrameType) {
    match frame_type {
        FrameType::SubmitJob => {
            let submit = build!(v, SubmitJob {
                request_id partition mode expected_revision idempotency_key idempotency_window_ms spec
            });
            check(v, &submit);
        }
        FrameType::JobCommand => {
            let command = build!(v, JobCommand { request_id partition verb tenant name },
                expected: ExpectedJob { job revision });
            check(v, &command);
        }
        FrameType::JobByName => check(v, &build!(v, JobByName { request_id partition tenant name })),
        FrameType::ListJobs => {
            let list = build!(v, ListJobs { request_id partition tenant prefix cursor limit },
                selection: JobSelection { labels states });
            check(v, &list);
        }
        FrameType::ListExecutions => {
            let list = build!(v, ListExecutions { request_id partition tenant name cursor limit },
                selection: ExecutionSelection { prefix labels in_flight });
            check(v, &list);
        }
        FrameType::ExecutionById => check(v, &build!(v, ExecutionById { request_id partition job fire_sequence })),
        FrameType::CancelExecution => check(v, &build!(v, CancelExecution { request_id partition job fire_sequence })),
        FrameType::Watch => check(v, &build!(v, Watch { request_id partition tenant name })),
        FrameType::Unwatch => check(v, &build!(v, Unwatch { request_id partition watch })),
        FrameType::ReadCounters => check(v, &build!(v, ReadCounters { request_id })),
        FrameType::ListDeadLetters => {
            let list = build!(v, ListDeadLetters { request_id partition tenant prefix cursor limit },
                selection: LetterSelection { labels states since until error oldest_first });
            check(v, &list);
        }
        FrameType::RedriveExecution => {
            check(v, &build!(v, RedriveExecution { request_id partition job fire_sequence }));
        }
        FrameType::BackfillJob => {
            check(v, &build!(v, BackfillJob { request_id partition tenant name from until dry_run }));
        }
        FrameType::ReportStatus => {
            check(v, &build!(v, ReportStatus { request_id partition job fire_sequence token status }));
        }
        FrameType::SetCalendar => check(v, &build!(v, SetCalendar { request_id partition tenant name exclusions })),
        FrameType::RemoveCalendar => check(v, &build!(v, RemoveCalendar { request_id partition tenant name })),
        FrameType::ListCalendars => check(v, &build!(v, ListCalendars { request_id partition tenant cursor limit })),
        other => panic!("{other} is no request"),
    }
}

fn check_answer(v: &Vector, frame_type: FrameType) {
    match frame_type {
        FrameType::Submitted => check(v, &build!(v, Submitted { request_id job revision next_fire created })),
        FrameType::Done => check(v, &build!(v, Done { request_id job next_fire })),
        FrameType::JobView => {
            let view = build!(v, JobView {
                request_id job revision paused created_at next_fire fire_sequence last_state last_finished_at spec
            });
            check(v, &view);
        }
        FrameType::PageEnd => check(v, &build!(v, PageEnd { request_id cursor })),
        FrameType::ExecutionView => {
            let view = build!(v, ExecutionView {
                request_id job fire_sequence token attempt state cancel_requested progress_permille
                scheduled_at dispatched_at finished_at run_us tenant name worker error output
            });
            check(v, &view);
        }
        FrameType::Counters => check(v, &build!(v, Counters { request_id shard counters })),
        FrameType::BackfillTaken => check(v, &build!(v, BackfillTaken { request_id job count until backlog })),
        FrameType::Remark => check(v, &build!(v, Remark { request_id paused_after_failures status })),
        FrameType::CalendarView => check(v, &build!(v, CalendarView { request_id tenant name exclusions })),
        other => panic!("{other} is no answer"),
    }
}

fn check_work_frame(v: &Vector, frame_type: FrameType) {
    match frame_type {
        FrameType::Attach => check(v, &build!(v, Attach { request_id instance capacity pools })),
        FrameType::Attached => check(v, &build!(v, Attached { request_id reattach_ms })),
        FrameType::Dispatch => {
            let head = build!(v, DispatchHead {
                job fire_sequence token scheduled_at start_to_close_ms heartbeat_ms attempt priority
                tenant_bytes name_bytes handler_bytes
            });
            let [tenant, name, handler] = ["tenant", "name", "handler"].map(|field| v.take(field).text);
            check(v, &Dispatch { head, tenant, name, handler, payload: &v.take("payload").bytes });
        }
        FrameType::Complete => {
            let head = build!(v, CompleteHead { job fire_sequence token run_us outcome error_bytes });
            check(v, &Complete { head, error: v.take("error").text, output: &v.take("output").bytes });
        }
        FrameType::Completed => check(v, &build!(v, Completed { job fire_sequence token verdict })),
        FrameType::Heartbeat => check(v, &build!(v, Heartbeat { job fire_sequence token progress_permille })),
        FrameType::CancelAttempt => check(v, &build!(v, CancelAttempt { job fire_sequence token reason })),
        FrameType::Reattach => check(v, &build!(v, Reattach { job fire_sequence token })),
        FrameType::Reattached => check(v, &build!(v, Reattached { job fire_sequence token verdict })),
        FrameType::Capacity => check(v, &build!(v, Capacity { capacity })),
        other => panic!("{other} is no work"),
    }
}

fn check_job(vector: &Vector) {
    let none = ScheduleSpec::After { delay_us: u64::MAX };
    let mut spec = JobSpec::new("", "", "", none);
    for (name, value) in &vector.fields {
        let number = || FromValue::from_value(value);
        match *name {
            "tenant" => spec.tenant = value.text,
            "name" => spec.name = value.text,
            "handler" => spec.handler = value.text,
            "cron" => {
                spec.schedule = ScheduleSpec::Cron { expression: value.text, zone: vector.value("zone").unwrap().text };
            }
            "every_us" => {
                let anchor = FromValue::from_value(vector.value("anchor").unwrap());
                spec.schedule = ScheduleSpec::Interval { every_us: number(), anchor };
            }
            "zone" | "anchor" => {}
            "at" => spec.schedule = ScheduleSpec::Once { at: FromValue::from_value(value) },
            "delay_us" => spec.schedule = ScheduleSpec::After { delay_us: number() },
            "fixed_delay_us" => spec.schedule = ScheduleSpec::FixedDelay { delay_us: number() },
            "exclusions" => spec.exclusions = str::from_utf8(&value.bytes).unwrap(),
            "also" => spec.also = ScheduleList::decode(&value.bytes).unwrap(),
            "non_retryable" => spec.non_retryable = value.text,
            "misfire" => spec.rules.misfire = FromValue::from_value(value),
            "misfire_max" => spec.rules.misfire_max = FromValue::from_value(value),
            "misfire_grace_ms" => spec.rules.misfire_grace_ms = FromValue::from_value(value),
            "overlap" => spec.rules.overlap = FromValue::from_value(value),
            "overlap_max" => spec.rules.overlap_max = FromValue::from_value(value),
            "schedule_to_start_ms" => spec.rules.schedule_to_start_ms = FromValue::from_value(value),
            "pause_after_failures" => spec.rules.pause_after_failures = FromValue::from_value(value),
            "starts_at" => spec.rules.starts_at = FromValue::from_value(value),
            "ends_at" => spec.rules.ends_at = FromValue::from_value(value),
            "executions_max" => spec.rules.executions_max = FromValue::from_value(value),
            "jitter_ms" => spec.rules.jitter_ms = FromValue::from_value(value),
            "dst_gap" => spec.rules.dst_gap = FromValue::from_value(value),
            "dst_overlap" => spec.rules.dst_overlap = FromValue::from_value(value),
            "day_rule" => spec.rules.day_rule = FromValue::from_value(value),
            "payload" => spec.payload = &value.bytes,
            "pool" => spec.pool = value.text,
            "priority" => spec.priority = FromValue::from_value(value),
            "attempts_max" => spec.retry.attempts_max = FromValue::from_value(value),
            "initial_ms" => spec.retry.initial_ms = FromValue::from_value(value),
            "multiplier_milli" => spec.retry.multiplier_milli = FromValue::from_value(value),
            "delay_ms_max" => spec.retry.delay_ms_max = FromValue::from_value(value),
            "jitter_percent" => spec.retry.jitter_percent = FromValue::from_value(value),
            "start_to_close_ms" => spec.start_to_close_ms = FromValue::from_value(value),
            "heartbeat_ms" => spec.heartbeat_ms = FromValue::from_value(value),
            "paused" => spec.paused = FromValue::from_value(value),
            "labels" => spec.labels = value.text,
            other => panic!("{vector:?} has an unknown field {other}"),
        }
    }
    let mut bytes = Vec::new();
    spec.encode(&mut bytes);
    assert_eq!(bytes, vector.bytes, "{vector:?} is encoded");
    assert_eq!(JobSpec::decode(&vector.bytes), Ok(spec), "{vector:?} is decoded");
    assert_eq!(spec.validate(limits::PAYLOAD_BYTES_MAX), Ok(()), "{vector:?} is valid");
}

fn check_id(vector: &Vector) {
    let partition = FromValue::from_value(vector.take("partition"));
    let generation = FromValue::from_value(vector.take("generation"));
    let job = JobId::new(partition, generation, FromValue::from_value(vector.take("slot")));
    vector.finish();
    assert_eq!(job.raw().to_le_bytes(), *vector.bytes, "{vector:?}");
    assert_eq!(job.to_string(), vector.name);
}

fn check_hash(vector: &Vector) {
    let (tenant, name) = (vector.take("tenant").text, vector.take("name").text);
    assert_eq!([tenant.as_bytes(), &[0], name.as_bytes()].concat(), vector.bytes, "{vector:?}");
    assert_eq!(u128::from(name_hash(tenant, name)), parse_number(vector.take("hash").text), "{vector:?}");
    for count in [1, 16, 256, 4096] {
        let partition = FromValue::from_value(vector.take(&format!("of_{count}")));
        assert_eq!(partition_of(tenant, name, PartitionCount::new(count).unwrap()), partition, "{vector:?}");
    }
    vector.finish();
}

#[test]
fn every_vector_is_encoded_and_decoded_as_it_is_written() {
    for vector in &vectors() {
        match vector.kind {
            "frame" => check_frame(vector),
            "job" => check_job(vector),
            "id" => check_id(vector),
            "hash" => check_hash(vector),
            other => panic!("unknown kind {other}"),
        }
    }
}

#[test]
fn every_frame_type_has_a_vector() {
    let vectors = vectors();
    for frame_type in FrameType::ALL {
        let found = vectors.iter().any(|vector| vector.kind == "frame" && vector.name == frame_type.name());
        assert!(found, "{frame_type} has no vector");
    }
    for kind in ["job", "id", "hash"] {
        assert!(vectors.iter().filter(|vector| vector.kind == kind).count() > 3, "{kind} has few vectors");
    }
}

/// The rows of the first table behind the line `heading` of the document, without its head and without marks of code.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != heading).skip(1);
    let is_row = |line: &&str| line.starts_with('|');
    let first = lines.by_ref().skip_while(|line| !line.starts_with('|') && !line.starts_with('#')).find(is_row);
    assert!(first.is_some(), "the document has no table under `{heading}`");
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    // The line behind the head only draws it.
    lines.take_while(is_row).skip(1).map(cells).collect()
}

fn document_number(text: &str) -> u64 {
    let digits = text.replace(',', "");
    let digits = digits.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
    u64::try_from(parse_number(digits)).unwrap()
}

/// How many bytes a type of the document takes, if that is fixed.
fn fixed_bytes(kind: &str) -> Option<usize> {
    match kind {
        "u8" | "bool" => Some(1),
        "u16" => Some(2),
        "u32" => Some(4),
        "u64" | "time" | "job" => Some(8),
        "u128" => Some(16),
        "string" | "bytes" | "rest" => None,
        text if text.starts_with("text(") => None,
        enumeration => fixed_bytes(enumeration_width(enumeration)),
    }
}

fn enumeration_width(name: &str) -> &'static str {
    let widths = ["u8", "u16"].into_iter();
    let found = widths.clone().find(|width| DOCUMENT.contains(&format!("\n### {name} ({width})\n")));
    found.unwrap_or_else(|| panic!("the document has no type {name}"))
}

fn enumeration_number(name: &str, value: &str) -> u128 {
    let rows = table(&format!("### {name} ({})", enumeration_width(name)));
    let row = rows.iter().find(|row| row[1] == value);
    document_number(&row.unwrap_or_else(|| panic!("{name} has no {value}"))[0]).into()
}

/// Appends a field as the document describes its type.
fn encode_by_document(kind: &str, value: &Value, out: &mut Vec<u8>) {
    let number = match kind {
        "string" => {
            out.extend_from_slice(&u16::try_from(value.bytes.len()).unwrap().to_le_bytes());
            return out.extend_from_slice(&value.bytes);
        }
        "bytes" => {
            out.extend_from_slice(&u32::try_from(value.bytes.len()).unwrap().to_le_bytes());
            return out.extend_from_slice(&value.bytes);
        }
        "rest" => return out.extend_from_slice(&value.bytes),
        text if text.starts_with("text(") => return out.extend_from_slice(&value.bytes),
        "bool" => (value.text == "true").into(),
        "job" => parse_job(value.text).raw().into(),
        "u8" | "u16" | "u32" | "u64" | "u128" | "time" => parse_number(value.text),
        enumeration => enumeration_number(enumeration, value.text),
    };
    out.extend_from_slice(&number.to_le_bytes()[..fixed_bytes(kind).unwrap()]);
}

/// Encodes the next fields of `vector` by a table of offset, field and type.
fn encode_by_table(rows: &[Vec<String>], vector: &Vector) -> Vec<u8> {
    let mut out = Vec::new();
    let mut offset = Some(0);
    for row in rows {
        assert_eq!(row[0].parse::<usize>().ok(), offset, "the offset of {} in {vector:?}", row[1]);
        let kind = match row[2].strip_prefix("optional ") {
            Some(_) if vector.is_taken() => break,
            kind => kind.unwrap_or(&row[2]),
        };
        offset = offset.and_then(|offset| Some(offset + fixed_bytes(kind)?));
        encode_by_document(kind, vector.take(&row[1]), &mut out);
    }
    out
}

#[test]
fn the_tables_of_the_document_give_the_bytes_of_every_frame() {
    let stride = if cfg!(miri) { 8 } else { 1 };
    for vector in vectors().iter().filter(|vector| vector.kind == "frame").step_by(stride) {
        let frame_type = FrameType::from_name(vector.name).unwrap();
        let rows = table(&format!("### {frame_type} 0x{:04X}", frame_type.number()));
        let body = encode_by_table(&rows, vector);
        vector.finish();
        assert_eq!(body, vector.bytes[FrameHeader::BYTES..], "{vector:?} by its table");
    }
}

#[test]
fn the_document_numbers_every_frame_type() {
    let documented: Vec<_> =
        table("### Frame types").into_iter().map(|row| (document_number(&row[0]), row[1].clone())).collect();
    let known: Vec<_> =
        FrameType::ALL.iter().map(|known| (u64::from(known.number()), known.name().to_owned())).collect();
    assert_eq!(documented, known);
}

fn check_enumeration(heading: &str, known: impl Iterator<Item = (u64, &'static str)>) {
    let documented = table(heading).into_iter().map(|row| (document_number(&row[0]), row[1].clone()));
    let known = known.map(|(number, name)| (number, name.to_owned()));
    assert_eq!(documented.collect::<Vec<_>>(), known.collect::<Vec<_>>(), "{heading}");
}

#[test]
fn the_document_numbers_every_value_of_every_enumeration() {
    macro_rules! check {
        ($($type:ident: $repr:ident)*) => {$(
            let known = $type::ALL.iter().map(|known| (u64::from(known.number()), known.name()));
            check_enumeration(concat!("### ", stringify!($type), " (", stringify!($repr), ")"), known);
            assert_eq!(size_of::<$type>(), size_of::<$repr>());
        )*};
    }
    check! {
        RefusalCode: u16 SubmitMode: u8 JobVerb: u8 JobState: u8 ExecutionState: u8 Priority: u8 Misfire: u8 Overlap: u8
        DstGap: u8 DstOverlap: u8 DayRule: u8
        Outcome: u8 Verdict: u8 CancelReason: u8
    }
}

/// The fields of a definition: tag and value.
fn tagged_fields(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut input = Reader::new(bytes);
    let mut fields = Vec::new();
    while !input.is_empty() {
        fields.push((input.u8("tag").unwrap(), input.bytes("value").unwrap()));
    }
    fields
}

#[test]
fn the_document_knows_exactly_the_tags_that_definitions_may_have() {
    let documented: Vec<u64> = table("## 7. Job definitions").iter().map(|row| document_number(&row[0])).collect();
    let is_known = |tag: &u8| JobSpec::decode(&[*tag, 0, 0, 0, 0]) != Err(JobSpecError::UnknownField(*tag));
    assert_eq!(documented, (0..=u8::MAX).filter(is_known).map(u64::from).collect::<Vec<_>>());
}

#[test]
fn every_tag_of_a_definition_has_a_vector_under_its_name() {
    let vectors = vectors();
    for row in table("## 7. Job definitions") {
        let field = match row[1].as_str() {
            "interval" => "every_us",
            "once" => "at",
            "after" => "delay_us",
            "fixed_delay" => "fixed_delay_us",
            "retry" => "attempts_max",
            same => same,
        };
        let mut found = false;
        for vector in vectors.iter().filter(|vector| vector.kind == "job") {
            let tagged =
                tagged_fields(&vector.bytes).iter().any(|(tag, _)| u64::from(*tag) == document_number(&row[0]));
            assert_eq!(tagged, vector.value(field).is_some(), "{field} of {vector:?}");
            found |= tagged;
        }
        assert!(found, "no vector has {field}");
    }
}

#[test]
fn the_document_lays_retries_out_and_names_their_defaults() {
    let rows = table("The value of `retry`:");
    let defaults: Vec<u64> = rows.iter().map(|row| document_number(&row[3])).collect();
    let RetryPolicy { attempts_max, initial_ms, multiplier_milli, delay_ms_max, jitter_percent } =
        RetryPolicy::default();
    let known: [u64; 5] =
        [attempts_max.into(), initial_ms.into(), multiplier_milli.into(), delay_ms_max.into(), jitter_percent.into()];
    assert_eq!(defaults, known);
    let vectors = vectors();
    let whole = vectors.iter().find(|vector| vector.value("attempts_max").is_some()).expect("a vector with retries");
    let first = whole.fields.iter().position(|(name, _)| *name == "attempts_max").unwrap();
    whole.taken.set(first);
    let tag = tagged_fields(&whole.bytes).into_iter().find(|(tag, _)| *tag == 11).expect("the tag of retries");
    assert_eq!(encode_by_table(&rows, whole), tag.1);
}

#[test]
fn the_document_names_the_limits() {
    let rows = table("## 13. Limits");
    let bytes = |what: &str| {
        let row = rows.iter().find(|row| row[0] == what).unwrap_or_else(|| panic!("no limit of {what}"));
        usize::try_from(document_number(&row[1])).unwrap()
    };
    assert_eq!(bytes("body of a frame"), limits::FRAME_BYTES_MAX);
    assert_eq!(bytes("payload of a job"), limits::PAYLOAD_BYTES_MAX);
    assert_eq!(bytes("tenant"), limits::TENANT_NAME_BYTES_MAX);
    assert_eq!(bytes("job name"), limits::JOB_NAME_BYTES_MAX);
    assert_eq!(bytes("handler"), limits::HANDLER_NAME_BYTES_MAX);
    assert_eq!(bytes("pool"), limits::POOL_NAME_BYTES_MAX);
    assert_eq!(bytes("cron expression, zone"), limits::CRON_BYTES_MAX);
    assert_eq!(bytes("schedules of a job") as u64, limits::SCHEDULES_MAX);
    assert_eq!(bytes("exclusions"), limits::EXCLUSIONS_BYTES_MAX);
    assert_eq!(bytes("calendars of a tenant"), limits::CALENDARS_MAX);
    assert_eq!(bytes("name of a calendar"), limits::CALENDAR_NAME_BYTES_MAX);
    assert_eq!(bytes("idempotency key"), limits::IDEMPOTENCY_KEY_BYTES_MAX);
    assert_eq!(bytes("labels of a job, conditions of a selector"), limits::LABELS_MAX);
    assert_eq!(bytes("key of a label"), limits::LABEL_KEY_BYTES_MAX);
    assert_eq!(bytes("value of a label"), limits::LABEL_VALUE_BYTES_MAX);
    assert_eq!(bytes("output or message that is kept"), limits::OUTPUT_BYTES_MAX);
    assert_eq!(bytes("entries of a page"), limits::PAGE_ENTRIES_MAX.into());
    assert_eq!(bytes("partitions"), PartitionCount::MAX.into());
    assert_eq!(bytes("shards of a node"), limits::SHARDS_MAX.into());
}
