//! `tickwheel cron`: what cron expressions mean, without any server.

use super::{
    args::{CronArguments, CronCommand, DayRuleArgument, GapArgument, OutputFormat, OverlapArgument},
    error::CliError,
    output, times,
    views::{ClockChangeRow, ExplanationAnswer, FireRow},
};
use crate::config::TENANT_DEFAULT;
use std::borrow::Cow;
use tickwheel_client::Timestamp;
use tickwheel_engine::schedule::{
    Cron, CronError, CronOptions, ExclusionError, ExclusionProblem, Exclusions, Explanation, FieldProblem, GapPolicy,
    OverlapPolicy, Zones, settle_hashed,
};
use tickwheel_wire::{job::DayRule, name_hash};

pub(super) fn run(command: &CronCommand) -> Result<(), CliError> {
    match command {
        CronCommand::Next(arguments) => next(arguments),
        CronCommand::Explain(arguments) => explain(arguments),
    }
}

fn next(arguments: &CronArguments) -> Result<(), CliError> {
    let from = from(arguments)?;
    let fires = rows(&compile(arguments)?, &exclusions(arguments)?, from, arguments.count);
    match arguments.output.output {
        OutputFormat::Json => output::json(&fires),
        OutputFormat::Table => output::table(["AT"], fires.into_iter().map(|fire| [fire.at])),
    }
}

fn explain(arguments: &CronArguments) -> Result<(), CliError> {
    let from = from(arguments)?;
    let answer = explanation(arguments, from)?;
    match arguments.output.output {
        OutputFormat::Json => output::json(&answer),
        OutputFormat::Table => table(answer),
    }
}

fn table(answer: ExplanationAnswer) -> Result<(), CliError> {
    let ExplanationAnswer { expression, settled, zone, gap, overlap, day_rule, text, next, clock_changes } = answer;
    let mut properties = vec![("expression", expression.clone())];
    if settled != expression {
        properties.push(("settled", settled));
    }
    properties.extend([("meaning", text), ("zone", zone.clone())]);
    properties.extend([("gap", gap.to_owned()), ("overlap", overlap.to_owned()), ("day rule", day_rule.to_owned())]);
    output::properties(&properties)?;
    output::write("\n")?;
    output::table(["NEXT FIRES"], next.into_iter().map(|fire| [fire.at]))?;
    output::write("\n")?;
    if clock_changes.is_empty() {
        let zone = output::printable(&zone);
        return output::write(&format!("The clock of {zone} does not change within two years.\n"));
    }
    output::table(["CLOCK CHANGES"], clock_changes.into_iter().map(|change| [change.text]))
}

fn explanation(arguments: &CronArguments, from: Timestamp) -> Result<ExplanationAnswer, CliError> {
    let cron = compile(arguments)?;
    let Explanation { text, clock_changes, .. } = cron.explain(from, 0);
    let hash = arguments.job.as_deref().map(job_hash);
    let settled = hash.map_or(Ok(Cow::from(&arguments.expression)), |hash| settle_hashed(&arguments.expression, hash));
    Ok(ExplanationAnswer {
        expression: arguments.expression.clone(),
        settled: settled.map_err(usage)?.into_owned(),
        zone: cron.zone().name().to_owned(),
        gap: match cron.gap() {
            GapPolicy::Skip => "skip",
            GapPolicy::FireAfter => "fire-after",
        },
        overlap: match cron.overlap() {
            OverlapPolicy::First => "first",
            OverlapPolicy::Second => "second",
            OverlapPolicy::Both => "both",
        },
        day_rule: day_rule(arguments).name(),
        text,
        next: rows(&cron, &exclusions(arguments)?, from, arguments.count),
        clock_changes: clock_changes.iter().map(ClockChangeRow::from).collect(),
    })
}

fn from(arguments: &CronArguments) -> Result<Timestamp, CliError> {
    arguments.from.as_deref().map_or_else(|| Ok(times::now()), times::parse)
}

/// The schedule that the arguments name.
fn compile(arguments: &CronArguments) -> Result<Cron, CliError> {
    let options = CronOptions {
        hash: arguments.job.as_deref().map(job_hash),
        gap: arguments.gap.map(|gap| match gap {
            GapArgument::Skip => GapPolicy::Skip,
            GapArgument::FireAfter => GapPolicy::FireAfter,
        }),
        overlap: arguments.overlap.map(|overlap| match overlap {
            OverlapArgument::First => OverlapPolicy::First,
            OverlapArgument::Second => OverlapPolicy::Second,
            OverlapArgument::Both => OverlapPolicy::Both,
        }),
        day_rule: day_rule(arguments),
    };
    let zone = Zones::new().get(&arguments.tz).map_err(usage)?;
    Cron::with_options(&arguments.expression, zone, options).map_err(usage)
}

const fn day_rule(arguments: &CronArguments) -> DayRule {
    match arguments.day_rule {
        DayRuleArgument::Or => DayRule::Or,
        DayRuleArgument::And => DayRule::And,
    }
}

