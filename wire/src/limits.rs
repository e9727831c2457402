//! The bounds that the protocol itself sets. Bounds that an operator may lower are configuration and start from these.

/// Longest tenant name, in bytes.
pub const TENANT_NAME_BYTES_MAX: usize = 64;
/// Longest job name, in bytes.
pub const JOB_NAME_BYTES_MAX: usize = 255;
/// Longest handler name, in bytes.
pub const HANDLER_NAME_BYTES_MAX: usize = 128;
/// Longest pool name, in bytes.
pub const POOL_NAME_BYTES_MAX: usize = 64;
/// Longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// Longest IANA zone name, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// Longest frame body that a node accepts by default, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Longest job payload that a node accepts by default, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// How much of an attempt's output or error message is kept, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 4 << 10;
/// Longest status of a running attempt, in bytes.
pub const STATUS_BYTES_MAX: usize = 256;
/// Most pools that one worker serves.
pub const WORKER_POOLS_MAX: usize = 16;
/// Most entries of one page of a list.
pub const PAGE_ENTRIES_MAX: u16 = 256;
/// Most partitions' worth of shards on a node.
pub const SHARDS_MAX: u16 = 256;
/// Most firings of one job that wait to be executed one after another.
pub const CATCH_UP_MAX: u32 = 1_000;
/// Longest jitter of a firing, in milliseconds: a day.
pub const JITTER_MS_MAX: u32 = 86_400_000;
/// Longest name of an error, in bytes.
pub const ERROR_NAME_BYTES_MAX: usize = 255;
/// Longest list of names of errors, in bytes.
pub const ERROR_NAMES_BYTES_MAX: usize = 1_024;
/// Most executions in a job's backlog.
pub const BACKLOG_MAX: u32 = 1_000;
/// Most labels of one job, and most conditions of a selector.
pub const LABELS_MAX: usize = 32;
/// Longest key of a label, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;
/// Longest text of labels, in bytes: as many as may be of the longest, each with its `=`, between commas.
pub const LABELS_BYTES_MAX: usize = LABELS_MAX * (LABEL_KEY_BYTES_MAX + 1 + LABEL_VALUE_BYTES_MAX + 1) - 1;
/// Most schedules of one job.
pub const SCHEDULES_MAX: u64 = 16;
/// Longest list of exclusions, in bytes.
pub const EXCLUSIONS_BYTES_MAX: usize = 16 << 10;
/// Most calendars of one tenant.
pub const CALENDARS_MAX: usize = 256;
/// Longest name of a calendar, in bytes.
pub const CALENDAR_NAME_BYTES_MAX: usize = 64;
