//! The time zone of this machine, which is that of its cron and of its timers.
//!
//! Deliberately absent: the variable `TZ`, which says how the one who imports wants to see times, not when jobs run.

use std::{fs, path::Path};

/// The zone's IANA name; `UTC` where none is set up.
pub(super) fn local() -> String {
    named(Path::new("/etc/localtime"), Path::new("/etc/timezone")).unwrap_or_else(|| "UTC".to_owned())
}

/// What the link `localtime` points to below a folder `zoneinfo`, or else what the file `timezone` says.
fn named(localtime: &Path, timezone: &Path) -> Option<String> {
    let linked = fs::canonicalize(localtime).ok().and_then(|target| {
        let (_, name) = target.to_str()?.split_once("/zoneinfo/")?;
        Some(name.to_owned())
    });
    let written = || fs::read_to_string(timezone).ok().map(|name| name.trim().to_owned());
    linked.or_else(written).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_link_counts_before_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (localtime, timezone) = (folder.path().join("localtime"), folder.path().join("timezone"));
        assert_eq!(named(&localtime, &timezone), None);
        fs::write(&timezone, "Asia/Tokyo\n").expect("writable");
        assert_eq!(named(&localtime, &timezone).as_deref(), Some("Asia/Tokyo"));
        let zones = folder.path().join("share/zoneinfo/Europe");
        fs::create_dir_all(&zones).expect("writable");
        fs::write(zones.join("Berlin"), "").expect("writable");
        symlink(zones.join("Berlin"), &localtime).expect("writable");
        assert_eq!(named(&localtime, &timezone).as_deref(), Some("Europe/Berlin"));
    }
}
