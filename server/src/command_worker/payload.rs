//! What a job of the handler `exec` carries: a command, as JSON.
//!
//! ```json
//! {"argv": ["/bin/sh", "-c", "exec backup"], "env": {"TARGET": "b2"}, "dir": "/srv", "user": "backup"}
//! ```
//!
//! Unknown keys are refused, absent ones have their defaults and are left out, so equal commands have equal bytes.

use super::CommandError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tickwheel_wire::limits::OUTPUT_BYTES_MAX;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandPayload {
    /// The program and its arguments, at least the program. A program without a slash is searched for in the command's `PATH`;
    /// a relative one starts from `dir`.
    pub argv: Vec<String>,
    /// Variables, on top of those that the command would have otherwise. A name is neither empty nor holds `=`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it runs. Default: its home directory with `user` or `clean_env`, otherwise where the worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// What it reads from its standard input; default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The user as whom it runs: the worker's own, the default, or any if the worker is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it starts, as cron's commands do, from `HOME`, `LOGNAME`, `USER`, `SHELL=/bin/sh` and `PATH=/usr/bin:/bin`
    /// alone, instead of the worker's variables.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clean_env: bool,
    /// How much of its output is kept, in bytes; more than 4,096, the default, counts as 4,096. Of more output the beginning and
    /// the end are kept, half of the bound each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes_max: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl CommandPayload {
    /// A command with every setting at its default.
    pub const fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: BTreeMap::new(),
            dir: None,
            stdin: None,
            user: None,
            clean_env: false,
            output_bytes_max: None,
        }
    }

    /// The bytes of a job's payload.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, a flag and a number can be written as JSON")
    }

    /// Reads a job's payload and checks what can be checked without starting it.
    ///
    /// # Errors
    /// [`CommandError::Payload`], with the place and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let payload: Self =
            serde_json::from_slice(bytes).map_err(|error| CommandError::Payload { problem: error.to_string() })?;
        let problem = payload.problem();
        problem.map_or(Ok(payload), |problem| Err(CommandError::Payload { problem }))
    }

    fn problem(&self) -> Option<String> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Some("`argv` names no program".to_owned());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Some(format!("`{name}` cannot be the name of a variable"));
        }
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        let handed_over = self.argv.iter().chain(variables).chain(&self.dir).chain(&self.user);
        handed_over.into_iter().any(|text| text.contains('\0')).then(|| "a text holds a NUL".to_owned())
    }

    /// How much output is kept.
    pub(super) fn output_bytes_max(&self) -> usize {
        let asked = self.output_bytes_max.and_then(|bytes_max| usize::try_from(bytes_max).ok());
        asked.unwrap_or(OUTPUT_BYTES_MAX).min(OUTPUT_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_survives_its_encoding_and_leaves_defaults_out() {
        let plain = CommandPayload::new(vec!["date".to_owned()]);
        assert_eq!(plain.encode(), br#"{"argv":["date"]}"#);
        let full = CommandPayload {
            env: BTreeMap::from([("A".to_owned(), "b c".to_owned())]),
            dir: Some("/tmp".to_owned()),
            stdin: Some("x\n".to_owned()),
            user: Some("root".to_owned()),
            clean_env: true,
            output_bytes_max: Some(100),
            ..plain.clone()
        };
        for payload in [plain, full] {
            assert_eq!(CommandPayload::decode(&payload.encode()).expect("its own bytes"), payload);
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_reason() {
        for (json, word) in [
            ("", "EOF"),
            ("date", "expected"),
            ("{}", "argv"),
            (r#"{"argv":[]}"#, "names no program"),
            (r#"{"argv":[""]}"#, "names no program"),
            (r#"{"argv":"date"}"#, "sequence"),
            (r#"{"argv":["date"],"umask":"022"}"#, "umask"),
            (r#"{"argv":["date"],"env":{"A=B":"c"}}"#, "`A=B`"),
            (r#"{"argv":["date"],"env":{"":"c"}}"#, "variable"),
            (r#"{"argv":["date","a\u0000b"]}"#, "NUL"),
            (r#"{"argv":["date"],"output_bytes_max":-1}"#, "output_bytes_max\":-1|u32"),
        ] {
            let error = CommandPayload::decode(json.as_bytes()).expect_err(json);
            let text = error.to_string();
            assert!(word.split('|').any(|word| text.contains(word)), "{json}: {text}");
            assert_eq!((error.kind(), error.is_permanent()), ("payload", true));
        }
    }

    #[test]
    fn no_more_output_is_kept_than_the_node_keeps() {
        for (asked, kept) in [(None, 4096), (Some(10), 10), (Some(0), 0), (Some(u32::MAX), 4096)] {
            let payload = CommandPayload { output_bytes_max: asked, ..CommandPayload::new(Vec::new()) };
            assert_eq!(payload.output_bytes_max(), kept);
        }
    }
}
