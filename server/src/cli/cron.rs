//! `tickwheel cron`: what cron expressions mean, without any server.

use super::{
    args::{CronCommand, CronNextArguments, OutputFormat},
    error::CliError,
    output, times,
    views::FireRow,
};
use tickwheel_client::Timestamp;
use tickwheel_engine::schedule::{Cron, CronError, Zones};

pub(super) fn run(command: &CronCommand) -> Result<(), CliError> {
    match command {
        CronCommand::Next(arguments) => next(arguments),
    }
}

fn next(arguments: &CronNextArguments) -> Result<(), CliError> {
    let CronNextArguments { expression, tz, from, count, output } = arguments;
    let from = from.as_deref().map_or_else(|| Ok(times::now()), times::parse)?;
    let fires = fires(expression, tz, from, *count, &mut Zones::new());
    let fires = fires.map_err(|error| CliError::Usage(error.to_string()))?;
    match output.output {
        OutputFormat::Json => output::json(&fires),
        OutputFormat::Table => output::table(["AT"], fires.into_iter().map(|fire| [fire.at])),
    }
}

/// The first `count` fires strictly after `from`; fewer when the calendar ends before.
pub(super) fn fires(
    expression: &str,
    zone: &str,
    from: Timestamp,
    count: u32,
    zones: &mut Zones,
) -> Result<Vec<FireRow>, CronError> {
    let cron = Cron::new(expression, zones.get(zone)?)?;
    let mut fires = Vec::new();
    let mut last = from;
    for _ in 0..count {
        let Some(fire) = cron.next_after(last) else { break };
        let Some(at) = times::rfc3339_with_offset(fire, cron.zone().offset_s(fire)) else { break };
        fires.push(FireRow { at });
        last = fire;
    }
    Ok(fires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, zone: &str, from: &str, expected: &[&str]) {
        let from = times::parse(from).expect("a time");
        let count = u32::try_from(expected.len()).expect("few");
        let fires = fires(expression, zone, from, count, &mut Zones::new()).expect("valid");
        assert_eq!(fires.into_iter().map(|fire| fire.at).collect::<Vec<_>>(), expected);
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
        let from = times::parse("9999-12-30T00:00:00Z").expect("a time");
        let fires = fires("@yearly", "UTC", from, 5, &mut Zones::new()).expect("valid");
        assert_eq!(fires.len(), 0);
    }
}
