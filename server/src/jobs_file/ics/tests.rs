//! Claims about calendar files: what each event excludes, and what is refused.

use super::*;

/// The entries of a calendar of these events, read in 2026, as `zone entry`; or what is wrong.
fn check(events: &str) -> Result<Vec<String>, (usize, String)> {
    let text = format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{}END:VCALENDAR\r\n", events.replace('\n', "\r\n"));
    let entries = entries(&text, 2026, &mut Zones::new())?;
    Ok(entries.iter().map(|entry| format!("{} {}", entry.zone.as_deref().unwrap_or("-"), entry.text)).collect())
}

fn event(lines: &str) -> String {
    format!("BEGIN:VEVENT\nSUMMARY:Closed\n{lines}\nEND:VEVENT\n")
}

#[test]
fn each_event_excludes_what_it_takes() {
    for (lines, expected) in [
        ("DTSTART;VALUE=DATE:20261225", &["- 2026-12-25"][..]),
        ("DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227", &["- 2026-12-24..2026-12-26"]),
        ("DTSTART;VALUE=DATE:20261224\nDURATION:P1W", &["- 2026-12-24..2026-12-30"]),
        ("DTSTART;VALUE=DATE:20251231\nDTEND;VALUE=DATE:20260102", &["- 2025-12-31..2026-01-01"]),
        ("DTSTART;VALUE=DATE:20251225", &[]),
        ("DTSTART:20261224T140000\nDTEND:20261224T180000", &["- 2026-12-24T14:00:00..2026-12-24T18:00:00"]),
        ("DTSTART:20261224T140000Z\nDURATION:PT1H30M", &["UTC 2026-12-24T14:00:00..2026-12-24T15:30:00"]),
        (
            "DTSTART;TZID=Europe/Berlin:20261224T220000\nDTEND;TZID=\"Europe/Berlin\":20261225T060000",
            &["Europe/Berlin 2026-12-24T22:00:00..2026-12-25T06:00:00"],
        ),
        ("DTSTART;VALUE=DATE:20261225\nSTATUS:CANCELLED", &[]),
        ("DTSTART;VALUE=DATE:20261225\nBEGIN:VALARM\nTRIGGER:-PT15M\nDURATION:PT5M\nEND:VALARM", &["- 2026-12-25"]),
        ("DTSTART;VAL\n UE=DATE:202612\n\t25", &["- 2026-12-25"]),
    ] {
        assert_eq!(
            check(&event(lines)).as_deref(),
            Ok(expected.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().as_slice()),
            "{lines}"
        );
    }
    assert_eq!(check("BEGIN:VTODO\nDTSTART:x\nRDATE:y\nEND:VTODO\n"), Ok(vec![]));
}

#[test]
fn events_recur_for_five_years() {
    let day = |rule: &str, start: &str| check(&event(&format!("DTSTART;VALUE=DATE:{start}\nRRULE:{rule}"))).unwrap();
    for (rule, start, expected) in [
        // A day each year or week without end needs no list.
        ("FREQ=YEARLY", "20001225", &["- 12-25"][..]),
        ("FREQ=WEEKLY;BYDAY=SA,SU;WKST=MO", "20200104", &["- SAT,SUN"]),
        ("FREQ=WEEKLY", "20200103", &["- FRI"]),
        ("FREQ=YEARLY", "20270704", &["- 2027-07-04", "- 2028-07-04", "- 2029-07-04", "- 2030-07-04"]),
        ("FREQ=YEARLY", "20240229", &["- 02-29"]),
        ("FREQ=YEARLY;INTERVAL=2", "20201225", &["- 2026-12-25", "- 2028-12-25", "- 2030-12-25"]),
        ("FREQ=YEARLY;COUNT=3", "20241225", &["- 2026-12-25"]),
        ("FREQ=YEARLY;UNTIL=20271225", "20201225", &["- 2026-12-25", "- 2027-12-25"]),
        // The fourth Thursday of November, the last Monday of May, the 100th day's weekday.
        (
            "FREQ=YEARLY;BYMONTH=11;BYDAY=4TH",
            "20201126",
            &["- 2026-11-26", "- 2027-11-25", "- 2028-11-23", "- 2029-11-22", "- 2030-11-28"],
        ),
        ("FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;COUNT=7", "20220530", &["- 2026-05-25", "- 2027-05-31", "- 2028-05-29"]),
        ("FREQ=YEARLY;BYDAY=1MO;UNTIL=20270201", "20260105", &["- 2026-01-05", "- 2027-01-04"]),
        (
            "FREQ=YEARLY;BYMONTH=1,12;BYMONTHDAY=-1;COUNT=3",
            "20260131",
            &["- 2026-01-31", "- 2026-12-31", "- 2027-01-31"],
        ),
        ("FREQ=MONTHLY;COUNT=3", "20260131", &["- 2026-01-31", "- 2026-03-31", "- 2026-05-31"]),
        ("FREQ=MONTHLY;BYDAY=2TU;COUNT=2", "20260113", &["- 2026-01-13", "- 2026-02-10"]),
        (
            "FREQ=MONTHLY;BYMONTHDAY=13;BYDAY=FR;UNTIL=20261231",
            "20260213",
            &["- 2026-02-13", "- 2026-03-13", "- 2026-11-13"],
        ),
        (
            "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;COUNT=4",
            "20260102",
            &["- 2026-01-02", "- 2026-01-12", "- 2026-01-16", "- 2026-01-26"],
        ),
        ("FREQ=DAILY;COUNT=2", "20260227", &["- 2026-02-27", "- 2026-02-28"]),
        (
            "FREQ=DAILY;INTERVAL=10;UNTIL=20260121T000000Z",
            "20260101",
            &["- 2026-01-01", "- 2026-01-11", "- 2026-01-21"],
        ),
    ] {
        assert_eq!(day(rule, start), expected, "{rule}");
    }
    let days = day("FREQ=DAILY", "20260101");
    assert_eq!((days.len(), days.last().unwrap().as_str()), (5 * 365 + 1, "- 2030-12-31"));
}

