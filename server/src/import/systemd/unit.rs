//! Unit files: sections of `Key=value` lines.
//!
//! A line that ends with a backslash goes on with the next one, a blank between them; comment lines (`#`, `;`) in between are passed
//! over. Later files, the drop-ins, add to earlier ones. For a key with one value the last assignment counts; one with several
//! values collects them, and an empty assignment drops what was collected.
//!
//! Source: systemd.syntax(7). Deliberately absent: what keys mean; looking for files.

use super::RefusedReason;
use std::path::{Path, PathBuf};

/// A line of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub section: String,
    pub key: String,
    pub value: String,
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

/// A unit's files as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    assignments: Vec<Assignment>,
}

/// A reason and the place that it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub file: PathBuf,
    pub line: Option<usize>,
    /// The line, or the unit's name.
    pub text: String,
    pub reason: RefusedReason,
}

impl Assignment {
    pub fn problem(&self, reason: RefusedReason) -> Problem {
        let text = format!("{}={}", self.key, self.value);
        Problem { file: self.file.clone(), line: Some(self.line), text, reason }
    }

    /// What systemd takes for yes and no.
    pub fn boolean(&self) -> Result<bool, Problem> {
        match self.value.to_ascii_lowercase().as_str() {
            "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
            "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
            _ => Err(self.problem(RefusedReason::Value { expected: "yes or no" })),
        }
    }
}

impl Unit {
    /// Adds a file to what precedes it.
    pub fn add(&mut self, text: &str, file: &Path) -> Result<(), Problem> {
        let mut section = String::new();
        for (line, text) in logical_lines(text) {
            let problem = |reason| Problem { file: file.to_owned(), line: Some(line), text: text.clone(), reason };
            if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = text.split_once('=') {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                if section.is_empty() {
                    return Err(problem(RefusedReason::NoSection));
                }
                let (section, file) = (section.clone(), file.to_owned());
                self.assignments.push(Assignment { section, key, value, file, line });
            } else {
                return Err(problem(RefusedReason::NoAssignment));
            }
        }
        Ok(())
    }

    /// All assignments of a section, in their order.
    pub fn section<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a Assignment> {
        self.assignments.iter().filter(move |assignment| assignment.section == section)
    }

    /// The last assignment of a key, unless it is empty.
    pub fn last<'a>(&'a self, section: &'a str, key: &'a str) -> Option<&'a Assignment> {
        self.section(section).filter(|assignment| assignment.key == key).last().filter(|last| !last.value.is_empty())
    }

    /// The assignments of a key after the last empty one.
    pub fn all<'a>(&'a self, section: &'a str, key: &'a str) -> Vec<&'a Assignment> {
        self.since_reset(section, &[key])
    }

    /// The assignments of several keys after the last empty one of any of them.
    pub fn since_reset<'a>(&'a self, section: &'a str, keys: &[&str]) -> Vec<&'a Assignment> {
        let mut found = Vec::new();
        for assignment in self.section(section).filter(|assignment| keys.contains(&assignment.key.as_str())) {
            if assignment.value.is_empty() {
                found.clear();
            } else {
                found.push(assignment);
            }
        }
        found
    }

    pub fn boolean(&self, section: &str, key: &str) -> Result<Option<bool>, Problem> {
        self.last(section, key).map(Assignment::boolean).transpose()
    }
}

/// The lines of a text that say something, continued ones as one, with their numbers.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut is_continued = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_comment = line.starts_with(['#', ';']);
        if is_comment || (line.is_empty() && !is_continued) {
            continue;
        }
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| is_continued) {
            Some((_, begun)) => {
                begun.push(' ');
                begun.push_str(part);
            }
            None => lines.push((index + 1, part.to_owned())),
        }
        is_continued = goes_on;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(texts: &[&str]) -> Unit {
        let mut unit = Unit::default();
        for text in texts {
            unit.add(text, "x.timer".as_ref()).expect("a unit");
        }
        unit
    }

    #[test]
    fn lines_are_read_with_comments_and_continuations() {
        let unit =
            unit(&["# c\n; d\n\n[Unit]\nA = b \n[Service]\nExecStart=/bin/x \\\n# inside\n  y \\\n  z\nB=\\x\n"]);
        let read: Vec<_> =
            unit.section("Service").map(|line| (line.key.as_str(), line.value.as_str(), line.line)).collect();
        assert_eq!(read, [("ExecStart", "/bin/x  y  z", 6 + 1), ("B", "\\x", 11)]);
        assert_eq!(unit.last("Unit", "A").map(|line| line.value.as_str()), Some("b"));
    }

    #[test]
    fn drop_ins_add_replace_and_drop() {
        let unit = unit(&[
            "[Timer]\nOnCalendar=daily\nOnBootSec=1\nPersistent=yes\n",
            "[Timer]\nOnCalendar=\nOnCalendar=weekly\nOnCalendar=monthly\nPersistent=\n",
        ]);
        let values = |found: Vec<&Assignment>| found.iter().map(|line| line.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(unit.all("Timer", "OnCalendar")), ["weekly", "monthly"]);
        assert_eq!(values(unit.since_reset("Timer", &["OnCalendar", "OnBootSec"])), ["weekly", "monthly"]);
        assert_eq!(unit.last("Timer", "Persistent"), None);
    }

    #[test]
    fn what_is_no_unit_is_told_by_line() {
        for (text, line, reason) in
            [("A=b\n", 1, RefusedReason::NoSection), ("[Timer]\n\nOnCalendar daily\n", 3, RefusedReason::NoAssignment)]
        {
            let problem = Unit::default().add(text, "x.timer".as_ref()).expect_err(text);
            assert_eq!((problem.line, problem.reason), (Some(line), reason), "{text}");
        }
    }
}
