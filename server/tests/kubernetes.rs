//! Manifests of Kubernetes, and the jobs that they become.

use std::time::Duration;
use tickwheel_client::{DstGap, DstOverlap, JobDefinition, Misfire, Overlap, Schedule};
use tickwheel_server::{
    command_worker::{CommandPayload, HANDLER},
    import::{
        ImportedJob,
        kubernetes::{Import, RefusedReason, import},
    },
};

/// A CronJob of the least that one needs, with more keys in its parts.
fn manifest(spec: &str, job: &str, pod: &str, container: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: backup\nspec:\n  schedule: \"0 3 * * *\"\n{spec}  jobTemplate:\n    \
         spec:\n{job}      template:\n        spec:\n{pod}          restartPolicy: Never\n          containers:\n          - name: main\n            \
         command: [\"/bin/backup\"]\n{container}"
    )
}

fn read(text: &str) -> Import {
    import(text, "jobs.yaml".as_ref())
}

fn payload(definition: &JobDefinition) -> CommandPayload {
    CommandPayload::decode(&definition.payload).expect("what was imported can run")
}

/// The only job of a text that holds nothing else.
#[track_caller]
fn only(text: &str) -> ImportedJob {
    let Import { jobs, refused, skipped } = read(text);
    assert_eq!((refused, skipped), (vec![], vec![]), "{text}");
    let [job] = <[ImportedJob; 1]>::try_from(jobs).expect("one job");
    job
}

/// One of the notes holds `words`, if there are any.
#[track_caller]
fn has_note(job: &ImportedJob, words: &str) {
    let found = words.is_empty() || job.notes.iter().any(|note| note.contains(words));
    assert!(found, "{words:?}: {:?}", job.notes);
}

#[test]
fn a_cron_job_becomes_a_job_that_does_what_its_controller_would() {
    let job = only(&manifest("", "", "", ""));
    let definition = &job.definition;
    assert_eq!((job.line, job.paused, definition.paused), (1, None, false));
    assert_eq!((definition.name.as_str(), definition.handler.as_str()), ("kubernetes/default/backup", HANDLER));
    let daily = Schedule::Cron { expression: "0 3 * * *".to_owned(), zone: "UTC".to_owned() };
    assert_eq!((&definition.schedule, definition.start_to_close), (&daily, None));
    assert_eq!((definition.rules.misfire, definition.rules.misfire_grace_ms), (Misfire::FireOnce, 0));
    assert_eq!((definition.rules.dst_gap, definition.rules.dst_overlap), (DstGap::Skip, DstOverlap::Both));
    let retry = definition.retry;
    assert_eq!((retry.attempts_max, retry.initial_ms, retry.delay_ms_max), (7, 10_000, 360_000));
    let payload = payload(definition);
    assert_eq!(
        (payload.argv.as_slice(), payload.clean_env, payload.dir),
        (&["/bin/backup".to_owned()][..], true, None)
    );
    assert_eq!(payload.env.keys().collect::<Vec<_>>(), ["PATH"]);
    has_note(&job, "runs on the worker, not in the image");
}

type Check = fn(&JobDefinition) -> bool;

#[test]
fn every_key_has_its_rule() {
    let cases: &[(&str, &str, Check, &str)] = &[
        ("  concurrencyPolicy: Allow\n", "", |job| job.rules.overlap == Overlap::Allow, ""),
        ("  concurrencyPolicy: Forbid\n", "", |job| job.rules.overlap == Overlap::Skip, "buffer-one"),
        ("  concurrencyPolicy: Replace\n", "", |job| job.rules.overlap == Overlap::TerminateRunning, ""),
        ("  startingDeadlineSeconds: 90\n", "", |job| job.rules.misfire_grace_ms == 90_000, ""),
        ("  suspend: true\n", "", |job| job.paused, ""),
        ("  suspend: false\n", "", |job| !job.paused, ""),
        ("  successfulJobsHistoryLimit: 3\n", "", |_| true, "`successfulJobsHistoryLimit` has no effect"),
        ("  failedJobsHistoryLimit: ~\n", "", |_| true, ""),
        ("", "      backoffLimit: 0\n", |job| job.retry.attempts_max == 1, ""),
        ("", "      backoffLimit: 4000\n", |job| job.retry.attempts_max == 1_000, "at most 1000"),
        ("", "      ttlSecondsAfterFinished: 60\n", |_| true, "`ttlSecondsAfterFinished` has no effect"),
        ("", "      completions: 1\n      parallelism: 1\n", |_| true, ""),
        (
            "",
            "      activeDeadlineSeconds: 60\n",
            |job| job.start_to_close == Some(Duration::from_secs(60)),
            "bounds each attempt",
        ),
    ];
    for (spec, job, check, note) in cases {
        let imported = only(&manifest(spec, job, "", ""));
        assert!(check(&imported.definition), "{spec}{job}: {:?}", imported.definition);
        has_note(&imported, note);
    }
    assert_eq!(only(&manifest("  suspend: false\n", "", "", "")).paused, Some(false));
}

