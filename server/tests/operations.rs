//! The commands of `docs/guide/operations.md` are run as they stand, and print what stands below them.

mod cli_support;

use cli_support::Dev;

const PAGE: &str = include_str!("../../docs/guide/operations.md");

/// The blocks of one kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let begin = format!("```{kind}\n");
    PAGE.split(begin.as_str()).skip(1).map(|rest| rest.split("\n```").next().expect("it ends")).collect()
}

/// The words of a command line; quotation marks hold words together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_commands_of_the_page_do_what_stands_below_them() {
    // Without a worker nothing begins to run, so that each answer is the same each time.
    let server = Dev::start_server();
    for file in blocks("toml") {
        server.run(&["job", "apply", "-f", "-"], file).ok();
    }
    let mut count = 0;
    for block in blocks("console") {
        for command in block.split("$ tickwheel ").skip(1) {
            let (line, expected) = command.split_once('\n').unwrap_or((command, ""));
            let words = words(line);
            let answer = server.run(&words.iter().map(String::as_str).collect::<Vec<_>>(), "");
            assert_eq!(answer.status, Some(0), "{line}: {}", answer.stderr);
            // The order of jobs is that of the partitions.
            if !expected.is_empty() {
                assert_eq!(sorted(&answer.stdout), sorted(expected), "{line}");
            }
            count += 1;
        }
    }
    assert!(count >= 12, "{count} commands");
}
