//! What random histories are made of.

use super::{harness::START_SECS, model::SECOND, ruled_model::Excluded};
use proptest::prelude::*;
use tickwheel_wire::{
    frame::{request::JobVerb, work::Outcome},
    job::{FiringRules, Misfire, Overlap},
};

pub const MINUTE: u64 = 60 * SECOND;

/// Where histories begin, in seconds: a quiet day, and before the changes of Berlin's clock on 28 March 2027, 01:00 UTC, and on
/// 31 October 2027, 01:00 UTC.
pub const STARTS_SECS: [u64; 3] = [START_SECS, SPRING_SECS, AUTUMN_SECS];
/// 01:42:07 on the clock of Berlin, 18 minutes before it is turned forward.
pub const SPRING_SECS: u64 = 1_806_194_527;
/// 02:12:07 on the clock of Berlin for the first time, 48 minutes before it is turned back.
pub const AUTUMN_SECS: u64 = 1_824_941_527;

pub const EXPRESSIONS: [&str; 7] = [
    "* * * * *",
    "*/2 * * * *",
    "@hourly",
    "5,35 * * * *",
    "30 2 * * *",
    "0,10,20,30,40,50 1-3 * * *",
    "3-59/7 * * * 1-5",
];
pub const ZONES: [&str; 3] = ["UTC", "Europe/Berlin", "Asia/Kolkata"];

/// Rules, whose times are in minutes from the submission.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub firing: FiringRules,
    pub excluded: Excluded,
    pub starts: Option<u64>,
    pub ends: Option<u64>,
}

pub const PLAIN: Rules = Rules { firing: FiringRules::PLAIN, excluded: Excluded::Nothing, starts: None, ends: None };