/// The times at which it does not fire.
fn exclusions(arguments: &CronArguments) -> Result<Exclusions, CliError> {
    let usage = |error: ExclusionError| {
        let remedy = match error.problem {
            ExclusionProblem::UnknownCalendar => {
                "; `tickwheel calendar get` shows its entries, which may be given instead"
            }
            _ => "",
        };
        CliError::Usage(format!("--exclude {:?}: {}{remedy}", error.entry, error.problem))
    };
    Exclusions::new(&arguments.exclude.join("\n"), &arguments.tz, &mut Zones::new(), |_| None).map_err(usage)
}

/// The hash of `TENANT/NAME`, or of `NAME` in the default tenant. A name that holds a slash needs its tenant in front.
fn job_hash(job: &str) -> u64 {
    let (tenant, name) = job.split_once('/').unwrap_or((TENANT_DEFAULT, job));
    name_hash(tenant, name)
}

fn usage(error: CronError) -> CliError {
    let remedy = match error {
        CronError::Field { problem: FieldProblem::Hashed, .. } => "; give the job's name with --job",
        _ => "",
    };
    CliError::Usage(format!("{error}{remedy}"))
}

/// The first `count` fires strictly after `from`; fewer when the calendar ends before.
fn rows(cron: &Cron, exclusions: &Exclusions, from: Timestamp, count: u32) -> Vec<FireRow> {
    fires(cron, exclusions, from).map(|(_, at)| FireRow { at }).take(count as usize).collect()
}

