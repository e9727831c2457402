//! Timers of systemd, and the jobs that they become.

use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;
use tickwheel_client::{DayRule, DstGap, JobDefinition, Misfire, Overlap, Schedule};
use tickwheel_server::{
    command_worker::{CommandPayload, HANDLER},
    import::{
        ImportedJob,
        systemd::{Import, RefusedReason, import_in_zone},
    },
};

/// A folder of units.
struct Units(TempDir);

impl Units {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn import(&self) -> Import {
        import_in_zone(self.0.path(), "Europe/Berlin").expect("a folder of timers")
    }
}

/// What becomes of a timer and its service with these keys.
fn read(timer: &str, service: &str) -> Import {
    let timer = format!("[Unit]\nDescription=x\n[Timer]\n{timer}[Install]\nWantedBy=timers.target\n");
    Units::new(&[("x.timer", &timer), ("x.service", &format!("[Service]\n{service}"))]).import()
}

/// The only job of an import that refuses nothing.
#[track_caller]
fn only(import: Import) -> ImportedJob {
    assert_eq!(import.refused, []);
    let [job] = <[ImportedJob; 1]>::try_from(import.jobs).expect("one job");
    job
}

/// The only reason of an import that gives nothing else, with its line and text.
#[track_caller]
fn refused(import: &Import) -> (Option<usize>, &str, &RefusedReason) {
    assert_eq!((import.jobs.as_slice(), import.refused.len()), (&[][..], 1), "{:?}", import.refused);
    let refused = &import.refused[0];
    (refused.line, &refused.text, &refused.reason)
}

fn payload(definition: &JobDefinition) -> CommandPayload {
    CommandPayload::decode(&definition.payload).expect("what was imported can run")
}

fn cron(expression: &str) -> Schedule {
    Schedule::Cron { expression: expression.to_owned(), zone: "Europe/Berlin".to_owned() }
}

/// One of the notes holds `words`, if there are any.
#[track_caller]
fn has_note(job: &ImportedJob, words: &str) {
    let found = words.is_empty() || job.notes.iter().any(|note| note.contains(words));
    assert!(found, "{words:?}: {:?}", job.notes);
}

const DAILY: &str = "OnCalendar=daily\n";
const TRUE: &str = "ExecStart=/bin/true\n";

