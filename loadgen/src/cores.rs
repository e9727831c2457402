//! Which cores the workers' threads run on: beside a server of the run's own, those that its shards leave.
//!
//! A shard has its core to itself by design. On loopback the system likes to wake a worker where the datagram was sent from, which is the
//! shard's core, and then the shard waits: thousands of times per second at a modest load.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that `shards` shards leave, who take the lowest of those that this process may use; empty if they leave none, or
/// the system does not tell.
pub(crate) fn beside(shards: u16) -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    cores.skip(shards.into()).collect()
}

/// Keeps the calling thread to `cores`; anywhere if there are none. It is a wish: where it is refused the thread runs anywhere.
pub(crate) fn keep_to(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if !cores.is_empty() {
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_to_the_cores_that_shards_leave() {
        std::thread::spawn(|| {
            let all = beside(0);
            assert!(!all.is_empty(), "the system tells");
            let rest = beside(1);
            assert_eq!(rest, all.get(1..).unwrap_or_default());
            keep_to(&rest);
            assert_eq!(beside(0), if rest.is_empty() { all } else { rest });
        })
        .join()
        .unwrap();
    }
}
