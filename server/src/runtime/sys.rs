//! The few system calls that the standard library does not wrap, each behind a safe function.
//!
//! Invariant: no function here keeps a pointer beyond its return. Deliberately absent: io_uring (see `device`) and
//! anything with a policy.
#![expect(unsafe_code, reason = "thin wrappers of libc calls")]

use std::{
    fs::File,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

/// Most descriptors that one [`wait_readable`] watches.
pub(super) const SOURCES_MAX: usize = 4;

/// Turns the `-1` of a libc call into the calling thread's last error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for a call without a wrapper.
fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A non-blocking eventfd with the count 0; reading it takes the count, writing adds.
pub(super) fn eventfd() -> io::Result<File> {
    // SAFETY: `eventfd` takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    // SAFETY: `fd` was just opened and nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Waits until one of `sources` is readable (or broken) or `timeout` has passed; `None` waits without end.
///
/// Bit `i` of the result is set when `sources[i]` is ready; zero means that the time is over.
///
/// # Errors
/// `Interrupted` when a signal came first.
///
/// # Panics
/// If there are more than [`SOURCES_MAX`] sources.
pub(super) fn wait_readable(sources: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<u32> {
    assert!(sources.len() <= SOURCES_MAX, "the list of sources is fixed and short");
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; SOURCES_MAX];
    for (slot, source) in polled.iter_mut().zip(sources) {
        slot.fd = source.as_raw_fd();
    }
    let limit = timeout.map(|duration| libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos()),
    });
    let limit_pointer = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `polled` and `limit` live beyond the call, and the length given is that of `sources`, at most that of
    // `polled`; a null timeout and a null signal mask are allowed.
    check(unsafe { libc::ppoll(polled.as_mut_ptr(), sources.len() as libc::nfds_t, limit_pointer, ptr::null()) })?;
    Ok(polled.iter().enumerate().filter(|(_, slot)| slot.revents != 0).fold(0, |bits, (index, _)| bits | 1 << index))
}

/// Lets the calling thread's timers fire as precisely as the kernel can, instead of up to 50 us late.
pub(super) fn request_precise_timers() -> io::Result<()> {
    // SAFETY: this option takes one integer and no pointers. The value is the slack in nanoseconds.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) }).map(drop)
}

/// Asks for the calling thread to be let in soon when others run on its core: a time slice of `slice`, from which the fair scheduler
/// of Linux 6.12 and later sets deadlines (EEVDF), so that who wants little waits little. Older kernels take no notice; a thread that runs
/// under another policy is left as it is.
pub(super) fn request_time_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = scheduling()?;
    let fair_policies = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(libc::c_int::cast_unsigned);
    if !fair_policies.contains(&attributes.sched_policy) {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the pointer is valid for reading the size that the structure names.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// How the calling thread is scheduled.
fn scheduling() -> io::Result<libc::sched_attr> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut attributes = unsafe { MaybeUninit::<libc::sched_attr>::zeroed().assume_init() };
    let bytes = libc::c_uint::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    // SAFETY: the pointer is valid for writing the size that is passed; 0 is the calling thread.
    check_long(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) })?;
    Ok(attributes)
}

/// The cores that the calling thread may run on, in rising order.
pub(super) fn allowed_cores() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the pointer is valid for the size that is passed; all zeroes is an empty set.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: it was zeroed and then filled by the kernel.
    let set = unsafe { set.assume_init() };
    let core_count_max = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: every index is below `CPU_SETSIZE`.
    Ok((0..core_count_max).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// The set that holds `cores`; those the type cannot hold are left out.
pub(super) fn core_set(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: all zeroes is an empty set.
    let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    let core_count_max = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    for &core in cores.iter().filter(|&&core| core < core_count_max) {
        // SAFETY: the index is below `CPU_SETSIZE`.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    set
}

/// The soft and the hard limit of locked memory, in bytes; `u64::MAX` is none.
pub(super) fn locked_memory_limits() -> io::Result<(u64, u64)> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for writing.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limits) })?;
    Ok((limits.rlim_cur, limits.rlim_max))
}

/// Sets the soft and the hard limit of locked memory, in bytes.
pub(super) fn set_locked_memory_limits(soft_bytes: u64, hard_bytes: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: soft_bytes, rlim_max: hard_bytes };
    // SAFETY: the pointer is valid for reading.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limits) }).map(drop)
}

/// Sets an integer option of a socket.
pub(super) fn set_socket_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the pointer is valid for reading `length` bytes.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) }).map(drop)
}

/// Reserves `bytes` of disk space for `file` from its start. A file system that cannot reserve is no error.
pub(super) fn reserve_space(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: `fallocate` takes no pointers.
    match check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) }) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        result => result.map(drop),
    }
}

/// Lets the calling thread run on `cores` only.
pub(super) fn run_on(cores: &[usize]) -> io::Result<()> {
    let set = core_set(cores);
    // SAFETY: the pointer is valid for reading the size that is passed.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_a_time_slice_changes_that_alone() {
        std::thread::spawn(|| {
            let before = scheduling().expect("the system tells");
            request_time_slice(Duration::from_micros(100)).expect("an unprivileged wish");
            let after = scheduling().expect("the system tells");
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            // Kernels before 6.12 keep none.
            assert!([0, 100_000].contains(&after.sched_runtime), "{}", after.sched_runtime);
        })
        .join()
        .expect("the thread does not panic");
    }
}
