//! Writing answers: tables for people, JSON for programs.
//!
//! Invariants: what comes from elsewhere (names, errors, output of commands) cannot steer the terminal, control characters are
//! escaped in tables; a reader that goes away ends the command quietly.

use super::error::CliError;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

/// Writes `text`, which ends with a line break, to the standard output.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes `value` as indented JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
    write(&format!("{text}\n"))
}

/// Writes `value` as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(CliError::failed)?;
    write(&format!("{text}\n"))
}

/// Writes rows below a header.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), CliError> {
    let mut table = plain_table();
    table.set_header(header);
    let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| printable(&cell))).collect();
    table.add_rows(rows);
    write(&finish(&mut table))
}

/// Writes one thing, a property per line.
pub(super) fn properties(properties: &[(&str, String)]) -> Result<(), CliError> {
    let mut table = plain_table();
    for (name, value) in properties {
        table.add_row([(*name).to_owned(), printable(value)]);
    }
    write(&finish(&mut table))
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn finish(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// `text` with its control characters escaped.
pub(super) fn printable(text: &str) -> String {
    escaped(text, |_| false)
}

/// `text` with its control characters escaped, but for line breaks and tabs.
pub(super) fn printable_lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !keep(c) {
            write!(out, "{}", c.escape_default()).expect("a string takes all");
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_table_can_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable_lines("a\u{1b}b\nc\td\r"), "a\\u{1b}b\nc\td\\r");
        assert_eq!(printable("Grüße"), "Grüße");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = plain_table();
        table.set_header(["A", "LONG"]);
        table.add_row(["value", "x"]);
        assert_eq!(finish(&mut table), "A      LONG\nvalue  x\n");
    }
}
