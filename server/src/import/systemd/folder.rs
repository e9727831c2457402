//! The units of a folder: `NAME.timer` and `NAME.service`, and what `NAME.timer.d/*.conf` and `NAME.service.d/*.conf` change in them.
//!
//! An instance (`sync@home.service`) has the files of its template (`sync@.service`) unless it has its own. Invariant: files count in
//! the order of their names. Deliberately absent: other folders, drop-ins for all units of a type or a prefix.

use super::{
    RefusedReason,
    unit::{Problem, Unit},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
const TYPES: [&str; 2] = [".timer", ".service"];

/// The texts of a folder's units, or why one cannot be read, by their paths in the folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    texts: BTreeMap<String, Result<String, String>>,
}

impl Folder {
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut texts = BTreeMap::new();
        for name in names(path)? {
            if TYPES.iter().any(|suffix| name.ends_with(suffix)) {
                texts.insert(name.clone(), text(&path.join(&name)));
            } else if name.strip_suffix(".d").is_some_and(|unit| TYPES.iter().any(|suffix| unit.ends_with(suffix))) {
                for drop_in in names(&path.join(&name))?.iter().filter(|drop_in| drop_in.ends_with(".conf")) {
                    texts.insert(format!("{name}/{drop_in}"), text(&path.join(&name).join(drop_in)));
                }
            }
        }
        Ok(Self { path: path.to_owned(), texts })
    }

    /// Of what is read already: texts by their paths in the folder.
    pub fn of_texts(path: &Path, texts: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { path: path.to_owned(), texts: texts.into_iter().map(|(name, text)| (name, Ok(text))).collect() }
    }

    /// The names of the timers, sorted.
    pub fn timers(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str).filter(|name| name.ends_with(TYPES[0]) && !name.contains('/'))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A unit; `None` if it has no file.
    pub fn unit(&self, name: &str) -> Result<Option<Unit>, Problem> {
        let template = template(name);
        let main = std::iter::once(name).chain(template.as_deref()).find(|name| self.texts.contains_key(*name));
        let Some(main) = main else { return Ok(None) };
        let mut unit = Unit::default();
        self.add(&mut unit, main)?;
        for owner in template.as_deref().into_iter().chain([name]) {
            let folder = format!("{owner}.d/");
            for (drop_in, _) in self.texts.range(folder.clone()..).take_while(|(name, _)| name.starts_with(&folder)) {
                self.add(&mut unit, drop_in)?;
            }
        }
        Ok(Some(unit))
    }

    fn add(&self, unit: &mut Unit, name: &str) -> Result<(), Problem> {
        let file = self.file(name);
        match &self.texts[name] {
            Ok(text) => unit.add(text, &file),
            Err(problem) => {
                let reason = RefusedReason::Unreadable { problem: problem.clone() };
                Err(Problem { file, line: None, text: name.to_owned(), reason })
            }
        }
    }
}

/// `sync@.service` of `sync@home.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, suffix) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{suffix}")).filter(|template| template != name)
}

/// The names in a folder that are UTF-8, as those of units are.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}
