//! The command line as it was written. What follows from it is resolved in [`crate::plan`].

use clap::{ArgGroup, Parser, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Open-loop load generator for Tickwheel.
///
/// Creates jobs, runs them as their worker, and reports throughput, lateness and whatever was lost. Quantities may be written as
/// 1500000, 1.5M or 20k; times as 10, 10s, 5m or 1h.
#[derive(Clone, Debug, Parser)]
#[command(name = "tickwheel-loadgen", version)]
#[command(group(ArgGroup::new("target").required(true).args(["spawn", "connect"])))]
pub(crate) struct Arguments {
    /// What to do.
    #[arg(long, value_enum, default_value_t = Profile::Steady)]
    pub profile: Profile,
    /// Start a server with fresh data and certificates of its own, and stop it in the end.
    #[arg(long)]
    pub spawn: bool,
    /// Use the server at this address (any of its shards). All executions of its pool `standard` that are not of this run are failed,
    /// so use a server that has no other work.
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// With --connect: the folder that holds `ca.pem` and the certificates and keys of `admin` and `worker`.
    #[arg(long, value_name = "DIR", default_value = "tickwheel-data/certs")]
    pub certs: PathBuf,
    /// With --connect: the server's process on this machine, for its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// With --spawn: the server's binary. Default: `tickwheel` beside this one.
    #[arg(long, value_name = "FILE")]
    pub server_bin: Option<PathBuf>,
    /// With --spawn: a configuration file for the server.
    #[arg(long, value_name = "FILE")]
    pub server_config: Option<PathBuf>,
    /// With --spawn: where the server's fresh data folder is made.
    #[arg(long, value_name = "DIR", default_value = "target")]
    pub data: PathBuf,
    /// Keep the data folder (--spawn) or the jobs (--connect) in the end.
    #[arg(long)]
    pub keep: bool,
    /// With --spawn: shards of the server. Default: half of the cores.
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Jobs. Default: as many as the rate has executions per second, at least 100k (steady); 20M x 50 ms (saturate); 2.5M (herd);
    /// 10M (resident).
    #[arg(long, value_name = "COUNT", value_parser = quantity)]
    pub jobs: Option<u64>,
    /// Executions per second that fall due. Default: 20k (steady), 20M (saturate).
    #[arg(long, value_name = "COUNT", value_parser = quantity)]
    pub rate: Option<u64>,
    /// How long to measure (steady, saturate: default 10 s), to watch the idle server (resident: 10 s), to wait at most (herd: 60 s).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,
    /// How long the load runs before it is measured.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2s")]
    pub warmup: Duration,
    /// Compresses time: the rate is multiplied and the duration divided by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub compress: f64,
    /// Worker connections in all. Default: one for each shard and thread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub workers: Option<u32>,
    /// Executions that each connection may hold.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub credit: u32,
    /// Threads with workers. Default: 1 on up to two cores, else half of the cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Fixes the phases and priorities of the jobs.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Bytes of payload of each job, up to 64k.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub payload_bytes: u32,
    /// Share of the jobs that have priority P0, in percent; the others have P1.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub p0_percent: u8,
    /// Submissions in flight for each shard.
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub window: u32,
    /// Largest datagram payload that is tried, in bytes; the server must be set to accept as much.
    #[arg(long, value_name = "BYTES", default_value_t = 8_952, value_parser = clap::value_parser!(u16).range(1_200..=8_952))]
    pub mtu_bytes: u16,
    /// Where the JSON object goes; `-` is the standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub json: PathBuf,
}

/// What the load is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// A rate of executions for a while.
    Steady,
    /// Far more than any server can do, to see what it does; misfires are expected.
    Saturate,
    /// Jobs that are all due at one moment: how long until they are done.
    Herd,
    /// Jobs that wait: memory of each, cost of idling and, with --spawn, how long a restart after `kill -9` takes.
    Resident,
}

impl Profile {
    /// Its name on the command line and in the JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Saturate => "saturate",
            Self::Herd => "herd",
            Self::Resident => "resident",
        }
    }
}

/// A whole number, with `k`, `M` or `G` behind it if wanted.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn quantity(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = digits.replace('_', "").parse().map_err(|_| "write it as 1500000, 1.5M or 20k".to_owned())?;
    let value = number * factor;
    if (1.0..=1e12).contains(&value) { Ok(value.round() as u64) } else { Err("allowed are 1 to 1000G".to_owned()) }
}

/// Seconds, or a number with `ms`, `s`, `m` or `h` behind it.
fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let wrong = || "write it as 10, 10s, 500ms, 5m or 1h".to_owned();
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    } * digits.parse::<f64>().map_err(|_| wrong())?;
    if (0.0..=1e7).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_target_is_needed_and_only_one() {
        assert!(Arguments::try_parse_from(["x"]).is_err());
        assert!(Arguments::try_parse_from(["x", "--spawn", "--connect", "a:1"]).is_err());
        let arguments = Arguments::try_parse_from(["x", "--connect", "a:1", "--profile", "herd"]).unwrap();
        assert_eq!((arguments.profile, arguments.connect.as_deref()), (Profile::Herd, Some("a:1")));
    }

    #[test]
    fn quantities_and_times_may_carry_units() {
        assert_eq!(quantity("1_500"), Ok(1_500));
        assert_eq!(quantity("1.5M"), Ok(1_500_000));
        assert_eq!(quantity("20k"), Ok(20_000));
        assert!(quantity("0").is_err() && quantity("-1").is_err() && quantity("x").is_err() && quantity("").is_err());
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert!(time("1d").is_err() && time("s").is_err() && time("-1s").is_err());
    }
}
