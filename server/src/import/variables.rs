//! References to variables in texts: `$` and a name between two signs.

/// `text` with `value` of each name that stands between `open` and `close` behind a `$`; `$$` is a `$`. What `value` does not take for a
/// variable stays as it is.
///
/// # Errors
/// The first of `value`.
pub(super) fn expand<E>(
    text: &str,
    (open, close): (char, char),
    mut value: impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<String, E> {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix(open).and_then(|rest| rest.split_once(close))
            && let Some(value) = value(name)?
        {
            expanded.push_str(&value);
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}