#[test]
fn times_recur_in_their_zone_but_for_exceptions() {
    let lines = "DTSTART;TZID=America/New_York:20261101T013000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20261104T063000Z\n\
                 EXDATE;TZID=America/New_York:20261102T013000,20261103T013000";
    let expected = ["2026-11-01T01:30:00..2026-11-01T02:30:00", "2026-11-04T01:30:00..2026-11-04T02:30:00"];
    let expected = expected.map(|text| format!("America/New_York {text}"));
    assert_eq!(check(&event(lines)).unwrap(), expected);
    let days = "DTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY\nEXDATE;VALUE=DATE:20281225";
    assert_eq!(check(&event(days)).unwrap(), ["2026", "2027", "2029", "2030"].map(|year| format!("- {year}-12-25")));
}

#[test]
fn an_event_may_be_longer_than_all_years() {
    for rule in ["", "\nRRULE:FREQ=DAILY;COUNT=2"] {
        let lines = format!("DTSTART:20200101T000000\nDURATION:PT175307616H{rule}");
        let found = check(&event(&lines)).unwrap_or_else(|error| panic!("{lines}: {error:?}"));
        assert!(found[0].starts_with("- 2020-01-01T00:00:00..9999-12-31"), "{found:?}");
    }
}

#[test]
fn what_cannot_be_honoured_is_told_with_line_and_summary() {
    for (lines, problem) in [
        ("", "`DTSTART` is missing"),
        ("DTSTART:2026-12-25", "`DTSTART`: \"2026-12-25\" is no date or time since 1970"),
        ("DTSTART:20261325", "`DTSTART`: \"20261325\" is no date or time since 1970"),
        ("DTSTART:19691225", "`DTSTART`: \"19691225\" is no date or time since 1970"),
        ("DTSTART:20261225T140000", "it has neither `DTEND` nor `DURATION`, and takes no time"),
        ("DTSTART:20261225\nDTEND:20261225", "it ends before it begins, or takes no time, or no whole days"),
        ("DTSTART:20261225\nDURATION:PT5H", "it ends before it begins, or takes no time, or no whole days"),
        ("DTSTART:20261225\nDURATION:-P1D", "\"-P1D\" is no duration"),
        ("DTSTART:20261225\nDURATION:P1M", "\"P1M\" is no duration"),
        ("DTSTART:20261225\nDTEND:20261226\nDURATION:P1D", "`DTEND` and `DURATION` contradict each other"),
        ("DTSTART:20261225\nDTEND:20261226T000000", "`DTEND` is not of the kind and the zone of `DTSTART`"),
        ("DTSTART:20261225T100000Z\nDTEND:20261225T110000", "`DTEND` is not of the kind and the zone of `DTSTART`"),
        (
            "DTSTART;TZID=W. Europe Standard Time:20261225T100000",
            "`DTSTART`: unknown time zone `W. Europe Standard Time`; use an IANA name such as `Europe/Berlin` or `UTC`",
        ),
        ("DTSTART:20261225\nRDATE:20261226", "`RDATE` cannot be honoured"),
        ("DTSTART:20261225\nRECURRENCE-ID:20261226", "`RECURRENCE-ID` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY\nRRULE:FREQ=DAILY", "`RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=HOURLY", "`FREQ=HOURLY` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=MONTHLY;BYSETPOS=1", "`BYSETPOS=1` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=WEEKLY;WKST=SU", "`WKST=SU` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=WEEKLY;BYDAY=1MO", "`FREQ=WEEKLY;BYDAY=1MO` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:INTERVAL=2", "`INTERVAL=2` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY;INTERVAL=0", "`INTERVAL=0` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY;BYMONTH=13", "`BYMONTH=13` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY;BYDAY=XX", "`BYDAY=XX` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY;BYDAY=é", "`BYDAY=é` of `RRULE` cannot be honoured"),
        ("DTSTART:20261225\nRRULE:FREQ=YEARLY;UNTIL=soon", "`UNTIL=SOON` is no date or time since 1970"),
        (
            "DTSTART:20261225\nRRULE:FREQ=YEARLY\nEXDATE:20261225T000000Z",
            "`EXDATE` is not of the kind and the zone of `DTSTART`",
        ),
    ] {
        let found = check(&event(lines)).expect_err(lines);
        assert_eq!(found, (3, format!("event \"Closed\": {problem}")), "{lines}");
    }
    let many = event("DTSTART:20260101\nRRULE:FREQ=DAILY").repeat(6);
    assert_eq!(
        check(&many).unwrap_err(),
        (28, "event \"Closed\": with it there are more than 10000 entries".to_owned())
    );
    for (text, line, problem) in [
        ("", 1, "it is no iCalendar file, which begins with `BEGIN:VCALENDAR`"),
        ("BEGIN:VCARD\nEND:VCARD", 1, "it is no iCalendar file, which begins with `BEGIN:VCALENDAR`"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR", 3, "`END:VCALENDAR` ends nothing"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT", 1, "`BEGIN:VEVENT` has no end"),
        ("BEGIN:VCALENDAR\n\nnonsense\nEND:VCALENDAR", 3, "it is no `NAME:value`"),
    ] {
        assert_eq!(entries(text, 2026, &mut Zones::new()).unwrap_err(), (line, problem.to_owned()), "{text}");
    }
}
