//! Keys in a sentence.

/// Keys one after another, each in quotes: `a`, `b` and `c`.
pub(super) fn keys<S: AsRef<str>>(keys: &[S]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{}`", key.as_ref())).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}
