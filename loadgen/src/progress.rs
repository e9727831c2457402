//! What a person at a terminal sees meanwhile, on the standard error. Nothing, when that is no terminal.

use crate::fleet::Fleet;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// How often a bar that follows the clock moves.
const INTERVAL: Duration = Duration::from_millis(200);

/// A bar for a known number of steps.
pub(crate) fn bar(what: &'static str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:22} {wide_bar} {human_pos}/{human_len} {per_sec}")
        .expect("the template is a constant");
    ProgressBar::new(steps).with_style(style).with_message(what)
}

/// Waits for `duration` and shows how many executions per second the fleet completes meanwhile.
pub(crate) async fn watch(what: &'static str, fleet: &Fleet, duration: Duration) {
    let style =
        ProgressStyle::with_template("{prefix:22} {wide_bar} {elapsed}/{msg}").expect("the template is a constant");
    let bar = ProgressBar::new(millis(duration)).with_style(style).with_prefix(what);
    let started = Instant::now();
    let (mut acknowledged, mut seen_at) = (fleet.live().acknowledged, started);
    while let Some(left) = duration.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(INTERVAL)).await;
        let (live, now) = (fleet.live(), Instant::now());
        let rate = (live.acknowledged - acknowledged) as f64 / (now - seen_at).as_secs_f64();
        (acknowledged, seen_at) = (live.acknowledged, now);
        bar.set_position(millis(started.elapsed()));
        bar.set_message(format!("{duration:.0?}  {rate:.0} executions/s, {} errors", live.errors));
    }
    bar.finish_and_clear();
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
