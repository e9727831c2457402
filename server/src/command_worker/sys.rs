//! The system calls that the standard library does not wrap, each behind a safe function.
//!
//! Invariant: no function here keeps a pointer beyond its return.
#![expect(unsafe_code, reason = "thin wrappers of libc calls, and a hook between fork and exec")]

use super::account::Account;
use std::{
    ffi::{CStr, CString, OsStr},
    io,
    mem::MaybeUninit,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    process::Command,
    ptr,
};
use tokio::io::{Interest, unix::AsyncFd};

/// First size of the buffer for an account's texts, and the size at which looking it up is given up, in bytes.
const ACCOUNT_BYTES: usize = 1 << 10;
const ACCOUNT_BYTES_MAX: usize = 1 << 20;
/// Most groups of an account; the kernel allows no more.
const GROUPS_MAX: usize = 1 << 16;

/// Sends `signal` to every process of the group that `leader` leads.
///
/// # Errors
/// When there is no such group any more.
///
/// # Panics
/// If `leader` is 0 or 1, which would mean this process's own group or everybody.
pub(super) fn signal_group(leader: u32, signal: libc::c_int) -> io::Result<()> {
    assert!(leader > 1, "only groups of commands are signalled");
    let group = libc::pid_t::try_from(leader).map_err(io::Error::other)?;
    // SAFETY: `killpg` takes no pointers.
    if unsafe { libc::killpg(group, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that becomes readable when the child process ends. The process must not have been reaped.
///
/// # Panics
/// Outside of a tokio runtime.
pub(super) fn process_descriptor(process: u32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `pidfd_open` takes no pointers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = libc::c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just opened and nobody else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: the `AsyncFd` owns the descriptor, and nobody replaces or closes it in there.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// The user as whom this process acts.
pub(super) fn effective_user() -> libc::uid_t {
    // SAFETY: `geteuid` takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The account of this name, if there is one.
pub(super) fn account_by_name(name: &CStr) -> io::Result<Option<Account>> {
    look_up(|record, buffer, found| {
        // SAFETY: all pointers are valid for the call, and the buffer for the length given.
        unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// The account of this number, if there is one.
pub(super) fn account_by_id(uid: libc::uid_t) -> io::Result<Option<Account>> {
    look_up(|record, buffer, found| {
        // SAFETY: all pointers are valid for the call, and the buffer for the length given.
        unsafe { libc::getpwuid_r(uid, record, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Calls `ask`, one of the `getpw*_r` family, with a buffer that grows until the record fits.
fn look_up(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<Account>> {
    let mut bytes = ACCOUNT_BYTES;
    while bytes <= ACCOUNT_BYTES_MAX {
        let mut buffer: Vec<libc::c_char> = vec![0; bytes];
        let mut record = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        match ask(record.as_mut_ptr(), &mut buffer, &raw mut found) {
            libc::ERANGE => bytes *= 2,
            // "No such user" has several spellings besides an empty answer.
            0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: a result was found, so the record is filled.
                let record = unsafe { record.assume_init_ref() };
                return account(record).map(Some);
            }
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

/// Copies a record out of its buffer.
fn account(record: &libc::passwd) -> io::Result<Account> {
    // SAFETY: the record was filled by the system; its texts are terminated and live in a buffer that the caller holds.
    let (name, home) = unsafe { (CStr::from_ptr(record.pw_name), CStr::from_ptr(record.pw_dir)) };
    let groups = groups_of(name, record.pw_gid)?;
    Ok(Account {
        uid: record.pw_uid,
        gid: record.pw_gid,
        name: name.to_str().map_err(io::Error::other)?.to_owned(),
        home: OsStr::from_bytes(home.to_bytes()).into(),
        groups,
    })
}

/// The groups of a user, `gid` among them.
fn groups_of(name: &CStr, gid: libc::gid_t) -> io::Result<Vec<libc::gid_t>> {
    let mut groups = vec![0; 64];
    while groups.len() <= GROUPS_MAX {
        let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: the name is terminated, and there is room for as many groups as the count says.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let needed = usize::try_from(count).map_err(io::Error::other)?;
        if result >= 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        groups.resize(needed.max(groups.len() * 2), 0);
    }
    Err(io::Error::other("too many groups"))
}

/// Makes `command` start as `account`, in `dir`; this process has to be root. The folder is entered as that user, so that nobody
/// comes by this way to where they could not go.
pub(super) fn become_user(command: &mut Command, account: &Account, dir: Option<&OsStr>) -> io::Result<()> {
    let (uid, gid, groups) = (account.uid, account.gid, account.groups.clone());
    let dir = dir.map(|dir| CString::new(dir.as_bytes())).transpose()?;
    let switch = move || {
        // SAFETY: both pointers are valid, the first for as many groups as are named; the calls do not allocate.
        let switched = unsafe {
            libc::setgroups(groups.len(), groups.as_ptr()) == 0
                && libc::setgid(gid) == 0
                && libc::setuid(uid) == 0
                && dir.as_ref().is_none_or(|dir| libc::chdir(dir.as_ptr()) == 0)
        };
        if switched { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the hook makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(switch) };
    Ok(())
}
