//! The command of a line: what the shell is given, and what the command reads.
//!
//! The first `%` ends the command; what follows is its standard input, in which every further `%` is a line's end. `\%` is a percent
//! sign in both. Any other backslash stays, also in front of another one, which then no longer escapes: `\\%` ends the command.

use super::RefusedReason;

/// The command of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub text: String,
    /// Ends with a line's end, unless there is none.
    pub stdin: Option<String>,
    /// Whether the text holds `\\`, of which implementations of cron disagree.
    pub has_double_backslash: bool,
}

impl Command {
    /// Splits what follows the schedule and the user.
    ///
    /// # Errors
    /// When nothing precedes the first `%`.
    pub fn parse(text: &str) -> Result<Self, RefusedReason> {
        let mut parts = Vec::with_capacity(2);
        let (mut part, mut characters) = (String::with_capacity(text.len()), text.chars());
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some('%') => part.push('%'),
                    other => part.extend(Some('\\').into_iter().chain(other)),
                },
                '%' if parts.is_empty() => parts.push(std::mem::take(&mut part)),
                '%' => part.push('\n'),
                other => part.push(other),
            }
        }
        parts.push(part);
        let stdin = parts.get(1).filter(|stdin| !stdin.is_empty()).cloned().map(ended);
        let text = parts.swap_remove(0);
        if text.trim().is_empty() {
            return Err(RefusedReason::NoCommand);
        }
        Ok(Self { has_double_backslash: text.contains(r"\\"), text, stdin })
    }
}

/// With a line's end after its last line.
fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_split_the_command_from_its_input() {
        for (line, text, stdin) in [
            ("date", "date", None),
            (r"date +\%F", "date +%F", None),
            ("cat%hello", "cat", Some("hello\n")),
            ("cat %a%b%", "cat ", Some("a\nb\n")),
            (r"cat%100\% sure%yes", "cat", Some("100% sure\nyes\n")),
            ("cat%", "cat", None),
            ("cat%%x", "cat", Some("\nx\n")),
            (r"printf 'a\nb'", r"printf 'a\nb'", None),
            (r"echo \\%x", r"echo \\", Some("x\n")),
            (r"cat%a\b", "cat", Some("a\\b\n")),
            ("echo x\\", "echo x\\", None),
        ] {
            let command = Command::parse(line).expect(line);
            assert_eq!((command.text.as_str(), command.stdin.as_deref()), (text, stdin), "{line}");
            assert_eq!(command.has_double_backslash, text.contains(r"\\"));
        }
        assert_eq!(Command::parse("%input"), Err(RefusedReason::NoCommand));
    }
}