#[test]
fn the_command_is_that_of_the_first_container() {
    let container = "            args: [\"--to=$(TARGET)\", \"$$HOME\"]\n            workingDir: /srv\n            \
                     image: backup:1.2\n            volumeMounts: [{name: data, mountPath: /data}]\n            env:\n            \
                     - {name: HOST, value: b2}\n            - {name: TARGET, value: \"$(HOST)/x\"}\n            - name: EMPTY\n          \
                     - name: proxy\n            image: proxy:1\n";
    let pod = "          serviceAccountName: backup\n          volumes: [{name: data}]\n          initContainers: [{name: wait}]\n";
    let job = only(&manifest("", "", pod, container));
    let payload = payload(&job.definition);
    assert_eq!(payload.argv, ["/bin/backup", "--to=b2/x", "$HOME"]);
    assert_eq!(payload.dir.as_deref(), Some("/srv"));
    let env: Vec<_> = payload.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((&env[..2], env[3]), (&[("EMPTY", ""), ("HOST", "b2")][..], ("TARGET", "b2/x")));
    for words in [
        "`image`",
        "`volumeMounts`",
        "`serviceAccountName` and `volumes`",
        "`initContainers` are not run",
        "only the first",
    ] {
        has_note(&job, words);
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_line() {
    let value_from =
        "            env:\n            - name: KEY\n              valueFrom: {secretKeyRef: {name: a, key: b}}\n";
    for (spec, job, pod, container, line, words) in [
        (
            "  concurrencyPolicy: Never\n",
            "",
            "",
            "",
            7,
            "`spec.concurrencyPolicy` is `Never`, not Allow, Forbid or Replace",
        ),
        ("  timeZone: Mars/Olympus\n", "", "", "", 7, "Mars/Olympus"),
        ("  startingDeadlineSeconds: 0\n", "", "", "", 7, "nothing ever starts"),
        ("  startingDeadlineSeconds: soon\n", "", "", "", 7, "`spec.startingDeadlineSeconds` is not a whole number"),
        ("  suspend: maybe\n", "", "", "", 7, "`true` or `false`"),
        ("", "      parallelism: 4\n", "", "", 9, "`spec.jobTemplate.spec.parallelism`"),
        ("", "      suspend: true\n", "", "", 9, "suspended"),
        ("", "      backoffLimit: -1\n", "", "", 9, "backoffLimit"),
        (
            "",
            "",
            "          initContainers: 3\n",
            "",
            11,
            "`spec.jobTemplate.spec.template.spec.initContainers` is not a list",
        ),
        ("", "", "", value_from, 16, "`KEY`"),
        ("", "", "", "            envFrom: [{configMapRef: {name: a}}]\n", 13, "envFrom"),
        ("", "", "", "            args: {a: b}\n", 15, "is not a list"),
        ("", "", "", "            env: [{name: \"A=B\", value: x}]\n", 1, "`A=B`"),
    ] {
        let import = read(&manifest(spec, job, pod, container));
        assert_eq!((import.jobs.as_slice(), import.refused.len()), (&[][..], 1), "{words}");
        let refused = &import.refused[0];
        let reason = refused.reason.to_string();
        assert!(reason.contains(words), "{words:?} is not in {reason}");
        assert_eq!((refused.line, refused.text.as_str()), (Some(line), "CronJob backup"), "{reason}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let whole = manifest("", "", "", "");
    for (without, words) in [
        ("  name: backup\n", "metadata"),
        ("  schedule: \"0 3 * * *\"\n", "`spec.schedule` is missing"),
        ("            command: [\"/bin/backup\"]\n", "containers[0].command` is missing, and what the image would run"),
        ("apiVersion: batch/v1\n", "`apiVersion` is missing"),
        ("kind: CronJob\n", "`kind` is missing"),
    ] {
        let import = read(&whole.replace(without, ""));
        let reasons: Vec<_> = import.refused.iter().map(|refused| refused.reason.to_string()).collect();
        assert!(import.jobs.is_empty() && reasons.len() == 1 && reasons[0].contains(words), "{words}: {reasons:?}");
    }
    let old = read(&whole.replace("batch/v1", "batch/v2alpha1"));
    assert!(matches!(old.refused[0].reason, RefusedReason::Version { .. }));
    assert_eq!(read(&whole.replace("batch/v1", "batch/v1beta1")).jobs.len(), 1);
}

/// What a shop's cluster may hold.
const SHOP: &str = r#"# The shop's jobs
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: nightly-report
  namespace: shop
  labels: {team: sales}
spec:
  schedule: "TZ=Europe/Berlin 30 2 * * MON-FRI"
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 600
  jobTemplate:
    spec:
      backoffLimit: 2
      template:
        metadata: {labels: {app: report}}
        spec:
          restartPolicy: OnFailure
          containers:
          - name: report
            image: registry.example/report:7
            command:
            - /bin/sh
            - -c
            - |
              report --day "$(date +%F)"
            env:
            - name: CURRENCY
              value: EUR
---
---
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1beta1
  kind: CronJob
  metadata: {name: clean, namespace: shop}
  spec:
    schedule: "@every 90m"
    suspend: true
    jobTemplate: {spec: {template: {spec: {containers: [{name: c, command: [clean]}]}}}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: broken, namespace: shop}
  spec:
    schedule: "0 25 * * *"
    jobTemplate: {spec: {template: {spec: {containers: [{name: c, command: [x]}]}}}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: clean, namespace: shop}
  spec:
    schedule: "@daily"
    jobTemplate: {spec: {template: {spec: {containers: [{name: c, command: [x]}]}}}}
---
kind: CronJob
  metadata: {name: never-read}
"#;

#[test]
fn a_file_of_many_manifests_is_read_to_the_first_that_is_no_yaml() {
    let Import { jobs, refused, skipped } = read(SHOP);
    let names: Vec<_> = jobs.iter().map(|job| (job.line, job.definition.name.as_str())).collect();
    assert_eq!(names, [(6, "kubernetes/shop/nightly-report"), (39, "kubernetes/shop/clean")]);
    let report = &jobs[0].definition;
    let berlin = Schedule::Cron { expression: "30 2 * * MON-FRI".to_owned(), zone: "Europe/Berlin".to_owned() };
    assert_eq!((&report.schedule, report.retry.attempts_max), (&berlin, 3));
    // The shell's own substitution is no variable of the manifest.
    assert_eq!(payload(report).argv[2], "report --day \"$(date +%F)\"\n");
    assert_eq!(report.labels, "team=sales", "the labels of the CronJob, not those of its pods");
    let every = Schedule::Interval { every: Duration::from_secs(5_400), anchor: None };
    assert_eq!((&jobs[1].definition.schedule, jobs[1].paused), (&every, Some(true)));
    let left_out: Vec<_> = skipped.iter().map(|part| (part.line, part.note.as_str())).collect();
    assert_eq!(
        left_out,
        [(2, "Service shop/web is no CronJob, and is left out"), (46, "Deployment web is no CronJob, and is left out")]
    );
    let refused: Vec<_> = refused.iter().map(|part| (part.line, part.text.as_str(), part.reason.to_string())).collect();
    let expected = [
        (53, "CronJob shop/broken", "hour `25`"),
        (55, "CronJob shop/clean", "line 39"),
        (63, "metadata: {name: never-read}", "nothing behind it was read"),
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:?}");
    for ((line, text, reason), (expected_line, expected_text, words)) in refused.iter().zip(expected) {
        assert_eq!((*line, *text), (Some(expected_line), expected_text), "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn labels_that_no_job_may_have_are_noted() {
    let manifest = |labels: &str| {
        format!(
            "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: a, labels: {labels}}}, spec: {{schedule: \"@daily\", \
             jobTemplate: {{spec: {{template: {{spec: {{containers: [{{command: [x]}}]}}}}}}}}}}}}"
        )
    };
    let long = format!("{}/name", "x".repeat(60));
    let job = only(&manifest(&format!("{{app.kubernetes.io/name: web, tier: \"1\", {long}: y}}")));
    assert_eq!(job.definition.labels, "app.kubernetes.io/name=web,tier=1");
    let noted = format!("the label {long:?} is left out: key 1 has 65 bytes; allowed are 1 to 63");
    assert!(job.notes.contains(&noted), "{:?}", job.notes);
    let many: Vec<_> = (0..40).map(|index| format!("k{index:02}: v")).collect();
    let job = only(&manifest(&format!("{{{}}}", many.join(", "))));
    assert_eq!(job.definition.labels().count(), 32);
    assert!(job.notes.iter().any(|note| note == "of 40 labels the first 32 are kept"), "{:?}", job.notes);
    let wrong = read(&manifest("{tier: [1]}"));
    assert_eq!(wrong.refused[0].reason.to_string(), "`metadata.labels.tier` is not a text");
}

#[test]
fn lists_of_the_api_and_json_are_read_too() {
    let text = r#"{"apiVersion": "batch/v1", "kind": "CronJobList", "items": [
        {"metadata": {"name": "a", "namespace": "n"}, "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec":
            {"containers": [{"command": ["x", "\u00fc"]}]}}}}}}]}"#;
    let job = only(text);
    assert_eq!((job.line, job.definition.name.as_str()), (2, "kubernetes/n/a"));
    assert_eq!(payload(&job.definition).argv, ["x", "ü"]);
    assert_eq!(read("").jobs.len() + read("# nothing\n---\n").refused.len(), 0);
    assert_eq!(read("- a\n").refused[0].reason.to_string(), "`manifest` is not a mapping");
}
