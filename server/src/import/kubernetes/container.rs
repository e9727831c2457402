//! The command of a container, as a worker runs it.
//!
//! `command` and `args` make the command; `$(NAME)` in them, and in the values of `env`, stands for a variable of `env`, `$$` for `$`. The
//! command starts from the variables of `env` and those that every process needs, not from the worker's.
//!
//! Source: the reference of Container v1 core. Deliberately absent: variables from anywhere but the manifest; the image, with its
//! entry point, variables and folders.

use super::{Problem, RefusedReason, section::Section};
use crate::{command_worker::CommandPayload, import::variables};
use std::{collections::BTreeMap, convert::Infallible};

/// Where programs lie in most images.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the container runs.
pub(super) fn command(container: &mut Section<'_>) -> Result<CommandPayload, Problem> {
    let mut env = environment(container)?;
    if container.find("envFrom").is_some() {
        return Err(unavailable(container, "envFrom"));
    }
    let command = container.texts("command")?;
    if command.is_empty() {
        let field = container.field("command");
        return Err(Problem { line: container.line, reason: RefusedReason::NoCommand { field } });
    }
    let words = command.into_iter().chain(container.texts("args")?);
    let argv = words.map(|word| expand(word, &env)).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.to_owned());
    let dir = container.text("workingDir")?.map(|(dir, _)| dir.to_owned());
    Ok(CommandPayload { env, dir, clean_env: true, ..CommandPayload::new(argv) })
}

/// The variables, each of which may refer to those before it.
fn environment(container: &mut Section<'_>) -> Result<BTreeMap<String, String>, Problem> {
    let mut env = BTreeMap::new();
    let field = container.field("env");
    for node in container.list("env")? {
        let mut variable = Section::new(field.clone(), node)?;
        let (name, _) = variable.required_text("name")?;
        if variable.find("valueFrom").is_some() {
            let reason = RefusedReason::ValueFrom { variable: name.to_owned() };
            return Err(Problem { line: node.line, reason });
        }
        let value = variable.text("value")?.map_or("", |(value, _)| value);
        env.insert(name.to_owned(), expand(value, &env));
    }
    Ok(env)
}

fn unavailable(container: &Section<'_>, key: &str) -> Problem {
    let reason = RefusedReason::VariablesFromElsewhere { field: container.field(key) };
    Problem { line: container.line, reason }
}

/// `text` with the values of the variables that it names; a name that is none of them stays as it is.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let Ok(expanded) = variables::expand(text, ('(', ')'), |name| Ok::<_, Infallible>(env.get(name).cloned()));
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_give_way_to_their_values() {
        let env = BTreeMap::from([("A".to_owned(), "x y".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, expanded) in [
            ("$(A)", "x y"),
            ("-$(A)-$(B)-", "-x y-$(A)-"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x y"),
            ("$(C) $A ${A} $", "$(C) $A ${A} $"),
            ("$(A", "$(A"),
            ("date +%s", "date +%s"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
