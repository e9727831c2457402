//! Which programs a worker runs.
//!
//! A list names programs by path, or by a name that is looked up once, in the worker's own `PATH`. A job may write either; what is
//! started is the path that the list holds, whatever the job's own `PATH` says. Variables with which the loader, a shell or
//! an interpreter would run something else are refused along with a list.
//!
//! Deliberately absent: any judgement of arguments. A list that holds a shell or an interpreter allows everything.

use super::CommandError;
use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where a program is searched for when there is no `PATH`.
pub(super) const PATH_DEFAULT: &str = "/usr/bin:/bin";

/// Variables that change which code an honest program runs.
const HIJACKING: [&str; 23] = [
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PS4",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "ZDOTDIR",
];
/// The same, as beginnings of names.
const HIJACKING_PREFIXES: [&str; 2] = ["BASH_FUNC_", "LD_"];

/// What a worker may run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllowList {
    /// Any command.
    Any,
    /// Certain programs: how a job may name one, and what is started then; see [`AllowList::commands`].
    Commands(BTreeMap<String, PathBuf>),
}

impl AllowList {
    /// A list of programs, each a path or a name that is looked up in this process's `PATH`. A name that is not found allows
    /// nothing, and a warning says so.
    pub fn commands(programs: impl IntoIterator<Item = String>) -> Self {
        Self::resolved(programs, env::var_os("PATH").as_deref())
    }

    fn resolved(programs: impl IntoIterator<Item = String>, path: Option<&OsStr>) -> Self {
        let mut allowed = BTreeMap::new();
        for program in programs {
            // A relative path must not depend on the folder that a job chooses.
            match search(&program, path).and_then(std::path::absolute) {
                Ok(found) => {
                    allowed.extend(found.to_str().map(|name| (name.to_owned(), found.clone())));
                    allowed.insert(program, found);
                }
                Err(error) => tracing::warn!("nothing is allowed by `{program}`: {error}"),
            }
        }
        Self::Commands(allowed)
    }

    /// What to start for a job that names `program` and has this `PATH`.
    ///
    /// # Errors
    /// [`CommandError::CommandNotAllowed`]; [`CommandError::Spawn`] when there is no such program.
    pub(super) fn program(&self, program: &str, path: Option<&OsStr>) -> Result<PathBuf, CommandError> {
        match self {
            Self::Any => {
                search(program, path).map_err(|source| CommandError::Spawn { program: program.to_owned(), source })
            }
            Self::Commands(allowed) => {
                let refused = || CommandError::CommandNotAllowed { program: program.to_owned() };
                allowed.get(program).cloned().ok_or_else(refused)
            }
        }
    }

    /// Checks the variables that a job sets.
    ///
    /// # Errors
    /// [`CommandError::EnvironmentNotAllowed`] with the first that is refused.
    pub(super) fn check_environment<'a>(
        &self,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), CommandError> {
        let hijacks =
            |name: &str| HIJACKING.contains(&name) || HIJACKING_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let refused = names.into_iter().find(|name| *self != Self::Any && hijacks(name));
        refused.map_or(Ok(()), |name| Err(CommandError::EnvironmentNotAllowed { name: name.clone() }))
    }
}

/// The file that `program` means: itself if it holds a slash, otherwise the first one of this name in `path` that can be run.
/// Relative folders in `path` are passed over.
fn search(program: &str, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = path.unwrap_or_else(|| PATH_DEFAULT.as_ref());
    let candidates = env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(program));
    let not_found = || io::Error::new(io::ErrorKind::NotFound, format!("not found in {}", path.display()));
    candidates.into_iter().find(|file| is_executable(file)).ok_or_else(not_found)
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(programs: &[&str]) -> AllowList {
        AllowList::resolved(programs.iter().map(|&program| program.to_owned()), Some("/usr/bin:/bin".as_ref()))
    }

    #[test]
    fn a_program_may_be_named_as_listed_or_by_its_path() {
        let allowed = list(&["sh", "/opt/report"]);
        let evil = Some(OsStr::new("/tmp/evil"));
        let shell = allowed.program("sh", evil).expect("listed");
        assert!(shell == Path::new("/usr/bin/sh") || shell == Path::new("/bin/sh"), "{shell:?}");
        assert_eq!(allowed.program(shell.to_str().expect("ASCII"), evil).expect("its path"), shell);
        assert_eq!(allowed.program("/opt/report", evil).expect("listed"), Path::new("/opt/report"));
        for other in ["report", "/opt/../opt/report", "/tmp/sh", "./sh", "SH", "sh ", "/opt/report/"] {
            let error = allowed.program(other, evil).expect_err(other);
            assert_eq!((error.kind(), error.is_permanent()), ("command-not-allowed", true), "{other}");
        }
    }

    #[test]
    fn a_name_that_is_nowhere_allows_nothing() {
        assert_eq!(list(&["no-such-program-anywhere"]), AllowList::Commands(BTreeMap::new()));
    }

    #[test]
    fn any_program_is_searched_for_in_the_path_of_its_command() {
        let found = AllowList::Any.program("sh", Some("relative:/nowhere:/bin".as_ref()));
        assert_eq!(found.expect("every system has it"), Path::new("/bin/sh"));
        let error = AllowList::Any.program("sh", Some("/nowhere".as_ref())).expect_err("it is not there");
        assert_eq!((error.kind(), error.is_permanent()), ("spawn", true));
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }

    #[test]
    fn variables_that_swap_code_are_refused_along_with_a_list_only() {
        for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "BASH_FUNC_ls%%", "PYTHONPATH"].map(str::to_owned) {
            let error = list(&["sh"]).check_environment([&name]).expect_err(&name);
            assert_eq!((error.kind(), error.is_permanent()), ("environment-not-allowed", true));
            assert!(AllowList::Any.check_environment([&name]).is_ok());
        }
        let harmless = ["TZ", "HOME", "LANG", "MY_PATH", "ENVIRONMENT"].map(str::to_owned);
        assert!(list(&["sh"]).check_environment(&harmless).is_ok());
    }
}
