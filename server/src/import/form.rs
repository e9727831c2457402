//! The forms of what can be imported, and how one is known by its name or its text.

use clap::ValueEnum;
use std::path::Path;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A crontab.
    Crontab,
    /// Manifests of Kubernetes.
    Kubernetes,
    /// Timers of systemd.
    Systemd,
}

impl Form {
    /// The form of the file at `path`, by the end of its name; `None` where it tells nothing.
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "timer" | "service" => Some(Self::Systemd),
            "yaml" | "yml" | "json" => Some(Self::Kubernetes),
            _ => None,
        }
    }

    /// The form of a text, by what only one of them can hold; otherwise it is a crontab.
    pub fn of_text(text: &str) -> Self {
        let told = |line: &str| match line {
            "[Unit]" | "[Timer]" => Some(Self::Systemd),
            _ if ["apiVersion:", "kind:", "---", "{"].iter().any(|start| line.starts_with(start)) => {
                Some(Self::Kubernetes)
            }
            _ => None,
        };
        text.lines().find_map(|line| told(line.trim_end())).unwrap_or(Self::Crontab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_known_by_the_name_or_else_by_the_text() {
        for (name, form) in [
            ("a/backup.timer", Some(Form::Systemd)),
            ("backup.service", Some(Form::Systemd)),
            ("b.yaml", Some(Form::Kubernetes)),
            ("b.yml", Some(Form::Kubernetes)),
            ("b.json", Some(Form::Kubernetes)),
            ("/etc/crontab", None),
            ("/etc/cron.d/a.b", None),
        ] {
            assert_eq!(Form::of_name(name.as_ref()), form, "{name}");
        }
        for (text, form) in [
            ("# backups\n[Unit]\nDescription=x\n", Form::Systemd),
            ("\n[Timer]\r\nOnCalendar=daily\n", Form::Systemd),
            ("apiVersion: batch/v1\nkind: CronJob\n", Form::Kubernetes),
            ("# x\n--- # y\nkind: List\n", Form::Kubernetes),
            ("{\"kind\": \"List\"}", Form::Kubernetes),
            ("# kind: x\nMAILTO=\"\"\n0 1 * * * echo 'kind: [Timer]'\n", Form::Crontab),
            ("", Form::Crontab),
        ] {
            assert_eq!(Form::of_text(text), form, "{text:?}");
        }
    }
}
