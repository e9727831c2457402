//! Crontabs as they are found on machines, and the jobs that they become.

use std::{fs, path::Path};
use tickwheel_client::{JobDefinition, Schedule};
use tickwheel_engine::schedule::{self, CronError, Zones};
use tickwheel_server::{
    command_worker::{CommandPayload, HANDLER},
    import::{
        ImportedJob,
        crontab::{Format, Import, RefusedReason, import, import_in_zone},
    },
};
use tickwheel_wire::Timestamp;

fn user(text: &str) -> Import {
    import_in_zone(text, "/home/alice/jobs".as_ref(), Format::User, "UTC")
}

fn system(text: &str) -> Import {
    import_in_zone(text, "/etc/cron.d/package".as_ref(), Format::System, "UTC")
}

fn payload(definition: &JobDefinition) -> CommandPayload {
    CommandPayload::decode(&definition.payload).expect("what was imported can run")
}

fn cron(definition: &JobDefinition) -> (&str, &str) {
    match &definition.schedule {
        Schedule::Cron { expression, zone } => (expression, zone),
        other => panic!("a crontab makes cron schedules, not {other:?}"),
    }
}

/// The only job of a text that has no refused lines.
#[track_caller]
fn only(import: Import) -> ImportedJob {
    assert_eq!(import.refused, []);
    let [job] = <[ImportedJob; 1]>::try_from(import.jobs).expect("one job");
    job
}

#[test]
fn a_line_becomes_a_job_that_does_what_cron_would() {
    let job = only(user("*/10  *\t* * 1-5  echo \"a  b\"; date\n"));
    assert_eq!((job.line, cron(&job.definition), job.notes.len()), (1, ("*/10 * * * 1-5", "UTC"), 0));
    assert_eq!((job.definition.handler.as_str(), job.definition.tenant.as_str()), (HANDLER, ""));
    assert_eq!(job.definition.retry.attempts_max, 1, "cron does not retry");
    assert_eq!(job.definition.start_to_close, None, "cron waits for ever");
    let payload = payload(&job.definition);
    assert_eq!(payload.argv, ["/bin/sh", "-c", "echo \"a  b\"; date"]);
    assert!(payload.clean_env && payload.env.is_empty() && payload.user.is_none() && payload.stdin.is_none());
}

#[test]
fn every_shorthand_but_reboot_is_a_schedule() {
    for word in ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"] {
        assert_eq!(cron(&only(user(&format!("{word} x\n"))).definition).0, word);
    }
    let import = user("# start\n@reboot  /usr/bin/agent\n@daily x\n");
    assert_eq!((import.jobs.len(), import.refused.len()), (1, 1));
    let refused = &import.refused[0];
    assert_eq!((refused.line, refused.text.as_str()), (Some(2), "@reboot  /usr/bin/agent"));
    assert_eq!(refused.reason, RefusedReason::Schedule(CronError::Reboot));
}

#[test]
fn variables_hold_for_the_lines_that_follow() {
    let import = user(
        "@daily first\nSHELL=/bin/bash\nPATH = \"/opt/bin:/bin\"\n@daily second\nPATH=/bin\nSHELL=\n@daily third\n",
    );
    assert_eq!(import.refused, []);
    let payloads: Vec<_> = import.jobs.iter().map(|job| payload(&job.definition)).collect();
    let path = |index: usize| payloads[index].env.get("PATH").map(String::as_str);
    let shell = |index: usize| payloads[index].argv[0].as_str();
    assert_eq!((path(0), path(1), path(2)), (None, Some("/opt/bin:/bin"), Some("/bin")));
    assert_eq!((shell(0), shell(1), shell(2)), ("/bin/sh", "/bin/bash", "/bin/sh"));
}

#[test]
fn what_has_no_effect_is_noted_with_the_next_job() {
    let text = "MAILTO=ops@example.org\nLOGNAME=bob\nPATH=$HOME/bin:/bin\n@daily x\n@daily y\nMAILTO=\"\"\n-@daily z";
    let import = user(text);
    let notes = |index: usize| import.jobs[index].notes.join("|");
    assert!(["MAILTO", "LOGNAME", "PATH"].iter().all(|name| notes(0).contains(name)), "{}", notes(0));
    assert_eq!(notes(1), "");
    assert!(notes(2).contains("no end") && notes(2).contains("`-`") && !notes(2).contains("MAILTO"), "{}", notes(2));
    let env = payload(&import.jobs[1].definition).env;
    assert_eq!(
        (env.get("LOGNAME"), env["MAILTO"].as_str(), env["PATH"].as_str()),
        (None, "ops@example.org", "$HOME/bin:/bin")
    );
}