#[test]
fn a_timer_becomes_a_job_that_does_what_systemd_would() {
    let job = only(read(DAILY, TRUE));
    let definition = &job.definition;
    assert_eq!((job.line, job.paused, definition.name.as_str()), (4, None, "systemd/x"));
    assert!(job.file.ends_with("x.timer"));
    assert_eq!((definition.handler.as_str(), &definition.schedule), (HANDLER, &cron("0 0 * * *")));
    assert_eq!((definition.retry.attempts_max, definition.start_to_close), (1, None));
    let rules = definition.rules;
    assert_eq!((rules.misfire, rules.misfire_grace_ms), (Misfire::Skip, 60_000));
    assert_eq!((rules.overlap, rules.dst_gap, rules.jitter_ms), (Overlap::Skip, DstGap::Skip, 0));
    let payload = payload(definition);
    assert_eq!((payload.argv.as_slice(), payload.dir.as_deref()), (&["/bin/true".to_owned()][..], Some("/")));
    assert_eq!((payload.clean_env, payload.user.as_deref()), (true, None));
    assert_eq!(payload.env["PATH"], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    has_note(&job, "worker's own user");
}

type Check = fn(&JobDefinition) -> bool;

#[test]
fn every_key_of_a_timer_has_its_rule() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let cases: &[(&str, Check, &str)] = &[
        (
            "OnCalendar=Mon *-*-* 06:00 UTC\n",
            |job| matches!(&job.schedule, Schedule::Cron { zone, .. } if zone == "UTC"),
            "",
        ),
        ("OnCalendar=daily\nPersistent=true\n", |job| job.rules.misfire == Misfire::FireOnce, ""),
        ("OnCalendar=daily\nAccuracySec=1h\n", |job| job.rules.misfire_grace_ms == 3_600_000, ""),
        ("OnCalendar=daily\nAccuracySec=1us\n", |job| job.rules.misfire_grace_ms == 60_000, ""),
        ("OnCalendar=daily\nRandomizedDelaySec=30min\n", |job| job.rules.jitter_ms == 1_800_000, ""),
        ("OnCalendar=daily\nRandomizedDelaySec=3d\n", |job| job.rules.jitter_ms == 86_400_000, "a day at most"),
        (
            "OnCalendar=daily\nRandomizedDelaySec=1h\nFixedRandomDelay=yes\n",
            |job| job.rules.jitter_ms == 3_600_000,
            "`FixedRandomDelay=`",
        ),
        ("OnCalendar=daily\nWakeSystem=yes\nOnClockChange=no\n", |_| true, "`WakeSystem` has no effect"),
        ("OnCalendar=hourly\nOnCalendar=\nOnCalendar=weekly\n", |job| job.schedule == cron("0 0 * * 1"), ""),
        ("OnCalendar=@1893456000\n", |job| matches!(job.schedule, Schedule::Once { .. }), ""),
        ("OnActiveSec=5min\n", |job| matches!(job.schedule, Schedule::After { .. }), "it runs once"),
        (
            "OnBootSec=15min\nOnUnitActiveSec=1d\n",
            |job| matches!(job.schedule, Schedule::Interval { anchor: None, .. }),
            "`OnBootSec=` has no effect",
        ),
    ];
    for (timer, check, note) in cases {
        let job = only(read(timer, TRUE));
        assert!(check(&job.definition), "{timer}: {:?}", job.definition);
        has_note(&job, note);
    }
    let every = only(read("OnUnitActiveSec=90min\n", TRUE)).definition.schedule;
    assert_eq!(every, Schedule::Interval { every: minutes(90), anchor: None });
    let delay = only(read("OnUnitInactiveSec=10\n", TRUE)).definition.schedule;
    assert_eq!(delay, Schedule::FixedDelay { delay: Duration::from_secs(10) });
}

#[test]
fn triggers_are_one_job_where_their_rules_agree() {
    let import = read("OnCalendar=Mon 10:00\nOnCalendar=Fri *-13-13\nOnCalendar=hourly\nOnUnitInactiveSec=5h\n", TRUE);
    let jobs: Vec<_> = import.jobs.iter().map(|job| (job.line, job.definition.name.as_str())).collect();
    assert_eq!(jobs, [(4, "systemd/x"), (7, "systemd/x-4")]);
    assert!(import.jobs[0].definition.schedules().eq([cron("0 10 * * 1"), cron("0 * * * *")]));
    assert_eq!(import.refused.len(), 1);
    let part = &import.refused[0];
    assert_eq!((part.line, part.text.as_str()), (Some(5), "OnCalendar=Fri *-13-13"));
    assert_eq!(part.reason, RefusedReason::Calendar);
    has_note(&import.jobs[0], "2 jobs");

    let names = |timer: &str| -> Vec<(String, usize)> {
        let jobs = read(timer, TRUE).jobs;
        jobs.iter().map(|job| (job.definition.name.clone(), job.definition.schedules().count())).collect()
    };
    let job = |name: &str, count| (format!("systemd/{name}"), count);
    // An interval makes up for what was missed, and so does a calendar event that says so.
    assert_eq!(names("OnCalendar=daily\nOnUnitActiveSec=1h\n"), [job("x", 1), job("x-2", 1)]);
    assert_eq!(names("OnCalendar=daily\nOnUnitActiveSec=1h\nPersistent=yes\n"), [job("x", 2)]);
    assert_eq!(names("OnUnitInactiveSec=1h\nOnUnitInactiveSec=2h\n"), [job("x", 1), job("x-2", 1)]);
    assert_eq!(names("OnCalendar=Fri *-13-13\nOnCalendar=daily\n"), [job("x-2", 1)]);
    for timer in ["OnCalendar=Fri *-*-13\nOnCalendar=Mon\n", "OnCalendar=Mon\nOnCalendar=Fri *-*-13\n"] {
        let rules = only(read(timer, TRUE)).definition.rules;
        assert_eq!((rules.day_rule, rules.dst_gap), (DayRule::And, DstGap::Skip), "{timer}");
    }
    assert_eq!(names(&"OnCalendar=daily\n".repeat(17)), [job("x", 16), job("x-17", 1)]);
    let one = only(read("OnCalendar=@4102444800\nOnCalendar=daily\n", TRUE));
    assert_eq!((one.definition.rules.dst_gap, one.definition.schedules().count()), (DstGap::Skip, 2));
    assert!(!one.notes.iter().any(|note| note.contains("jobs")), "{:?}", one.notes);
}

