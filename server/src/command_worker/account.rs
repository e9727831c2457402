//! As whom a command runs.
//!
//! A user is honoured when it is the worker's own, or the worker is root. Looking a user up may ask a directory service, so it
//! happens on a thread that may block.

use super::{CommandError, sys};
use std::{ffi::CString, io, path::PathBuf};

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    pub name: String,
    pub home: PathBuf,
    /// The group of the user and those that it is a member of.
    pub groups: Vec<libc::gid_t>,
}

/// The account of a command, if it needs one, and whether the command has to be switched to it.
///
/// # Errors
/// [`CommandError::UserNotAllowed`].
pub(super) async fn settle(user: Option<&str>, clean_env: bool) -> Result<(Option<Account>, bool), CommandError> {
    if user.is_none() && !clean_env {
        return Ok((None, false));
    }
    let user = user.map(str::to_owned);
    let looked_up = tokio::task::spawn_blocking(move || look_up(user.as_deref()));
    looked_up.await.unwrap_or_else(|error| Err(CommandError::Lost(io::Error::other(error))))
}

fn look_up(user: Option<&str>) -> Result<(Option<Account>, bool), CommandError> {
    let own = sys::effective_user();
    let Some(user) = user else {
        // A worker may well run as a number without a name; its commands then have no home either.
        return Ok((sys::account_by_id(own).ok().flatten(), false));
    };
    let refused = |reason: String| CommandError::UserNotAllowed { user: user.to_owned(), reason };
    let name = CString::new(user).map_err(|_| refused("a name holds no NUL".to_owned()))?;
    let found = sys::account_by_name(&name).map_err(|error| refused(error.to_string()))?;
    let account = found.ok_or_else(|| refused("this machine does not know that user".to_owned()))?;
    if account.uid == own {
        return Ok((Some(account), false));
    }
    if own == ROOT {
        return Ok((Some(account), true));
    }
    Err(refused("the worker is neither that user nor root".to_owned()))
}

/// Whether this machine knows a user of this name.
pub(crate) fn is_user(name: &str) -> bool {
    let found = CString::new(name).map(|name| sys::account_by_name(&name));
    found.is_ok_and(|found| found.is_ok_and(|account| account.is_some()))
}

const ROOT: libc::uid_t = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_with_its_home_and_groups() {
        let account = sys::account_by_name(c"root").expect("the files can be read").expect("every system has it");
        assert_eq!((account.uid, account.gid, account.home.as_path()), (0, 0, "/root".as_ref()));
        assert!(account.groups.contains(&0));
        assert_eq!(sys::account_by_id(0).expect("the files can be read"), Some(account));
    }

    #[test]
    fn an_unknown_user_is_refused_for_good() {
        let error = look_up(Some("no-such-user-here")).expect_err("nobody has this name");
        assert_eq!((error.kind(), error.is_permanent()), ("user-not-allowed", true));
        assert!(error.to_string().contains("`no-such-user-here`"), "{error}");
    }

    #[test]
    fn the_workers_own_user_needs_no_switch_and_another_one_needs_root() {
        let own = sys::account_by_id(sys::effective_user()).expect("readable").expect("the tests run as a named user");
        assert_eq!(look_up(Some(&own.name)).expect("itself"), (Some(own.clone()), false));
        let other = if own.uid == ROOT { "nobody" } else { "root" };
        match look_up(Some(other)) {
            Ok((Some(account), switch)) => assert!(switch && own.uid == ROOT && account.name == other),
            Err(error) => assert!(own.uid != ROOT && error.kind() == "user-not-allowed"),
            Ok((None, _)) => panic!("a named user has an account"),
        }
    }
}