#[test]
fn the_zone_of_a_schedule_is_that_of_cron_tz() {
    let import = user("0 6 * * * a\nCRON_TZ=europe/berlin\n0 6 * * * b\nTZ=Asia/Tokyo\n0 6 * * * c\n");
    let zones: Vec<_> = import.jobs.iter().map(|job| cron(&job.definition).1).collect();
    assert_eq!(zones, ["UTC", "Europe/Berlin", "Europe/Berlin"]);
    let env = payload(&import.jobs[2].definition).env;
    assert_eq!((env["TZ"].as_str(), env.len()), ("Asia/Tokyo", 1));
}

#[test]
fn an_unknown_zone_refuses_the_lines_that_it_would_govern() {
    let import = user("@daily a\nCRON_TZ=Mars/Olympus\n@daily b\nCRON_TZ=UTC\n@daily c\n");
    let lines: Vec<_> = import.refused.iter().map(|refused| refused.line).collect();
    assert_eq!((lines, import.jobs.len()), (vec![Some(2), Some(3)], 2));
    let text = import.refused[1].reason.to_string();
    assert!(text.contains("line 2") && text.contains("Mars/Olympus"), "{text}");
}

#[test]
fn bad_lines_are_refused_one_by_one_with_their_reasons() {
    for (line, words) in [
        ("61 * * * * x", "minute `61`"),
        ("* 24 * * * x", "hour `24`"),
        ("* * * * Funday x", "day of week `Funday`"),
        ("0 0 30 2 * x", "never fire"),
        ("@fortnightly x", "@fortnightly"),
        ("* * *", "3"),
        ("* * * * *", "command is missing"),
        ("* * * * *   %only input", "command is missing"),
        ("nonsense", "1"),
        ("0 5 * * backup.sh", "command is missing|backup.sh"),
        ("@daily a\0b", "NUL"),
        ("A='b' c", "2"),
    ] {
        let import = user(&format!("@daily before\n{line}\n@daily after\n"));
        assert_eq!((import.jobs.len(), import.refused.len()), (2, 1), "{line:?}");
        let refused = &import.refused[0];
        let reason = refused.reason.to_string();
        assert_eq!((refused.line, refused.text.as_str()), (Some(2), line));
        assert!(words.split('|').any(|words| reason.contains(words)), "{line:?}: {reason}");
    }
}

#[test]
fn a_user_crontab_read_as_a_system_one_is_not_imported_by_accident() {
    let import = system("0 5 * * * /usr/bin/backup --all\n");
    assert_eq!(import.jobs, []);
    let reason = import.refused[0].reason.to_string();
    assert!(reason.contains("`/usr/bin/backup`") && reason.contains("user"), "{reason}");
}

#[test]
fn percent_signs_make_input() {
    let job = only(user("0 9 * * 1 mail -s 50\\% boss%Hello,%bye\n"));
    let payload = payload(&job.definition);
    assert_eq!((payload.argv[2].as_str(), payload.stdin.as_deref()), ("mail -s 50% boss", Some("Hello,\nbye\n")));
}

#[test]
fn the_user_is_that_of_the_column_or_of_crons_own_folder() {
    let job = only(system("@daily www-data x\n"));
    assert_eq!(payload(&job.definition).user.as_deref(), Some("www-data"));
    let spool = import_in_zone("@daily x\n", "/var/spool/cron/crontabs/alice".as_ref(), Format::User, "UTC");
    assert_eq!(payload(&only(spool).definition).user.as_deref(), Some("alice"));
}

#[test]
fn the_form_is_known_from_the_path_and_a_mistaken_one_is_noted() {
    for (path, format) in [
        ("/etc/crontab", Format::System),
        ("/etc/cron.d/e2scrub_all", Format::System),
        ("/etc/cron.d.bak/e2scrub_all", Format::User),
        ("/home/alice/crontab", Format::User),
        ("/var/spool/cron/crontabs/alice", Format::User),
    ] {
        assert_eq!(Format::of(path.as_ref()), format, "{path}");
    }
    let mistaken = only(user("@daily root /usr/bin/backup\n"));
    assert!(mistaken.notes.iter().any(|note| note.contains("`root`") && note.contains("system")), "{mistaken:?}");
    assert_eq!(only(user("@daily /usr/bin/backup root\n")).notes, Vec::<String>::new());
}