#[test]
fn every_key_of_a_service_has_its_rule() {
    let cases: &[(&str, Check, &str)] = &[
        ("Type=oneshot\nTimeoutStartSec=5min\n", |job| job.start_to_close == Some(Duration::from_secs(300)), ""),
        ("Type=oneshot\nTimeoutSec=90\nTimeoutStartSec=infinity\n", |job| job.start_to_close.is_none(), ""),
        ("TimeoutStartSec=5min\n", |job| job.start_to_close.is_none(), ""),
        ("RuntimeMaxSec=2h\n", |job| job.start_to_close == Some(Duration::from_secs(7_200)), ""),
        ("Restart=no\n", |job| job.retry.attempts_max == 1, ""),
        ("Restart=on-abnormal\n", |job| job.retry.attempts_max == 1, "is not repeated"),
        (
            "Restart=on-failure\n",
            |job| (job.retry.attempts_max, job.retry.initial_ms, job.retry.delay_ms_max) == (5, 100, 100),
            "",
        ),
        (
            "Restart=on-failure\nRestartSec=1min\n",
            |job| (job.retry.attempts_max, job.retry.initial_ms, job.retry.multiplier_milli) == (1_000, 60_000, 1_000),
            "for ever",
        ),
        (
            "Restart=on-failure\nRestartSec=30\n[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n",
            |job| job.retry.attempts_max == 3,
            "",
        ),
        ("User=backup\n", |job| payload(job).user.as_deref() == Some("backup"), ""),
        ("WorkingDirectory=-/srv/%N\n", |job| payload(job).dir.as_deref() == Some("/srv/x"), "does not exist"),
        ("WorkingDirectory=~\n", |job| payload(job).dir.is_none(), ""),
        (
            "Environment=A=1 \"B=b c\"\nEnvironment=A=2\n",
            |job| payload(job).env["A"] == "2" && payload(job).env["B"] == "b c",
            "",
        ),
        (
            "Environment=A=1\nEnvironment=\nEnvironment=PATH=/bin\n",
            |job| payload(job).env.len() == 1 && payload(job).env["PATH"] == "/bin",
            "",
        ),
        (
            "Nice=19\nPrivateTmp=yes\n[Unit]\nAfter=network.target\n",
            |_| true,
            "`After`, `Nice` and `PrivateTmp` have no effect",
        ),
        ("StandardOutput=journal\nPrivateTmp=no\n", |_| true, ""),
        ("RemainAfterExit=yes\n", |_| true, "`RemainAfterExit` has no effect"),
    ];
    for (service, check, note) in cases {
        let job = only(read(DAILY, &format!("{TRUE}{service}")));
        assert!(check(&job.definition), "{service}: {:?}", job.definition);
        has_note(&job, note);
    }
}

