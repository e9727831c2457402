//! Threads that see less of the machine than others, and pass that on to the threads and processes that they start: file
//! systems of their own, no `io_uring`.
//!
//! Invariant: nothing here outlives its thread. Mounts vanish with the last thread or process that sees them, however it ends.
#![expect(unsafe_code, reason = "namespaces and system call filters are set up by system calls")]

use anyhow::{Context as _, ensure};
use std::{path::Path, process::Command, thread};

/// Runs `body` on a thread whose mounts nobody else sees. Where that takes a privilege that is missing, it says so and does
/// nothing.
///
/// # Errors
/// Those of `body`.
pub fn with_own_mounts(body: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    let confined = || {
        // SAFETY: takes no pointers and changes nothing but this thread's view of the file systems.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) == 0 };
        if !unshared || mount(&["--make-rprivate", "/"]).is_err() {
            eprintln!("skipped: mounting needs a privilege that this process does not have");
            return Ok(());
        }
        body()
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// `mount` with these arguments.
///
/// # Errors
/// When it fails.
pub fn mount(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("mount").args(arguments).output().context("there is no `mount`")?;
    ensure!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Mounts a file system in memory, of `size_mib` MiB, on `directory`.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount_memory(directory: &Path, size_mib: u32) -> anyhow::Result<()> {
    let directory = directory.to_str().context("tests use UTF-8")?;
    mount(&["-t", "tmpfs", "-o", &format!("size={size_mib}m"), "none", directory])
}

/// Runs `body` on a thread to which the kernel answers `io_uring_setup` with EPERM, as it does in many containers.
///
/// # Errors
/// Those of `body`.
///
/// # Panics
/// If the kernel does not take the filter, which needs no privilege.
pub fn without_io_uring<T: Send>(body: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let confined = || {
        deny_io_uring();
        body()
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn deny_io_uring() {
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt, jf, k };
    let denied = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("it is positive");
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("numbers of system calls are small");
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, denied),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter, whose length is right, live until both calls are over.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program), 0);
    }
}