#[test]
fn importing_again_updates_the_same_jobs() {
    let names = |text: &str| user(text).jobs.into_iter().map(|job| job.definition.name).collect::<Vec<_>>();
    let before = names("0 1 * * * backup\n0 2 * * * backup\n0 3 * * * report\n");
    let after = names("# moved\n30 1 * * * backup\n30 2 * * * backup\n30 3 * * * report\n");
    assert_eq!(before, after);
    assert!(before[0].starts_with("crontab/jobs/backup-") && before[1] == format!("{}-2", before[0]), "{before:?}");
    assert_ne!(names("0 3 * * * report --all\n"), before[2..]);
}

/// What packages install, in its several styles.
const PACKAGES: &[(&str, &str, usize)] = &[
    (
        "scrub",
        "17 3 * * 0 root test -e /run/systemd/system || MODE=1 /usr/sbin/scrub_cron\n\
         23 3 * * * root test -e /run/systemd/system || MODE=1 /usr/sbin/scrub -A -r\n",
        2,
    ),
    (
        "sessions",
        "# Removes what has expired,\n# every half hour\n\n09,39 *     * * *     root   [ -x /usr/lib/lang/clean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/lang/clean; fi\n",
        1,
    ),
    (
        "activity",
        "# The collector lies elsewhere\nPATH=/usr/lib/activity:/usr/sbin:/usr/bin:/sbin:/bin\n\n\
         5-55/10 * * * * root command -v collect > /dev/null && collect 1 1\n59 23 * * * root command -v collect > /dev/null && collect 60 2\n",
        2,
    ),
    (
        "renewal",
        "SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin\n\n\
         0 */12 * * * root test -x /usr/bin/renew -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(3600))' && renew -q\n",
        1,
    ),
    (
        "main",
        "SHELL=/bin/sh\n\
         17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n\
         25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }\n\
         47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }\n\
         52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }\n#\n",
        4,
    ),
    (
        "verify",
        "57 0 * * 0 root if [ -x /usr/share/raid/check ] && [ $(date +\\%d) -le 7 ]; then /usr/share/raid/check --quiet; fi\n",
        1,
    ),
];

#[test]
fn what_packages_install_is_imported_whole_and_fires() {
    for (file, text, count) in PACKAGES {
        let path = format!("/etc/cron.d/{file}");
        let import = import_in_zone(text, path.as_ref(), Format::System, "Europe/Berlin");
        assert_eq!((import.refused.as_slice(), import.jobs.len()), (&[][..], *count), "{file}");
        check_whole(&import, file);
    }
    let verify = import_in_zone(PACKAGES[5].1, "verify".as_ref(), Format::System, "UTC");
    assert!(payload(&only(verify).definition).argv[2].contains("$(date +%d)"));
}

#[test]
fn the_crontabs_of_this_machine_are_imported_whole() {
    let folder = fs::read_dir("/etc/cron.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folder.chain([Path::new("/etc/crontab").to_owned()]);
    for path in files.filter(|path| !path.ends_with(".placeholder")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let import = import(&text, &path, Format::System);
        let file = path.file_name().expect("a file").to_string_lossy();
        assert!(
            import.refused.iter().all(|refused| refused.text.trim().starts_with("@reboot")),
            "{:?}",
            import.refused
        );
        check_whole(&import, &file);
    }
}

/// Each job has a name of its own in the file's folder, a user, and a next fire.
fn check_whole(import: &Import, file: &str) {
    let mut names: Vec<_> = import.jobs.iter().map(|job| &job.definition.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), import.jobs.len());
    let mut zones = Zones::new();
    for ImportedJob { definition, .. } in &import.jobs {
        assert!(definition.name.starts_with(&format!("crontab/{file}/")), "{}", definition.name);
        assert!(payload(definition).user.is_some());
        let (expression, zone) = cron(definition);
        let schedule = schedule::Schedule::cron(expression, zone, &mut zones).expect("checked");
        assert!(schedule.next_after(Timestamp::from_secs(1_700_000_000)).is_some());
    }
}
