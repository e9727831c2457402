//! Too little lockable memory: raised when it may be, refused with the remedy when not. In a process of its own, because the limit is
//! the process's.
#![expect(unsafe_code, reason = "limits and users are changed by system calls")]

use std::thread;

use tickwheel_server::runtime::executor::{self, CorePlan, LOCKED_MEMORY_BYTES_MIN, StartError};

fn set_limits(soft_bytes: u64, hard_bytes: u64) {
    let limits = libc::rlimit { rlim_cur: soft_bytes, rlim_max: hard_bytes };
    // SAFETY: the pointer is valid for reading.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limits) }, 0);
}

fn soft_limit() -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for writing.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limits) }, 0);
    limits.rlim_cur
}

/// Starts a shard on a thread that has no privileges, whoever runs the test.
fn start_unprivileged() -> Result<(), StartError> {
    let start = || {
        // SAFETY: the bare system call changes this thread's user only and takes no pointers. It fails, without harm, for a user
        // who has no privileges to drop.
        unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        executor::start(&CorePlan::on(1, &[]), vec![|| async {}]).map(|shards| drop(shards.join()))
    };
    thread::spawn(start).join().expect("no panic")
}

#[test]
fn the_limit_is_raised_within_the_hard_one_and_else_refused() {
    set_limits(64 * 1024, LOCKED_MEMORY_BYTES_MIN);
    start_unprivileged().expect("the soft limit may be raised");
    assert_eq!(soft_limit(), LOCKED_MEMORY_BYTES_MIN);

    set_limits(64 * 1024, 64 * 1024);
    let error = start_unprivileged().expect_err("the hard limit is too low");
    assert!(matches!(error, StartError::LockedMemory { limit_bytes: 65_536 }), "{error}");
    let text = error.to_string();
    assert!(text.contains("ulimit -l") && text.contains("LimitMEMLOCK") && !text.contains('\n'), "{text}");
}
