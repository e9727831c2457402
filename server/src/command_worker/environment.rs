//! The variables of a command: inherited or cron's few, then those of its account, then the job's, then what it is told of
//! its attempt. Later ones win.

use super::{CommandPayload, Invocation, account::Account, allow::PATH_DEFAULT};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// The shell of a command with an account, as with cron: whatever the account's login shell may be.
const SHELL: &str = "/bin/sh";

/// All variables of a command. `account` is there for commands that have a user or a clean environment.
pub(super) fn build(
    inherited: BTreeMap<OsString, OsString>,
    account: Option<&Account>,
    payload: &CommandPayload,
    invocation: &Invocation,
) -> BTreeMap<OsString, OsString> {
    let mut env = if payload.clean_env { BTreeMap::from([("PATH".into(), PATH_DEFAULT.into())]) } else { inherited };
    if let Some(account) = account {
        let name = OsStr::new(&account.name);
        let own = [("HOME", account.home.as_os_str()), ("LOGNAME", name), ("USER", name), ("SHELL", OsStr::new(SHELL))];
        env.extend(own.map(|(name, value)| (name.into(), value.to_owned())));
    }
    env.extend(payload.env.iter().map(|(name, value)| (name.into(), value.into())));
    env.extend(attempt(invocation).map(|(name, value)| (name.into(), value.into())));
    env
}

fn attempt(invocation: &Invocation) -> [(&'static str, String); 6] {
    [
        ("TICKWHEEL_TENANT", invocation.tenant.clone()),
        ("TICKWHEEL_JOB", invocation.job.clone()),
        ("TICKWHEEL_EXECUTION", invocation.execution.to_string()),
        ("TICKWHEEL_ATTEMPT", invocation.attempt.to_string()),
        ("TICKWHEEL_TOKEN", invocation.token.0.to_string()),
        ("TICKWHEEL_SCHEDULED_AT", rfc3339(invocation)),
    ]
}

/// When the execution was to fire, in UTC; beyond the year 9999 as microseconds.
fn rfc3339(invocation: &Invocation) -> String {
    let micros = invocation.scheduled_at.as_micros();
    let time = i64::try_from(micros).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    time.map_or_else(|| micros.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_client::{ExecutionId, FireSequence, JobId, PartitionId, Timestamp, Token};

    fn invocation() -> Invocation {
        Invocation {
            tenant: "acme".to_owned(),
            job: "report".to_owned(),
            execution: ExecutionId { job: JobId::new(PartitionId(1), 2, 3), fire_sequence: FireSequence(7) },
            attempt: 2,
            token: Token(11),
            scheduled_at: Timestamp::from_micros(1_767_225_600_000_000),
            payload: Vec::new(),
        }
    }

    fn check(payload: &CommandPayload, account: Option<&Account>, expected: &[(&str, Option<&str>)]) {
        let inherited = BTreeMap::from([("PATH".into(), "/sbin".into()), ("LANG".into(), "C".into())]);
        let env = build(inherited, account, payload, &invocation());
        for (name, value) in expected {
            assert_eq!(env.get(OsStr::new(name)).map(OsString::as_os_str), value.map(OsStr::new), "{name}");
        }
    }

    fn account() -> Account {
        Account { uid: 1, gid: 1, name: "daemon".to_owned(), home: "/usr/sbin".into(), groups: Vec::new() }
    }

    #[test]
    fn a_command_inherits_and_is_told_of_its_attempt() {
        let told = [
            ("PATH", Some("/sbin")),
            ("LANG", Some("C")),
            ("HOME", None),
            ("TICKWHEEL_TENANT", Some("acme")),
            ("TICKWHEEL_JOB", Some("report")),
            ("TICKWHEEL_EXECUTION", Some("1.3.2/7")),
            ("TICKWHEEL_ATTEMPT", Some("2")),
            ("TICKWHEEL_TOKEN", Some("11")),
            ("TICKWHEEL_SCHEDULED_AT", Some("2026-01-01T00:00:00Z")),
        ];
        check(&CommandPayload::new(Vec::new()), None, &told);
    }

    #[test]
    fn a_clean_environment_is_that_of_cron() {
        let payload = CommandPayload { clean_env: true, ..CommandPayload::new(Vec::new()) };
        let of_cron = [
            ("PATH", Some("/usr/bin:/bin")),
            ("SHELL", Some("/bin/sh")),
            ("HOME", Some("/usr/sbin")),
            ("LOGNAME", Some("daemon")),
            ("USER", Some("daemon")),
            ("LANG", None),
        ];
        check(&payload, Some(&account()), &of_cron);
    }

    #[test]
    fn the_jobs_variables_win_but_not_over_what_the_attempt_is() {
        let env = [("HOME", "/srv"), ("PATH", "/opt"), ("TICKWHEEL_TOKEN", "0")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let payload = CommandPayload { env, ..CommandPayload::new(Vec::new()) };
        let expected = [("HOME", Some("/srv")), ("PATH", Some("/opt")), ("TICKWHEEL_TOKEN", Some("11"))];
        check(&payload, Some(&account()), &expected);
    }
}