/// The fires strictly after `from` that are not excluded, as times and in words.
pub(super) fn fires(
    cron: &Cron,
    exclusions: &Exclusions,
    from: Timestamp,
) -> impl Iterator<Item = (Timestamp, String)> {
    let next = |after| exclusions.first_allowed(after, |after| cron.next_after(after));
    let fires = std::iter::successors(next(from), move |last| next(*last));
    fires.map_while(|fire| Some((fire, times::rfc3339_with_offset(fire, cron.zone().offset_s(fire))?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::OutputArguments;

    fn arguments(expression: &str, zone: &str) -> CronArguments {
        CronArguments {
            expression: expression.to_owned(),
            tz: zone.to_owned(),
            from: None,
            count: 5,
            gap: None,
            overlap: None,
            day_rule: DayRuleArgument::Or,
            job: None,
            exclude: Vec::new(),
            output: OutputArguments { output: OutputFormat::Json },
        }
    }

    fn ats(arguments: &CronArguments, from: &str, count: u32) -> Vec<String> {
        let from = times::parse(from).expect("a time");
        let (cron, exclusions) = (compile(arguments).expect("valid"), exclusions(arguments).expect("valid"));
        rows(&cron, &exclusions, from, count).into_iter().map(|fire| fire.at).collect()
    }

    #[track_caller]
    fn check(expression: &str, zone: &str, from: &str, expected: &[&str]) {
        let count = u32::try_from(expected.len()).expect("few");
        assert_eq!(ats(&arguments(expression, zone), from, count), expected);
    }

    #[test]
    fn fires_carry_the_offset_of_their_zone_at_their_time() {
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        );
        check("0 12 * * MON", "UTC", "2026-01-01T00:00:00Z", &["2026-01-05T12:00:00+00:00"]);
        check("0 9 * * *", "Asia/Kolkata", "2026-01-01T03:30:00Z", &["2026-01-02T09:00:00+05:30"]);
        check("@hourly", "America/New_York", "2026-07-01T00:00:00-04:00", &["2026-07-01T01:00:00-04:00"]);
    }

    #[test]
    fn what_never_fires_again_gives_fewer_fires() {
        assert!(ats(&arguments("@yearly", "UTC"), "9999-12-30T00:00:00Z", 5).is_empty());
    }

    #[test]
    fn policies_given_replace_those_of_the_fields() {
        let daily = arguments("30 2 * * *", "Europe/Berlin");
        let skip = CronArguments { gap: Some(GapArgument::Skip), ..daily };
        assert_eq!(ats(&skip, "2026-03-28T12:00:00Z", 1), ["2026-03-30T02:30:00+02:00"]);
        let both = CronArguments { overlap: Some(OverlapArgument::Both), ..skip };
        let twice = ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"];
        assert_eq!(ats(&both, "2026-10-24T12:00:00Z", 2), twice);
        let second = CronArguments { overlap: Some(OverlapArgument::Second), ..both };
        assert_eq!(ats(&second, "2026-10-24T12:00:00Z", 1), twice[1..]);
    }

    #[test]
    fn a_day_matches_one_of_the_fields_or_both() {
        let friday = arguments("0 9 13 * FRI", "UTC");
        assert_eq!(ats(&friday, "2026-11-01T00:00:00Z", 1), ["2026-11-06T09:00:00+00:00"]);
        let both = CronArguments { day_rule: DayRuleArgument::And, ..friday };
        assert_eq!(ats(&both, "2026-11-01T00:00:00Z", 1), ["2026-11-13T09:00:00+00:00"]);
        let answer = explanation(&both, times::parse("2026-11-01T00:00:00Z").expect("a time")).expect("valid");
        assert_eq!((answer.day_rule, &*answer.text), ("and", "at 09:00, on day 13 of the month, and only on Friday"));
        let never = CronArguments { day_rule: DayRuleArgument::And, ..arguments("0 0 30 2 1", "UTC") };
        assert_eq!(compile(&never).expect_err("no such day").exit_status(), 2);
    }

    #[test]
    fn excluded_fires_are_left_out() {
        let daily = arguments("0 9 * * *", "Europe/Berlin");
        let exclude = ["weekends", "2026-12-24..2026-12-28"].map(str::to_owned).to_vec();
        let without = CronArguments { exclude, ..daily };
        let expected = ["2026-12-23T09:00:00+01:00", "2026-12-29T09:00:00+01:00"];
        assert_eq!(ats(&without, "2026-12-22T12:00:00Z", 2), expected);
        let wrong = CronArguments { exclude: vec!["someday".to_owned()], ..without };
        let refusal = exclusions(&wrong).expect_err("no entry");
        assert!(refusal.line().is_some_and(|line| line.contains("--exclude \"someday\"")), "{refusal:?}");
        let named = CronArguments { exclude: vec!["calendar holidays".to_owned()], ..wrong };
        let refusal = exclusions(&named).expect_err("only a server knows it");
        assert!(
            refusal.line().is_some_and(|line| line.contains("known to it alone; `tickwheel calendar get`")),
            "{refusal:?}"
        );
        assert_eq!(refusal.exit_status(), 2);
    }

    #[test]
    fn a_hashed_value_needs_a_job() {
        let hashed = arguments("H * * * *", "UTC");
        let refusal = compile(&hashed).expect_err("no job");
        let line = refusal.line().expect("a line");
        assert!(line.contains("`H`") && line.ends_with("give the job's name with --job"), "{line}");
        assert_eq!(refusal.exit_status(), 2);

        let settled = |job: &str| {
            let arguments = CronArguments { job: Some(job.to_owned()), ..arguments("H * * * *", "UTC") };
            explanation(&arguments, times::parse("2026-01-01T00:00:00Z").expect("a time")).expect("valid").settled
        };
        let expected = |tenant, name| settle_hashed("H * * * *", name_hash(tenant, name)).expect("valid").into_owned();
        assert_eq!(settled("report"), expected("default", "report"));
        assert_eq!(settled("acme/report"), expected("acme", "report"));
        assert_eq!(settled("acme/daily/report"), expected("acme", "daily/report"));
    }

    #[test]
    fn an_explanation_has_its_keys_and_what_happens_at_changes_of_the_clock() {
        let from = times::parse("2027-03-01T00:00:00Z").expect("a time");
        let arguments = CronArguments { count: 1, ..arguments("30 2 * * *", "europe/berlin") };
        let answer = serde_json::to_value(explanation(&arguments, from).expect("valid")).expect("JSON");
        let expected = serde_json::json!({
            "expression": "30 2 * * *",
            "settled": "30 2 * * *",
            "zone": "Europe/Berlin",
            "gap": "fire-after",
            "overlap": "first",
            "day_rule": "or",
            "text": "at 02:30, every day",
            "next": [{ "at": "2027-03-01T02:30:00+01:00" }],
            "clock_changes": [
                {
                    "at": "2027-03-28T03:00:00+02:00",
                    "kind": "gap",
                    "offset_before_s": 3_600,
                    "offset_after_s": 7_200,
                    "local_before": "2027-03-28T02:00:00",
                    "local_after": "2027-03-28T03:00:00",
                    "times": ["2027-03-28T02:30:00"],
                    "time_count": 1,
                    "fire_at": "2027-03-28T03:00:00+02:00",
                    "next_fire_at": "2027-03-28T03:00:00+02:00",
                    "first": null,
                    "second": null,
                    "text": "2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist; fires at 03:00:00+02:00",
                },
                {
                    "at": "2027-10-31T02:00:00+01:00",
                    "kind": "overlap",
                    "offset_before_s": 7_200,
                    "offset_after_s": 3_600,
                    "local_before": "2027-10-31T03:00:00",
                    "local_after": "2027-10-31T02:00:00",
                    "times": ["2027-10-31T02:30:00"],
                    "time_count": 1,
                    "fire_at": null,
                    "next_fire_at": null,
                    "first": {
                        "count": 1,
                        "first_at": "2027-10-31T02:30:00+02:00",
                        "last_at": "2027-10-31T02:30:00+02:00",
                    },
                    "second": null,
                    "text": "2027-10-31 03:00 -> 02:00 (-1 h): 02:30 is shown twice; fires once, at 02:30:00+02:00",
                },
            ],
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_wrong_usage() {
        for (expression, zone) in [("75 * * * *", "UTC"), ("* * * *", "UTC"), ("@daily", "Europe/Atlantis")] {
            assert_eq!(compile(&arguments(expression, zone)).expect_err(expression).exit_status(), 2);
        }
    }
}
