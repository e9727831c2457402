use super::*;
use clap::{CommandFactory as _, error::ErrorKind};

fn check(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("tickwheel").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_parses() {
    for line in [
        "dev",
        "dev --config a.toml --data /tmp/x --listen 127.0.0.1:0 --shards 2",
        "server --data x",
        "worker --server h:1 --certs d --cert w --pool high --pool spot --concurrency 3 --allow /bin/true --allow date",
        "worker --allow-any",
        "job apply -f jobs.toml --prune --dry-run --output json",
        "job apply --file -",
        "job export --tenant t --prefix a --output toml",
        "job export --output json",
        "job import --crontab /etc/crontab --system --dry-run",
        "job import jobs.yaml --from kubernetes",
        "job import - --from systemd --output json",
        "job list --prefix a --limit 3 --output json",
        "job get a/b --server h:1 --certs d --cert c --tenant t",
        "job pause a",
        "job resume a",
        "job backfill a --from 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z --dry-run --output json",
        "job clear-backlog a",
        "execution dead-letters --prefix a --limit 3 --output json",
        "execution redrive 1.2.3/4",
        "execution redrive --all --dry-run",
        "execution redrive --prefix a --output json",
        "job trigger a",
        "job delete a",
        "execution list --job a --limit 7 --output table",
        "execution get 1.2.3/4 --output json",
        "execution cancel 1.2.3/4",
        "execution watch --job a",
        "calendar set holidays --exclude 12-25 --exclude SAT,SUN --tenant t",
        "calendar set holidays --file - --output json",
        "calendar set holidays --ics a.ics --tz Europe/Berlin",
        "calendar list --tenant t --output json",
        "calendar get holidays",
        "calendar delete holidays --force --output json",
        "cron next @daily --zone UTC",
        "cron next @daily --tz Europe/Berlin --from 2026-01-01T00:00:00Z -n 3 --output json",
        "cron next @daily --gap skip --overlap second --job acme/report",
        "cron explain @daily --tz Europe/Berlin --from 2026-01-01T00:00:00Z -n 3 --output json",
        "cron explain @daily --gap fire-after --overlap both --job report",
        "cron explain @daily --exclude weekends --exclude 12-25",
        "certs ca --out d",
        "certs server --out d --name s --host a.example --host 10.0.0.1 --days 30",
        "certs client --name c --tenant t",
        "certs admin --name a --tenant t",
        "certs worker --name w --tenant t --pool high --pool spot --days 1",
    ] {
        check(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (line, kind) in [
        ("worker", ErrorKind::MissingRequiredArgument),
        ("worker --allow a --allow-any", ErrorKind::ArgumentConflict),
        ("worker --allow-any --concurrency 0", ErrorKind::ValueValidation),
        ("dev --listen 7400", ErrorKind::ValueValidation),
        ("job list --output xml", ErrorKind::InvalidValue),
        ("job export --output table", ErrorKind::InvalidValue),
        ("job get", ErrorKind::MissingRequiredArgument),
        ("job backfill a", ErrorKind::MissingRequiredArgument),
        ("execution redrive", ErrorKind::MissingRequiredArgument),
        ("execution redrive 1.2.3/4 --all", ErrorKind::ArgumentConflict),
        ("execution redrive 1.2.3/4 --dry-run", ErrorKind::ArgumentConflict),
        ("job apply", ErrorKind::MissingRequiredArgument),
        ("job import", ErrorKind::MissingRequiredArgument),
        ("job import a --crontab b", ErrorKind::ArgumentConflict),
        ("job import a --from anacron", ErrorKind::InvalidValue),
        ("calendar set holidays", ErrorKind::MissingRequiredArgument),
        ("calendar set holidays --exclude 12-25 --file a", ErrorKind::ArgumentConflict),
        ("calendar set holidays --file a --ics b", ErrorKind::ArgumentConflict),
        ("calendar set holidays --file a --tz UTC", ErrorKind::ArgumentConflict),
        ("calendar set holidays --tz UTC", ErrorKind::MissingRequiredArgument),
        ("calendar delete", ErrorKind::MissingRequiredArgument),
        ("cron next @daily -n 0", ErrorKind::ValueValidation),
        ("cron next @daily --gap fire", ErrorKind::InvalidValue),
        ("cron explain", ErrorKind::MissingRequiredArgument),
        ("cron explain @daily --overlap never", ErrorKind::InvalidValue),
        ("certs client", ErrorKind::MissingRequiredArgument),
        ("certs server --days 0", ErrorKind::ValueValidation),
        ("frobnicate", ErrorKind::InvalidSubcommand),
    ] {
        assert_eq!(check(line).expect_err(line).kind(), kind, "{line}");
    }
}

#[test]
fn the_help_of_a_server_lists_its_exit_statuses() {
    for name in ["dev", "server"] {
        let mut command = Arguments::command();
        let help = command.find_subcommand_mut(name).expect("it exists").render_long_help().to_string();
        for line in Fatal::HELP.lines() {
            assert!(help.contains(line.trim_end()), "{name}: {line}\n{help}");
        }
    }
}
