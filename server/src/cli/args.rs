//! The arguments as they are written; nothing here has a meaning yet.
//!
//! Each group of commands has its own file, which resolves its arguments once. Every value may come from a `TICKWHEEL_*` variable
//! where that is noted. Deliberately absent: file access, defaults that depend on anything.

#[cfg(test)]
mod tests;

use crate::fatal::Fatal;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// Address of a server on this machine.
pub(super) const SERVER_DEFAULT: &str = "127.0.0.1:7400";
/// Folder of the certificates that `dev` makes.
pub(super) const CERTS_DEFAULT: &str = "./tickwheel-data/certs";

/// A distributed job scheduler: says when jobs are due, hands them to workers, and never forgets one.
#[derive(Debug, Parser)]
#[command(name = "tickwheel", version, max_term_width = 110)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a server with certificates of its own making and a worker, for a first look and for development
    #[command(after_help = Fatal::HELP)]
    Dev(ServeArguments),
    /// Run a server
    #[command(after_help = Fatal::HELP)]
    Server(ServeArguments),
    /// Run a worker that executes commands
    Worker(WorkerArguments),
    /// Create, look at and change jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at executions, and cancel them
    #[command(subcommand)]
    Execution(ExecutionCommand),
    /// Calendars that the server keeps: times at which the jobs that name them do not fire
    #[command(subcommand)]
    Calendar(CalendarCommand),
    /// Cron expressions
    #[command(subcommand)]
    Cron(CronCommand),
    /// Make certificates for servers, clients and workers
    #[command(subcommand)]
    Certs(CertsCommand),
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Configuration file; tickwheel.toml.example states every key
    #[arg(long, value_name = "FILE", env = "TICKWHEEL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data directory [default: ./tickwheel-data]
    #[arg(long, value_name = "DIR", env = "TICKWHEEL_DATA")]
    pub data: Option<PathBuf>,
    /// UDP address of the first shard, the others take the ports that follow [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR", env = "TICKWHEEL_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Number of shards, each with a core of its own [default: half of the cores]
    #[arg(long, value_name = "N", env = "TICKWHEEL_SHARDS")]
    pub shards: Option<u16>,
}

/// Where the server is, and where the certificates are.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// Address of the server
    #[arg(long, value_name = "ADDR", env = "TICKWHEEL_SERVER", default_value = SERVER_DEFAULT)]
    pub server: String,
    /// Folder with ca.pem and the certificate to use
    #[arg(long, value_name = "DIR", env = "TICKWHEEL_CERTS", default_value = CERTS_DEFAULT)]
    pub certs: PathBuf,
}

/// How a command finds its server, and for whom it speaks.
#[derive(Debug, Args)]
pub(super) struct ConnectionArguments {
    #[command(flatten)]
    pub server: ServerArguments,
    /// Certificate to use: NAME.pem and NAME.key in the folder
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub cert: String,
    /// Tenant to speak for [default: that of the certificate, or `default`]
    #[arg(long, value_name = "TENANT", env = "TICKWHEEL_TENANT")]
    pub tenant: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Columns for people
    Table,
    /// JSON with stable keys
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArguments {
    /// Form of the answer
    #[arg(long, value_name = "FORM", value_enum, default_value = "table")]
    pub output: OutputFormat,
}

#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    #[command(flatten)]
    pub server: ServerArguments,
    /// Certificate to use: NAME.pem and NAME.key in the folder
    #[arg(long, value_name = "NAME", default_value = "worker")]
    pub cert: String,
    /// Pool to serve; may be given several times [default: the pools of the certificate]
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// How many commands run at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub concurrency: u32,
    /// Command that jobs may run, as they write it; may be given several times
    #[arg(long, value_name = "COMMAND", required_unless_present = "allow_any", conflicts_with = "allow_any")]
    pub allow: Vec<String>,
    /// Let jobs run any command
    #[arg(long)]
    pub allow_any: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Create or update the jobs of a file, once it is shown what that changes
    Apply(ApplyArguments),
    /// Write jobs as a jobs file, which `job apply` reads
    Export(ExportArguments),
    /// Create or update the jobs of a crontab, of CronJobs of Kubernetes, or of systemd timers
    Import(ImportArguments),
    /// List jobs
    List(JobListArguments),
    /// Show one job
    Get(JobGetArguments),
    /// Stop the firing of a job, or of many
    Pause(JobChangeArguments),
    /// Let a paused job, or many, fire again, from the next time on
    Resume(JobChangeArguments),
    /// Fire a job, or many, now, besides the schedule
    Trigger(JobChangeArguments),
    /// Execute firings of the past, one after another
    Backfill(BackfillArguments),
    /// Drop what a job, or many, have to make up for: firings of the past, and dead letters that were redriven
    ClearBacklog(JobChangeArguments),
    /// Forget a job, or many, and cancel what runs of them
    Delete(JobDeleteArguments),
}