#[test]
fn command_lines_are_read_as_systemd_does() {
    let several = "ExecStartPre=-/bin/rm -f \"/tmp/a b\"\nExecStart=/bin/make x\nExecStart=/bin/send it's\\x20me'\n";
    for (service, argv) in [
        ("ExecStart=/bin/echo %% %N \"a b\" $$x\n", &["/bin/echo", "%", "x", "a b", "$x"][..]),
        ("Environment=\"O=-a -b\"\nExecStart=/bin/run $O ${O}\n", &["/bin/run", "-a", "-b", "-a -b"]),
        ("Environment=O=1\nExecStart=:/bin/run $O ${O}\n", &["/bin/run", "$O", "${O}"]),
        ("ExecStart=+/bin/run \\\n  on \\\n  goes\n", &["/bin/run", "on", "goes"]),
        ("ExecStart=@/bin/run title arg\n", &["/bin/run", "arg"]),
        ("ExecStart=/bin/find . -exec rm {} \\;\n", &["/bin/find", ".", "-exec", "rm", "{}", ";"]),
        ("ExecStart=-/bin/false\n", &["/bin/sh", "-c", "{ /bin/false || :; }"]),
        ("ExecStart=/bin/old\nExecStart=\nExecStart=/bin/new\n", &["/bin/new"]),
        (
            &several.replace("it's\\x20me'", "'it is'"),
            &["/bin/sh", "-c", "{ /bin/rm -f '/tmp/a b' || :; } && /bin/make x && /bin/send 'it is'"],
        ),
    ] {
        let job = only(read(DAILY, service));
        assert_eq!(payload(&job.definition).argv, argv, "{service}");
    }
    has_note(&only(read(DAILY, "ExecStart=/bin/a\nExecStart=/bin/b\n")), "joined through `/bin/sh`");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_line() {
    let value = |expected| RefusedReason::Value { expected };
    let variable = |name: &str| RefusedReason::UnknownVariable { variable: name.to_owned() };
    for (timer, service, line, reason) in [
        ("", TRUE, None, RefusedReason::NoTrigger),
        ("OnBootSec=10min\n", TRUE, Some(4), RefusedReason::Boot),
        ("OnCalendar=fortnightly\n", TRUE, Some(4), RefusedReason::Calendar),
        ("OnUnitActiveSec=soon\n", TRUE, Some(4), value("a time span")),
        ("OnUnitActiveSec=0\n", TRUE, Some(4), value("a time to wait")),
        ("OnCalendar=daily\nPersistent=perhaps\n", TRUE, Some(5), value("yes or no")),
        ("OnCalendar=daily\nUnit=backup.target\n", TRUE, Some(5), RefusedReason::NoService),
        (
            "OnCalendar=daily\nUnit=y.service\n",
            TRUE,
            Some(4),
            RefusedReason::ServiceMissing { service: "y.service".to_owned() },
        ),
        ("OnCalendar daily\n", TRUE, Some(4), RefusedReason::NoAssignment),
        (DAILY, "", Some(4), RefusedReason::NoCommand { service: "x.service".to_owned() }),
        (DAILY, "ExecStart=-\n", Some(2), RefusedReason::NoProgram),
        (DAILY, "ExecStart=/bin/a 'b\n", Some(2), RefusedReason::OpenQuote),
        (DAILY, "ExecStart=/bin/a \\q\n", Some(2), RefusedReason::Escape),
        (DAILY, "ExecStart=/bin/a %H\n", Some(2), RefusedReason::Specifier { specifier: 'H' }),
        (DAILY, "ExecStart=/bin/a $HOME\n", Some(2), variable("HOME")),
        (DAILY, "ExecStart=/bin/a ; /bin/b\n", Some(2), RefusedReason::Semicolon),
        (DAILY, "User=a\nExecStart=!!/bin/a\n", Some(3), RefusedReason::Prefix { prefix: '!' }),
        (DAILY, "ExecStart=/bin/a\nType=forking\n", Some(3), RefusedReason::Forking),
        (DAILY, "ExecStart=/bin/a\nRestart=always\n", Some(3), RefusedReason::RunsForEver),
        (DAILY, "ExecStart=/bin/a\nRestart=often\n", Some(3), value("a rule for restarts")),
        (DAILY, "ExecStart=/bin/a\nEnvironment=A\n", Some(3), value("NAME=value")),
    ] {
        let import = read(timer, service);
        let (found_line, _, found) = refused(&import);
        assert_eq!((found_line, found), (line, &reason), "{timer}{service}");
    }
    for key in ["EnvironmentFile=-/etc/default/x", "ExecCondition=/bin/a", "DynamicUser=yes", "RootDirectory=/x"] {
        let import = read(DAILY, &format!("{TRUE}{key}\n"));
        let (line, text, reason) = refused(&import);
        assert!(matches!(reason, RefusedReason::Unavailable { .. }), "{key}: {reason}");
        assert_eq!((line, text), (Some(3), key));
    }
    assert_eq!(read(DAILY, &format!("{TRUE}DynamicUser=no\n")).jobs.len(), 1);
}

/// What a machine may have.
fn machine() -> Units {
    Units::new(&[
        (
            "backup.timer",
            "[Unit]\nDescription=Backup every night\n\n[Timer]\nOnCalendar=*-*-* 01:30\nRandomizedDelaySec=15m\nPersistent=true\n",
        ),
        ("backup.timer.d/10-time.conf", "[Timer]\nOnCalendar=\nOnCalendar=Mon..Sat *-*-* 02:15:30\n"),
        (
            "backup.service",
            "[Unit]\nAfter=network-online.target\n[Service]\nType=oneshot\nUser=backup\nEnvironment=REPO=/srv/repo\n\
             ExecStart=/usr/bin/backup --repo ${REPO} \\\n    --keep 7\nTimeoutStartSec=2h\n",
        ),
        ("backup.service.d/override.conf", "[Service]\nEnvironment=REPO=/mnt/repo\n"),
        ("sync@home.timer", "[Timer]\nOnUnitInactiveSec=20min\nOnBootSec=1min\n"),
        ("sync@.timer", "[Timer]\nOnCalendar=hourly\n"),
        ("sync@.service", "[Service]\nExecStart=/usr/bin/sync-folder %i\n"),
        ("check.timer", "[Timer]\nOnCalendar=Sun *-*-1..7 18:00\nUnit=fsck.service\n"),
        ("fsck.service", "[Service]\nType=oneshot\nExecStart=/sbin/fsck -A\n"),
        ("lone.timer", "[Timer]\nOnCalendar=daily\n"),
        ("other.service", "[Service]\nExecStart=/bin/other\n"),
        ("README", "not a unit"),
    ])
}

#[test]
fn the_timers_of_a_folder_are_imported_with_their_drop_ins() {
    let units = machine();
    let Import { jobs, refused, .. } = units.import();
    let names: Vec<_> = jobs.iter().map(|job| job.definition.name.as_str()).collect();
    assert_eq!(names, ["systemd/backup", "systemd/check", "systemd/sync@home"]);
    let backup = &jobs[0];
    assert_eq!((backup.file.clone(), backup.line), (units.path("backup.timer.d/10-time.conf"), 3));
    assert_eq!(backup.definition.schedule, cron("30 15 2 * * 1-6"));
    assert_eq!((backup.definition.rules.misfire, backup.definition.rules.jitter_ms), (Misfire::FireOnce, 900_000));
    assert_eq!(payload(&backup.definition).argv, ["/usr/bin/backup", "--repo", "/mnt/repo", "--keep", "7"]);
    assert_eq!(jobs[1].definition.schedule, cron("0 18 * * 0#1"));
    assert_eq!(payload(&jobs[1].definition).argv, ["/sbin/fsck", "-A"]);
    assert_eq!(payload(&jobs[2].definition).argv, ["/usr/bin/sync-folder", "home"]);
    let refused: Vec<_> = refused.iter().map(|part| (part.file.clone(), part.reason.clone())).collect();
    let missing = RefusedReason::ServiceMissing { service: "lone.service".to_owned() };
    let template = RefusedReason::Template { example: "sync@main.timer".to_owned() };
    assert_eq!(refused, [(units.path("lone.timer"), missing), (units.path("sync@.timer"), template)]);
}

#[test]
fn a_single_timer_is_imported_with_what_lies_beside_it() {
    let units = machine();
    let job = only(import_in_zone(&units.path("backup.timer"), "UTC").expect("a timer"));
    assert_eq!(job.definition.start_to_close, Some(Duration::from_secs(7_200)));
    for name in ["backup.service", "README", "gone.timer"] {
        assert!(import_in_zone(&units.path(name), "UTC").is_err(), "{name}");
    }
    assert!(import_in_zone(&units.path("backup.timer.d"), "UTC").is_err(), "a folder without timers");
}
