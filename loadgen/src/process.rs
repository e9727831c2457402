//! What the system says of the server's process: CPU time and memory, from `/proc` (proc(5)).
//!
//! Absent, not zero, where there is no such process: a remote server, another system.

use std::fs;

/// Ticks of CPU time per second in `/proc`, the same on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of a process at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// User and system time since its start, in seconds, to 10 ms.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
}

/// What the process uses; none if it cannot be seen.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    Some(Usage { cpu_s: cpu_s(&read("stat")?)?, rss_bytes: rss_bytes(&read("status")?)? })
}

fn cpu_s(stat: &str) -> Option<f64> {
    // The name stands in parentheses and may hold anything, so fields are counted from its end.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / TICKS_PER_SECOND)
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 7 7 20 0 5 0 100 1000 10";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(cpu_s("42 (x) S 1"), None);
    }

    #[test]
    fn memory_is_in_kilobytes() {
        assert_eq!(rss_bytes("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(rss_bytes("Name:\tkernel thread\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).is_some_and(|usage| usage.rss_bytes > 0));
    }
}
