//! The examples of the guide: every jobs file in it is applied to a server, every key that its tables show is one.

mod cli_support;

use cli_support::Dev;
use std::{fs, path::PathBuf};
use tickwheel_server::jobs_file;

/// The pages of the guide with their texts.
fn pages() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let mut pages: Vec<_> = fs::read_dir(folder)
        .expect("the guide is there")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("a text")))
        .collect();
    pages.sort();
    assert!(pages.len() >= 2, "{pages:?}");
    pages
}

/// The jobs files of a page.
fn files(text: &str) -> Vec<&str> {
    text.split("```toml\n").skip(1).map(|rest| rest.split("\n```").next().expect("it ends")).collect()
}

/// What the last column of a page's tables says in the words of a jobs file: the texts in backticks that set a key.
fn settings(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let columns = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let settings =
        columns.map(|column| column.split('`').skip(1).step_by(2).filter(|text| text.contains(" = ")).collect());
    settings.filter(|settings: &Vec<_>| !settings.is_empty()).collect()
}

#[test]
fn every_jobs_file_of_the_guide_can_be_applied() {
    let dev = Dev::start();
    let mut count = 0;
    for (page, text) in pages() {
        // The calendars of the server that the page's jobs name.
        for arguments in commands(&text).filter(|arguments| arguments.starts_with(&["calendar", "set"])) {
            dev.run(&arguments, "").ok();
        }
        for file in files(&text) {
            let answer = dev.run(&["job", "apply", "-f", "-", "--output", "json"], file);
            assert_eq!(answer.status, Some(0), "{page}: {file}\n{}{}", answer.stdout, answer.stderr);
            count += answer.json().as_array().expect("an array").len();
        }
    }
    assert!(count >= 20, "{count} jobs");
}

/// The commands of a page, without those that need an id or a file of the reader's.
fn commands(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().expect("it ends"));
    blocks.flat_map(str::lines).map(|line| line.strip_prefix("tickwheel ").expect("a command").split(' ').collect())
}

#[test]
fn every_command_about_making_up_works_on_the_jobs_of_its_page() {
    let dev = Dev::start();
    let (_, text) = pages().into_iter().find(|(page, _)| page.ends_with("making-up.md")).expect("the page is there");
    for file in files(&text) {
        dev.run(&["job", "apply", "-f", "-"], file).ok();
    }
    let answers: Vec<_> = commands(&text).map(|arguments| dev.run(&arguments, "").ok()).collect();
    assert!(answers.len() >= 8, "{answers:?}");
}

#[test]
fn every_command_about_calendars_works_in_the_order_of_its_page() {
    let dev = Dev::start();
    let (_, text) = pages().into_iter().find(|(page, _)| page.ends_with("schedules.md")).expect("the page is there");
    let answers: Vec<_> = commands(&text).map(|arguments| dev.run(&arguments, "").ok()).collect();
    assert!(answers.len() >= 5, "{answers:?}");
    assert!(answers.iter().any(|answer| answer.stdout == "12-25\n12-26\n2030-04-22\n"), "{answers:?}");
}

#[test]
fn every_key_in_the_tables_of_the_guide_is_one() {
    let mut count = 0;
    for (page, text) in pages() {
        for settings in settings(&text) {
            let body = settings.join("\n");
            let has =
                |keys: &[&str]| keys.iter().any(|key| body.lines().any(|line| line.starts_with(&format!("{key} ="))));
            let mut job = format!("[[job]]\nname = \"a\"\nhandler = \"h\"\n{body}\n");
            if !has(&["cron", "every", "delay", "at", "after", "schedules"]) {
                job += "cron = \"0 3 * * *\"\n";
            }
            if has(&["misfire_max"]) && !has(&["misfire"]) {
                job += "misfire = \"fire-all\"\n";
            }
            if let Err(errors) = jobs_file::parse(&job, "table", None) {
                panic!("{page}: {body}: {}", errors[0]);
            }
            count += 1;
        }
    }
    assert!(count >= 50, "{count} rows");
}
