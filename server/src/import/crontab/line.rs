//! One line of a crontab, taken apart.
//!
//! A line is an assignment if it can be read as one; otherwise it is an entry. A comment stands on a line of its own. An assignment is
//! `name = value`, with blanks around `=` as one likes. Name and value may each stand in quotes of either kind; after a quoted value nothing
//! follows, and a value without quotes reaches to the last character that is no blank. There are no escapes.
//!
//! Deliberately absent: what fields, variables and commands mean.

use super::{Format, RefusedReason};
use tickwheel_engine::schedule::CronError;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Blank, or a comment.
    Nothing,
    /// A variable for the lines that follow.
    Assignment { name: &'a str, value: &'a str },
    /// A command and its schedule.
    Entry(Entry<'a>),
}

/// A command and its schedule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Five fields between single blanks, or a shorthand; not checked.
    pub expression: String,
    /// In a system crontab.
    pub user: Option<&'a str>,
    /// Not empty, with everything that follows it.
    pub command: &'a str,
    /// Whether it began with `-`, which asks cron not to log.
    pub is_silent: bool,
}

impl<'a> Line<'a> {
    pub fn parse(text: &'a str, format: Format) -> Result<Self, RefusedReason> {
        let text = skip_blanks(text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() || text.starts_with('#') {
            return Ok(Self::Nothing);
        }
        if let Some((name, value)) = assignment(text) {
            return Ok(Self::Assignment { name, value });
        }
        Entry::parse(text, format).map(Self::Entry)
    }
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str, format: Format) -> Result<Self, RefusedReason> {
        let is_silent = text.starts_with('-');
        let text = text.strip_prefix('-').unwrap_or(text);
        let (expression, rest) = expression(text)?;
        let (user, command) = match format {
            Format::User => (None, rest),
            Format::System => {
                let (user, command) = word(rest).ok_or(RefusedReason::NoUser)?;
                if !is_user_name(user) {
                    return Err(RefusedReason::NotAUser { text: user.to_owned() });
                }
                (Some(user), command)
            }
        };
        let command = skip_blanks(command);
        if command.is_empty() {
            Err(RefusedReason::NoCommand)
        } else {
            Ok(Self { expression, user, command, is_silent })
        }
    }
}

/// The schedule of a line, and what follows it.
fn expression(text: &str) -> Result<(String, &str), RefusedReason> {
    let count_max = if text.starts_with('@') { 1 } else { 5 };
    let (mut words, mut rest) = (Vec::with_capacity(count_max), text);
    while words.len() < count_max {
        let (word, after) = word(rest).ok_or(CronError::FieldCount { count: words.len() })?;
        words.push(word);
        rest = after;
    }
    Ok((words.join(" "), rest))
}

/// Name and value, if the text is an assignment.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match quoted(text) {
        Some(parts) => parts,
        None => text.split_at(text.find(|c| c == '=' || is_blank(c))?),
    };
    let value = skip_blanks(skip_blanks(rest).strip_prefix('=')?);
    let value = match quoted(value) {
        Some((value, rest)) => Some(value).filter(|_| skip_blanks(rest).is_empty())?,
        None if value.starts_with(QUOTES) => return None,
        None => value.trim_end_matches(is_blank),
    };
    (!name.is_empty() && !name.contains('=')).then_some((name, value))
}

const QUOTES: [char; 2] = ['"', '\''];

/// What stands in quotes at the start of a text, and what follows them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| QUOTES.contains(quote))?;
    text[1..].split_once(quote)
}

/// The next word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = skip_blanks(text);
    let end = text.find(is_blank).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

/// What separates words in a crontab.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Whether a text may be a user's name: letters, digits, `_`, `-` and `.`, at most 32, with a `$` at the end for machines.
fn is_user_name(text: &str) -> bool {
    let name = text.strip_suffix('$').unwrap_or(text);
    let allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    (1..=32).contains(&name.chars().count()) && !name.starts_with('-') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_cron_does() {
        for (text, name, value) in [
            ("A=b", "A", "b"),
            ("  A = b c  ", "A", "b c"),
            ("A=", "A", ""),
            ("A=\"\"", "A", ""),
            ("A=' b '  ", "A", " b "),
            ("\"A B\" = c", "A B", "c"),
            ("A=it's # no comment", "A", "it's # no comment"),
            ("PATH=/usr/bin:/bin\r", "PATH", "/usr/bin:/bin"),
            ("A=b=c", "A", "b=c"),
        ] {
            let line = Line::parse(text, Format::User);
            assert_eq!(line, Ok(Line::Assignment { name, value }), "{text:?}");
        }
    }

    #[test]
    fn what_only_resembles_an_assignment_is_an_entry() {
        for text in ["*/5 * * * * A=b c", "@daily A=b c", "A=\"b\" c", "A='b", "0 0 1 1 0 = x"] {
            assert!(!matches!(Line::parse(text, Format::User), Ok(Line::Assignment { .. })), "{text:?}");
        }
    }

    #[test]
    fn blank_lines_and_comments_are_nothing() {
        for text in ["", "  \t ", "# * * * * * x", "  # A=b", "\r"] {
            assert_eq!(Line::parse(text, Format::System), Ok(Line::Nothing), "{text:?}");
        }
    }

    #[test]
    fn entries_are_cut_into_schedule_user_and_command() {
        for (text, format, expression, user, command, is_silent) in [
            ("1 2 3 4 5 a  b ", Format::User, "1 2 3 4 5", None, "a  b ", false),
            ("\t*/5\t*  * * Mon-Fri\troot\ta b", Format::System, "*/5 * * * Mon-Fri", Some("root"), "a b", false),
            ("-@daily www-data x", Format::System, "@daily", Some("www-data"), "x", true),
            ("-*/15 * * * * x # y", Format::User, "*/15 * * * *", None, "x # y", true),
        ] {
            let entry = Entry { expression: expression.to_owned(), user, command, is_silent };
            assert_eq!(Line::parse(text, format), Ok(Line::Entry(entry)), "{text:?}");
        }
    }

    #[test]
    fn entries_that_lack_something_say_what() {
        for (text, format, reason) in [
            ("* * *", Format::User, CronError::FieldCount { count: 3 }.into()),
            ("* * * * *", Format::User, RefusedReason::NoCommand),
            ("@daily  ", Format::User, RefusedReason::NoCommand),
            ("* * * * *", Format::System, RefusedReason::NoUser),
            ("* * * * * root", Format::System, RefusedReason::NoCommand),
            ("* * * * * /bin/x", Format::System, RefusedReason::NotAUser { text: "/bin/x".to_owned() }),
        ] {
            assert_eq!(Line::parse(text, format), Err(reason), "{text:?}");
        }
    }
}
