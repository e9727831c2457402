//! `[[calendar]]`: exclusions with a name, and what `exclude` of a job stands for.
//!
//! A job holds the entries themselves, as one text; so a calendar is changed by changing the file and applying it again, and the plan shows
//! each job that this changes. Invariant: entries that a job states itself are kept as they are written; so is `calendar NAME`, by which a job names one that
//! the server keeps.

use super::{
    JobProblem, JobsFileError, ics, one_line,
    resolve::value,
    section::{CalendarSection, Time},
};
use std::{collections::BTreeMap, path::Path};
use tickwheel_engine::schedule::{ExclusionError, ExclusionProblem, Exclusions, Zones};
use toml::{Table, Value};

/// The calendars of a file by name.
#[derive(Debug, Default)]
pub(super) struct Calendars(BTreeMap<String, Vec<Entry>>);

/// An entry of a calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None`: that of the job.
    pub zone: Option<String>,
    /// As exclusions have it.
    pub text: String,
}

impl Calendars {
    /// Takes the tables of a file, and the files that they name, in `folder`; without a folder they may name none.
    pub fn read(
        tables: Vec<Table>,
        file: &str,
        folder: Option<&Path>,
        zones: &mut Zones,
    ) -> Result<Self, Vec<JobsFileError>> {
        let (mut calendars, mut errors) = (Self::default(), Vec::new());
        for (index, table) in tables.into_iter().enumerate() {
            let name = table.get("name").and_then(Value::as_str).map(str::to_owned);
            if let Err(problem) = calendars.add(table, folder, zones) {
                let calendar = name.map_or_else(|| format!("number {}", index + 1), |name| format!("{name:?}"));
                errors.push(JobsFileError::Calendar { file: file.to_owned(), calendar, problem });
            }
        }
        if errors.is_empty() { Ok(calendars) } else { Err(errors) }
    }

    fn add(&mut self, table: Table, folder: Option<&Path>, zones: &mut Zones) -> Result<(), JobProblem> {
        let section: CalendarSection =
            Value::Table(table).try_into().map_err(|error| JobProblem::Keys(one_line(&error)))?;
        let CalendarSection { name, zone, dates, weekdays, cron, ics } = section;
        if name.is_empty() || Exclusions::new(&name, "UTC", zones, any_calendar).is_ok() {
            return Err(value("name", &format!("{name:?} is empty, or an entry itself")));
        }
        let zone_name = zone.as_deref().unwrap_or("UTC");
        zones.get(zone_name).map_err(|error| value("zone", &error.to_string()))?;
        let dates = dates.into_iter().map(Time::into_text).map(|text| ("dates", text));
        let weekdays = weekdays.into_iter().map(|text| ("weekdays", text));
        let cron = cron.into_iter().map(|text| ("cron", format!("cron {text}")));
        let mut entries = Vec::new();
        for (key, text) in dates.chain(weekdays).chain(cron) {
            let is_date = text.starts_with(|first: char| first.is_ascii_digit());
            let is_meant = if key == "dates" { is_date } else { !is_date && (key == "cron" || !text.contains(' ')) };
            if !is_meant {
                return Err(value(key, &format!("{text:?} is none of {key}")));
            }
            Exclusions::new(&text, zone_name, zones, |_| None).map_err(|error| wrong(key, &error))?;
            entries.push(Entry { zone: zone.clone(), text });
        }
        if let Some(path) = ics {
            let folder = folder.ok_or_else(|| value("ics", "a calendar file is read only beside a jobs file"))?;
            let of_file = ics::read(&folder.join(&path), zones).map_err(|problem| value("ics", &problem))?;
            entries
                .extend(of_file.into_iter().map(|entry| Entry { zone: entry.zone.or_else(|| zone.clone()), ..entry }));
        }
        match self.0.insert(name, entries) {
            None => Ok(()),
            Some(_) => Err(JobProblem::Duplicate),
        }
    }

    /// The entries that `exclude` of a job stands for: each text is the name of a calendar or an entry. `zone` is where entries belong that name none.
    pub fn resolve(&self, exclude: &[String], zone: &str, zones: &mut Zones) -> Result<String, JobProblem> {
        let (mut lines, mut stated, mut current) = (Vec::new(), zone, zone);
        for item in exclude {
            let Some(entries) = self.0.get(item) else {
                Exclusions::new(item, zone, zones, any_calendar).map_err(|error| self.unknown(item, &error))?;
                if let Some(name) = item.strip_prefix("zone ") {
                    (stated, current) = (name.trim(), name.trim());
                } else if stated != current {
                    lines.push(format!("zone {stated}"));
                    current = stated;
                }
                lines.push(item.clone());
                continue;
            };
            for Entry { zone, text } in entries {
                let zone = zone.as_deref().unwrap_or(stated);
                if zone != current {
                    lines.push(format!("zone {zone}"));
                    current = zone;
                }
                lines.push(text.clone());
            }
        }
        Ok(lines.join("\n"))
    }

    fn unknown(&self, item: &str, error: &ExclusionError) -> JobProblem {
        let names = self.0.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let calendars = if names.is_empty() { "of which it has none".to_owned() } else { format!("which are {names}") };
        let of_server = match error.problem {
            ExclusionProblem::Form => format!("; one of the server's is named as {:?}", format!("calendar {item}")),
            _ => String::new(),
        };
        let problem = &error.problem;
        value(
            "exclude",
            &format!("{item:?} is no calendar of the file, {calendars}{of_server}; and as an entry: {problem}"),
        )
    }
}

/// The events of the iCalendar file at `path` as the text of a calendar that the server keeps. `zone` is where events belong that name none; without
/// one they belong where the job does.
///
/// # Errors
/// What is wrong with the zone, or with the file and where.
pub(crate) fn entries_of_ics(path: &Path, zone: Option<&str>) -> Result<String, String> {
    let mut zones = Zones::new();
    if let Some(zone) = zone {
        zones.get(zone).map_err(|error| error.to_string())?;
    }
    let mut entries = ics::read(path, &mut zones)?;
    for entry in &mut entries {
        entry.zone = entry.zone.take().or_else(|| zone.map(str::to_owned));
    }
    // Behind a zone there is no way back to that of the job: entries without one go first.
    entries.sort_by(|a, b| a.zone.cmp(&b.zone));
    let (mut lines, mut current) = (Vec::with_capacity(entries.len()), None);
    for Entry { zone, text } in entries {
        if zone != current {
            lines.extend(zone.as_ref().map(|zone| format!("zone {zone}")));
            current = zone;
        }
        lines.push(text);
    }
    Ok(lines.join("\n"))
}

/// For checks without a server: each calendar is one that it may have.
fn any_calendar(_name: &str) -> Option<&'static str> {
    Some("")
}

fn wrong(key: &'static str, error: &ExclusionError) -> JobProblem {
    value(key, &format!("{:?}: {}", error.entry, error.problem))
}