#[derive(Clone, Copy, Debug)]
pub enum Rhythm {
    Every,
    Once,
    Delay,
    Cron {
        expression: &'static str,
        zone: &'static str,
    },
    /// Two cron schedules with an interval of minutes or a single time between them.
    Several {
        outer: [(&'static str, &'static str); 2],
        once: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Step {
    Submit {
        name: u8,
        rhythm: Rhythm,
        /// The interval or the delay, and the time limit, follow from it.
        value: u64,
        upsert: bool,
        revision: u64,
        key: Option<u8>,
        paused: bool,
        attempts_max: u16,
        rules: Rules,
    },
    Command {
        name: u8,
        verb: JobVerb,
    },
    Cancel {
        name: u8,
        ahead: u64,
    },
    /// A dead letter, or something that is none.
    Redrive {
        name: u8,
        letter: usize,
    },
    /// Of the seconds before a moment.
    Backfill {
        name: u8,
        seconds: u64,
        ago: u64,
    },
    Complete {
        held: usize,
        outcome: Outcome,
        wrong_worker: bool,
    },
    Pass {
        micros: u64,
    },
    /// To the tick before the start of a later minute, to the start itself, or to a tick after.
    Reach {
        minutes: u64,
        ticks: u64,
    },
    Attach {
        claims: u8,
    },
    Detach,
    Restart,
    Snapshot {
        partition: u16,
    },
    /// In all partitions.
    SetCalendar {
        excluded: Excluded,
    },
}

fn rhythm() -> impl Strategy<Value = Rhythm> {
    let select = |values: &'static [&'static str]| prop::sample::select(values);
    // Jobs of equal schedules share one, with what it remembers.
    let popular = Rhythm::Cron { expression: "* * * * *", zone: "UTC" };
    let cron = || (select(&EXPRESSIONS), select(&ZONES));
    prop_oneof![
        2 => Just(Rhythm::Every),
        2 => Just(Rhythm::Once),
        1 => Just(Rhythm::Delay),
        2 => Just(popular),
        4 => cron().prop_map(|(expression, zone)| Rhythm::Cron { expression, zone }),
        3 => (cron(), cron(), any::<bool>()).prop_map(|(a, b, once)| Rhythm::Several { outer: [a, b], once }),
    ]
    // The model's search, minute by minute, is too slow for Miri.
    .prop_map(|rhythm| match rhythm {
        Rhythm::Cron { .. } | Rhythm::Several { .. } if cfg!(miri) => Rhythm::Every,
        other => other,
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let some = |values: &'static [u32]| prop_oneof![3 => Just(0), 2 => prop::sample::select(values)];
    let misfire = (prop::sample::select(Misfire::ALL), 1..5_u32, some(&[1_000, 30_000, 600_000]));
    let overlap = (prop::sample::select(Overlap::ALL), 1..5_u32);
    let window = (proptest::option::weighted(0.2, 0..20_u64), proptest::option::weighted(0.2, 20..300_u64));
    let excluded = prop_oneof![3 => Just(Excluded::Nothing), 2 => prop::sample::select(&Excluded::ALL[..])];
    let window = (window, excluded);
    (misfire, overlap, some(&[500, 5_000, 90_000]), some(&[1, 2, 3]), some(&[1, 2, 5]), some(&[700, 20_000]), window)
        .prop_map(|(misfire, overlap, schedule_to_start_ms, failures, executions_max, jitter_ms, window)| Rules {
            firing: FiringRules {
                misfire: misfire.0,
                misfire_max: misfire.1,
                misfire_grace_ms: misfire.2,
                overlap: overlap.0,
                overlap_max: overlap.1,
                schedule_to_start_ms,
                pause_after_failures: u16::try_from(failures).unwrap(),
                executions_max,
                jitter_ms,
                ..FiringRules::default()
            },
            excluded: window.1,
            starts: window.0.0,
            ends: window.0.1,
        })
}

/// Without what contradicts itself or the rhythm.
fn fit(rules: Rules, rhythm: Rhythm) -> Rules {
    let Rules { mut firing, mut excluded, mut starts, mut ends } = rules;
    if firing.misfire != Misfire::FireAll {
        firing.misfire_max = FiringRules::default().misfire_max;
    }
    if !matches!(firing.overlap, Overlap::BufferAll | Overlap::Allow) {
        firing.overlap_max = FiringRules::default().overlap_max;
    }
    match rhythm {
        Rhythm::Once => (firing.executions_max, starts, ends) = (0, None, None),
        Rhythm::Delay => {
            (firing.overlap, firing.overlap_max) = (Overlap::Skip, FiringRules::default().overlap_max);
            excluded = Excluded::Nothing;
        }
        // Each of a day's seconds is tried.
        Rhythm::Every if excluded != Excluded::Nothing => excluded = Excluded::Thirds,
        _ => {}
    }
    // Of more firings than are looked at one by one, about the newest are kept: exactly so only where they are evenly spread.
    if matches!(rhythm, Rhythm::Every) && (firing.misfire == Misfire::FireAll || firing.overlap != Overlap::Skip) {
        (firing.jitter_ms, excluded) = (0, Excluded::Nothing);
    }
    Rules { firing, excluded, starts, ends }
}

pub fn step() -> impl Strategy<Value = Step> {
    let name = 0..4_u8;
    let submit = (
        name.clone(),
        rhythm(),
        1..25_u64,
        any::<bool>(),
        prop_oneof![3 => Just(0), 1 => 1..3_u64],
        proptest::option::weighted(0.3, 0..3_u8),
        proptest::bool::weighted(0.2),
        1..4_u16,
        prop_oneof![1 => Just(PLAIN), 2 => rules()],
    )
        .prop_map(|(name, rhythm, value, upsert, revision, key, paused, attempts_max, rules)| Step::Submit {
            name,
            rhythm,
            value,
            upsert,
            revision,
            key,
            paused,
            attempts_max,
            rules: fit(rules, rhythm),
        });
    let verb = prop_oneof![
        2 => Just(JobVerb::Pause), 3 => Just(JobVerb::Resume), 3 => Just(JobVerb::Trigger), 1 => Just(JobVerb::Delete),
        1 => Just(JobVerb::ClearBacklog)
    ];
    let outcome = prop_oneof![
        4 => Just(Outcome::Succeeded),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::FailedForGood),
        1 => Just(Outcome::FailedForNow),
        1 => Just(Outcome::Cancelled)
    ];
    let time = prop_oneof![
        8 => 0..SECOND,
        12 => SECOND..12 * SECOND,
        2 => SECOND..120 * SECOND,
        3 => MINUTE..180 * MINUTE,
        2 => Just(1_440 * MINUTE)
    ];
    let minutes = prop_oneof![3 => Just(1), 1 => 2..90_u64];
    prop_oneof![
        4 => submit,
        4 => (name.clone(), verb).prop_map(|(name, verb)| Step::Command { name, verb }),
        2 => (name.clone(), 0..2_u64).prop_map(|(name, ahead)| Step::Cancel { name, ahead }),
        2 => (name.clone(), any::<usize>()).prop_map(|(name, letter)| Step::Redrive { name, letter }),
        1 => (name, 1..200_u64, 0..100_u64).prop_map(|(name, seconds, ago)| Step::Backfill { name, seconds, ago }),
        6 => (any::<usize>(), outcome, proptest::bool::weighted(0.1))
            .prop_map(|(held, outcome, wrong_worker)| Step::Complete { held, outcome, wrong_worker }),
        8 => time.prop_map(|micros| Step::Pass { micros }),
        8 => (minutes, 0..3_u64).prop_map(|(minutes, ticks)| Step::Reach { minutes, ticks }),
        3 => any::<u8>().prop_map(|claims| Step::Attach { claims }),
        1 => Just(Step::Detach),
        1 => Just(Step::Restart),
        1 => (0..2_u16).prop_map(|partition| Step::Snapshot { partition }),
        1 => prop::sample::select(Excluded::OF_CALENDAR).prop_map(|excluded| Step::SetCalendar { excluded }),
    ]
}

pub fn history() -> impl Strategy<Value = (u64, Vec<Step>)> {
    (prop::sample::select(&STARTS_SECS[..]), prop::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 90 }))
}