#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    /// Jobs file (TOML); `-` reads the standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Delete the jobs that are not in the file, of the tenants that are
    #[arg(long)]
    pub prune: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// A jobs file
    Toml,
    /// The keys of the jobs file in JSON, an object for each job
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateArgument {
    /// It is paused
    Paused,
    /// It is not paused, and an execution of it is in flight or will come
    Active,
    /// An execution of it is in flight
    Running,
    /// The newest of its executions that ended has failed for good or came too late
    Failing,
    /// It is not paused, nothing of it is in flight, and it fires no more
    Finished,
}

/// Which jobs a command is about: those that meet all of it.
#[derive(Debug, Args)]
pub(super) struct JobFilterArguments {
    /// Only names that begin so
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only jobs whose labels meet this, such as `team=ops,env!=prod,critical,!legacy`; may be given several times
    #[arg(long, value_name = "SELECTOR", value_parser = super::filter::selector)]
    pub label: Vec<String>,
    /// Only jobs in this state; may be given several times: in any of them
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Vec<StateArgument>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    pub filter: JobFilterArguments,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// Form of the answer
    #[arg(long, value_name = "FORM", value_enum, default_value = "toml")]
    pub output: ExportFormat,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// A crontab, manifests of Kubernetes, a systemd timer beside its service, or a folder of those; `-` reads the standard input
    #[arg(value_name = "PATH", required_unless_present = "crontab")]
    pub path: Option<PathBuf>,
    /// What it is [default: told by its name and its text]
    #[arg(long, value_name = "FORM", value_enum)]
    pub from: Option<crate::import::Form>,
    /// The crontab: PATH with `--from crontab`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "from"])]
    pub crontab: Option<PathBuf>,
    /// The crontab has a user column; /etc/crontab and the files of /etc/cron.d are known to have one
    #[arg(long)]
    pub system: bool,
    /// Show the jobs and their next fires; change nothing, and ask no server
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct JobListArguments {
    #[command(flatten)]
    pub filter: JobFilterArguments,
    /// Most jobs to show
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct JobGetArguments {
    /// Name of the job
    pub name: String,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// The arguments that pick many jobs instead of one.
const JOB_FILTERS: [&str; 4] = ["all", "prefix", "label", "state"];
/// The arguments that pick many executions instead of one.
const EXECUTION_FILTERS: [&str; 4] = ["all", "job", "prefix", "label"];
/// The arguments that pick many dead letters instead of one.
const LETTER_FILTERS: [&str; 7] = ["all", "prefix", "label", "state", "since", "until", "error"];

/// How many are changed at once.
#[derive(Debug, Args)]
pub(super) struct BulkArguments {
    /// All of the tenant
    #[arg(long)]
    pub all: bool,
    /// Of many: say what would be done, and change nothing
    #[arg(long, conflicts_with = "one")]
    pub dry_run: bool,
    /// Of many: tell how far it is, also where the standard error is no terminal
    #[arg(long, conflicts_with = "one")]
    pub progress: bool,
}

#[derive(Debug, Args)]
pub(super) struct JobChangeArguments {
    /// Name of the job; many are picked by --all, --prefix, --label and --state
    #[arg(id = "one", value_name = "NAME", required_unless_present_any = JOB_FILTERS, conflicts_with_all = JOB_FILTERS)]
    pub name: Option<String>,
    #[command(flatten)]
    pub filter: JobFilterArguments,
    #[command(flatten)]
    pub bulk: BulkArguments,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct JobDeleteArguments {
    #[command(flatten)]
    pub change: JobChangeArguments,
    /// Of many: do not ask whether they are to be deleted
    #[arg(long, conflicts_with = "one")]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct BackfillArguments {
    /// Name of the job
    pub name: String,
    /// Firings from this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// Firings before this time, as far as they are past [default: now]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Count them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum ExecutionCommand {
    /// List executions, the newest first: those in flight, and the finished ones that the server remembers
    List(ExecutionListArguments),
    /// Show one execution with its output
    Get(ExecutionGetArguments),
    /// Cancel an execution in flight, or many
    Cancel(ExecutionCancelArguments),
    /// List dead letters, the newest first: executions whose last attempt failed
    DeadLetters(DeadLettersArguments),
    /// Try dead letters again
    Redrive(RedriveArguments),
    /// Tell of every change of executions as it happens
    Watch(ExecutionWatchArguments),
}

/// Which executions a command is about: those that meet all of it.
#[derive(Debug, Args)]
pub(super) struct ExecutionFilterArguments {
    /// Only executions of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only executions of jobs whose names begin so
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only executions of jobs whose labels meet this, such as `team=ops,env!=prod,critical,!legacy`; may be given several times
    #[arg(long, value_name = "SELECTOR", value_parser = super::filter::selector)]
    pub label: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExecutionListArguments {
    #[command(flatten)]
    pub filter: ExecutionFilterArguments,
    /// Only executions in flight
    #[arg(long)]
    pub in_flight: bool,
    /// Most executions to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Which dead letters a command is about: those that meet all of it.
#[derive(Debug, Args)]
pub(super) struct LetterFilterArguments {
    #[command(flatten)]
    pub jobs: JobFilterArguments,
    /// Only those whose last attempt ended then or later: a time (RFC 3339), or how long ago, such as `2h` or `3 days`
    #[arg(long, value_name = "TIME|AGE")]
    pub since: Option<String>,
    /// Only those whose last attempt ended before: a time (RFC 3339), or how long ago
    #[arg(long, value_name = "TIME|AGE")]
    pub until: Option<String>,
    /// Only those whose error has this name; `timed-out` and `worker-lost` are those that ended so
    #[arg(long, value_name = "NAME")]
    pub error: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DeadLettersArguments {
    #[command(flatten)]
    pub filter: LetterFilterArguments,
    /// Most dead letters to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct RedriveArguments {
    /// Id of a dead letter, as `execution dead-letters` shows it; many are picked by --all, --prefix, --label, --state, --since, --until and
    /// --error
    #[arg(id = "one", value_name = "ID", required_unless_present_any = LETTER_FILTERS, conflicts_with_all = LETTER_FILTERS)]
    pub id: Option<String>,
    #[command(flatten)]
    pub filter: LetterFilterArguments,
    #[command(flatten)]
    pub bulk: BulkArguments,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExecutionGetArguments {
    /// Id of the execution, as `execution list` shows it: PARTITION.SLOT.GENERATION/SEQUENCE
    pub id: String,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExecutionCancelArguments {
    /// Id of the execution, as `execution list` shows it: PARTITION.SLOT.GENERATION/SEQUENCE; many are picked by --all, --job,
    /// --prefix and --label
    #[arg(
        id = "one",
        value_name = "ID",
        required_unless_present_any = EXECUTION_FILTERS,
        conflicts_with_all = EXECUTION_FILTERS,
    )]
    pub id: Option<String>,
    #[command(flatten)]
    pub filter: ExecutionFilterArguments,
    #[command(flatten)]
    pub bulk: BulkArguments,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExecutionWatchArguments {
    /// Only executions of this job
    #[arg(long, value_name = "NAME", default_value = "")]
    pub job: String,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum CalendarCommand {
    /// Create or replace a calendar; the jobs that name it follow it from then on
    Set(CalendarSetArguments),
    /// List calendars
    List(CalendarListArguments),
    /// Show the entries of a calendar, as `calendar set --file -` reads them
    Get(CalendarGetArguments),
    /// Delete a calendar that no job names
    Delete(CalendarDeleteArguments),
}

/// Where the entries of a calendar come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct CalendarSourceArguments {
    /// An entry, such as 2026-12-25, 12-25, 2026-12-24..2027-01-01, SAT,SUN, `cron * 12 * * *` or `zone Europe/Berlin`; may be
    /// given several times
    #[arg(long, value_name = "ENTRY")]
    pub exclude: Vec<String>,
    /// File with an entry per line; `-` reads the standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// iCalendar file whose events are excluded, from this year on
    #[arg(long, value_name = "FILE")]
    pub ics: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CalendarSetArguments {
    /// Name of the calendar
    pub name: String,
    #[command(flatten)]
    pub source: CalendarSourceArguments,
    /// With --ics: IANA zone of events that name none [default: that of each job]
    #[arg(long, visible_alias = "zone", value_name = "ZONE", conflicts_with_all = ["exclude", "file"])]
    pub tz: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct CalendarListArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct CalendarGetArguments {
    /// Name of the calendar
    pub name: String,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct CalendarDeleteArguments {
    /// Name of the calendar
    pub name: String,
    /// Also if jobs name it: they fire as if it had no entries
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum CronCommand {
    /// Show when an expression fires next; needs no server
    Next(CronArguments),
    /// Say in words what an expression means, when it fires next, and what it does when the clock changes; needs no server
    Explain(CronArguments),
}

#[derive(Debug, Args)]
pub(super) struct CronArguments {
    /// The expression: five fields, six with seconds in front, seven with years at the end too, or @daily and kin
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    pub expression: String,
    /// IANA time zone
    #[arg(long, visible_alias = "zone", value_name = "ZONE", default_value = "UTC")]
    pub tz: String,
    /// Time after which fires are sought, RFC 3339 with an offset [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// How many fires
    #[arg(short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// What becomes of local times that a change of the clock leaves out [default: skip if the minute or the hour begins with
    /// `*`, else fire-after]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub gap: Option<GapArgument>,
    /// When local times fire that a change of the clock shows twice [default: both if the minute or the hour begins with `*`,
    /// else first]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub overlap: Option<OverlapArgument>,
    /// Which days are meant if both day of month and day of week are restricted
    #[arg(long, value_name = "RULE", value_enum, default_value_t = DayRuleArgument::Or)]
    pub day_rule: DayRuleArgument,
    /// Job whose name chooses the values of `H`: TENANT/NAME, or NAME in the tenant `default`
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// Times at which it does not fire, such as 2026-12-25, 12-25, 2026-12-24..2027-01-01, SAT,SUN or `cron * 12 * * *`; may be
    /// given several times
    #[arg(long, value_name = "ENTRY")]
    pub exclude: Vec<String>,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum GapArgument {
    /// They do not fire
    Skip,
    /// They fire once, at the first instant after the gap
    FireAfter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OverlapArgument {
    /// When they are shown first
    First,
    /// When they are shown again
    Second,
    /// Each time
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DayRuleArgument {
    /// Those that match one of the two
    Or,
    /// Those that match both
    And,
}

#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Make a certificate authority: everything else is issued from it
    Ca(CaArguments),
    /// Issue a server's certificate
    Server(ServerCertificateArguments),
    /// Issue the certificate of a client, which manages the jobs of one tenant
    Client(ClientCertificateArguments),
    /// Issue the certificate of an admin, who may do everything, in one tenant or in all
    Admin(AdminCertificateArguments),
    /// Issue the certificate of a worker, which runs the jobs of one tenant in its pools
    Worker(WorkerCertificateArguments),
}

#[derive(Debug, Args)]
pub(super) struct FolderArguments {
    /// Folder of the authority and of all that it issues
    #[arg(long, value_name = "DIR", env = "TICKWHEEL_CERTS", default_value = CERTS_DEFAULT)]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CaArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
}

#[derive(Debug, Args)]
pub(super) struct ValidityArguments {
    /// Days until it expires
    #[arg(
        long,
        value_name = "N",
        default_value_t = crate::certificates::VALIDITY_DAYS_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..=3_650),
    )]
    pub days: u16,
}

#[derive(Debug, Args)]
pub(super) struct ServerCertificateArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
    /// Name of the files; a server reads `server`
    #[arg(long, value_name = "NAME", default_value = "server")]
    pub name: String,
    /// Host name or IP address besides the loopback; may be given several times
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    #[command(flatten)]
    pub validity: ValidityArguments,
}

#[derive(Debug, Args)]
pub(super) struct ClientCertificateArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
    /// Name of the client and of the files
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Its tenant
    #[arg(long, value_name = "TENANT", default_value = crate::config::TENANT_DEFAULT)]
    pub tenant: String,
    #[command(flatten)]
    pub validity: ValidityArguments,
}

#[derive(Debug, Args)]
pub(super) struct AdminCertificateArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
    /// Name of the admin and of the files
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub name: String,
    /// Its tenant [default: all]
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub validity: ValidityArguments,
}

#[derive(Debug, Args)]
pub(super) struct WorkerCertificateArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
    /// Name of the worker and of the files
    #[arg(long, value_name = "NAME", default_value = "worker")]
    pub name: String,
    /// Its tenant
    #[arg(long, value_name = "TENANT", default_value = crate::config::TENANT_DEFAULT)]
    pub tenant: String,
    /// Pool that it may serve; may be given several times
    #[arg(long, value_name = "POOL", default_values_t = vec![tickwheel_wire::job::POOL_DEFAULT.to_owned()])]
    pub pool: Vec<String>,
    #[command(flatten)]
    pub validity: ValidityArguments,
}
