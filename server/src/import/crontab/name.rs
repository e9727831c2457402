//! The names of imported jobs: `crontab/FILE/WORDS-HASH`, where `WORDS` is the beginning of the command for people and `HASH` tells
//! commands and users apart. Names are part of what users see and refer to: they do not change from one version to the next.

use std::{collections::HashMap, path::Path};
use xxhash_rust::xxh3::xxh3_64;

/// Longest part of a name that comes from the file, and from the command, in bytes.
const FILE_BYTES_MAX: usize = 64;
const WORDS_BYTES_MAX: usize = 40;

/// Gives out names, each once.
#[derive(Debug)]
pub(super) struct Names {
    file: String,
    /// How often a name would have been given out without a suffix.
    counts: HashMap<String, u32>,
}

impl Names {
    pub fn new(path: &Path) -> Self {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let file = slug(&file, "._", FILE_BYTES_MAX);
        Self { file: if file.is_empty() { "crontab".to_owned() } else { file }, counts: HashMap::new() }
    }

    /// The name of a command's job. A command that occurs again gets `-2`, `-3` and so on.
    pub fn of(&mut self, user: Option<&str>, command: &str) -> String {
        let hash = xxh3_64(format!("{}\0{command}", user.unwrap_or_default()).as_bytes()) >> 32;
        let words = slug(command, "", WORDS_BYTES_MAX);
        let name = format!("crontab/{}/{words}{}{hash:08x}", self.file, if words.is_empty() { "" } else { "-" });
        let count = self.counts.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}-{count}") }
    }
}

/// The letters and digits of a text, the ASCII ones and those of `also`, with single hyphens in place of everything else.
fn slug(text: &str, also: &str, bytes_max: usize) -> String {
    let mut slug = String::new();
    for character in text.chars() {
        if slug.len() == bytes_max {
            break;
        }
        if character.is_ascii_alphanumeric() || also.contains(character) {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// The user whose crontab lies at `path` in cron's own folder: `/var/spool/cron/crontabs/USER`, elsewhere `/var/spool/cron/USER`.
pub(super) fn owner(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let folder = if folder.ends_with("crontabs") { folder.parent()? } else { folder };
    let user = path.file_name().filter(|_| folder.ends_with("spool/cron"))?;
    user.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_file_words_and_hash_and_never_changes() {
        let mut names = Names::new("/etc/cron.d/sys stat".as_ref());
        let first = names.of(Some("root"), "[ -x /usr/lib/sa/sa1 ] && /usr/lib/sa/sa1 1 1");
        assert_eq!(first, "crontab/sys-stat/x-usr-lib-sa-sa1-usr-lib-sa-sa1-1-1-5fe27ac4");
        let wordless = names.of(None, "!!");
        let hash = wordless.strip_prefix("crontab/sys-stat/").expect("the file's name comes first");
        assert!(hash.len() == 8 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{wordless}");
    }

    #[test]
    fn equal_commands_are_numbered_and_other_users_have_other_names() {
        let mut names = Names::new("jobs".as_ref());
        let name = names.of(None, "date");
        assert_eq!(names.of(None, "date"), format!("{name}-2"));
        assert_eq!(names.of(None, "date"), format!("{name}-3"));
        for (user, command) in [(Some("root"), "date"), (None, "date ")] {
            let other = names.of(user, command);
            assert!(!other.starts_with(&name), "{other} has a hash of its own");
        }
    }

    #[test]
    fn the_longest_name_fits() {
        let long = "ü-a".repeat(500);
        let name = Names::new(long.as_ref()).of(Some(&long), &long);
        assert!(name.len() + "-4294967295".len() <= tickwheel_wire::limits::JOB_NAME_BYTES_MAX, "{name}");
    }

    #[test]
    fn a_crontab_in_crons_folder_belongs_to_its_user() {
        for (path, user) in [
            ("/var/spool/cron/crontabs/alice", Some("alice")),
            ("/var/spool/cron/bob", Some("bob")),
            ("/home/alice/crontab", None),
            ("crontab", None),
            ("/etc/cron.d/spool", None),
        ] {
            assert_eq!(owner(path.as_ref()).as_deref(), user, "{path}");
        }
    }
}
