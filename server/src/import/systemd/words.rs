//! Command lines and lists of variables: words between blanks, with quotes, escapes, specifiers and variables.
//!
//! Quotes of either kind may stand anywhere in a word; escapes of C count in and outside of them, `\s` is a blank. `%x` is a specifier.
//! In a command `$NAME` as a whole word stands for the words of a variable, `${NAME}` anywhere for its text, `$$` for `$`.
//!
//! Source: systemd.service(5) ("Command lines"), systemd.unit(5) ("Specifiers"). Deliberately absent: specifiers whose values the
//! machine knows, such as `%H`.

use super::RefusedReason;
use crate::import::variables;
use std::{collections::BTreeMap, str::Chars};

/// A word without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    /// Whether any of it stood in quotes or was escaped.
    pub is_quoted: bool,
}

/// The words of a text.
pub(super) fn split(text: &str) -> Result<Vec<Word>, RefusedReason> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Word>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert(Word { text: String::new(), is_quoted: false });
        match (character, quote) {
            ('\\', _) => {
                word.text.push(escaped(&mut characters).ok_or(RefusedReason::Escape)?);
                word.is_quoted = true;
            }
            ('"' | '\'', None) => {
                quote = Some(character);
                word.is_quoted = true;
            }
            (character, Some(open)) if character == open => quote = None,
            (character, _) => word.text.push(character),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(RefusedReason::OpenQuote) } else { Ok(words) }
}

/// The character that an escape stands for, from behind its backslash on.
fn escaped(characters: &mut Chars<'_>) -> Option<char> {
    Some(match characters.next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0C',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0B',
        's' => ' ',
        plain @ ('\\' | '"' | '\'' | ';') => plain,
        'x' => coded(characters, "", 2, 16)?,
        'u' => coded(characters, "", 4, 16)?,
        'U' => coded(characters, "", 8, 16)?,
        first @ '0'..='3' => coded(characters, first.encode_utf8(&mut [0; 4]), 2, 8)?,
        _ => return None,
    })
}

/// The character whose number is `begun` and `count` more digits.
fn coded(characters: &mut Chars<'_>, begun: &str, count: usize, radix: u32) -> Option<char> {
    let digits: String = begun.chars().chain(characters.by_ref().take(count)).collect();
    let is_whole = digits.len() == begun.len() + count && digits.chars().all(|digit| digit.is_digit(radix));
    let code = u32::from_str_radix(&digits, radix).ok().filter(|code| is_whole && *code != 0)?;
    // A byte of another encoding than ASCII is no character by itself.
    char::from_u32(code).filter(|_| count > 2 || code < 128)
}

/// `text` with its specifiers written out; `unit` is the full name of the unit that it stands in.
pub(super) fn specify(text: &str, unit: &str) -> Result<String, RefusedReason> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let (mut specified, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        if character != '%' {
            specified.push(character);
            continue;
        }
        let specifier = characters.next();
        specified.push_str(match specifier {
            Some('%') | None => "%",
            Some('n') => unit,
            Some('N') => stem,
            Some('p') => prefix,
            Some('i') => instance,
            Some('j') => prefix.rsplit('-').next().unwrap_or(prefix),
            Some('t') => "/run",
            Some('S') => "/var/lib",
            Some('C') => "/var/cache",
            Some('L') => "/var/log",
            Some('E') => "/etc",
            Some('T') => "/tmp",
            Some('V') => "/var/tmp",
            Some(other) => return Err(RefusedReason::Specifier { specifier: other }),
        });
    }
    Ok(specified)
}

/// The arguments that a word of a command stands for.
pub(super) fn expand(word: &str, env: &BTreeMap<String, String>) -> Result<Vec<String>, RefusedReason> {
    let value =
        |name: &str| env.get(name).cloned().ok_or_else(|| RefusedReason::UnknownVariable { variable: name.to_owned() });
    if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with(['$', '{']) && is_variable(name)) {
        let words = split(&value(name)?)?;
        return Ok(words.into_iter().map(|word| word.text).collect());
    }
    let of_variables = |name: &str| if is_variable(name) { value(name).map(Some) } else { Ok(None) };
    variables::expand(word, ('{', '}'), of_variables).map(|expanded| vec![expanded])
}

/// Whether a text can be a variable's name.
pub(super) fn is_variable(name: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// A word as the shell reads it.
pub(super) fn shell_quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-./:=@%+,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Result<Vec<String>, RefusedReason> {
        Ok(split(text)?.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn words_lose_their_quotes_and_escapes() {
        for (text, words) in [
            ("/bin/a  b\tc", &["/bin/a", "b", "c"][..]),
            ("a \"b c\" 'd \"e\"' \"\"", &["a", "b c", "d \"e\"", ""]),
            (r#"a\x20b "c\td" 'e\\f' g\sh \u00fc \101"#, &["a b", "c\td", r"e\f", "g h", "ü", "A"]),
            ("--name='a b'c", &["--name=a bc"]),
            ("", &[]),
        ] {
            assert_eq!(texts(text).expect(text), words, "{text}");
        }
        for (text, reason) in [
            ("a 'b", RefusedReason::OpenQuote),
            (r"a \q", RefusedReason::Escape),
            (r"a \x4", RefusedReason::Escape),
            (r"a \xff", RefusedReason::Escape),
            (r"a \x00", RefusedReason::Escape),
            ("a \\", RefusedReason::Escape),
        ] {
            assert_eq!(texts(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn specifiers_are_those_of_the_unit() {
        for (text, unit, specified) in [
            ("100%% of %n", "a.service", "100% of a.service"),
            ("%N %p [%i]", "a-b.service", "a-b a-b []"),
            ("%N %p %i %j", "sync-all@home.service", "sync-all@home sync-all home all"),
            ("%t/x %S %E", "a.service", "/run/x /var/lib /etc"),
        ] {
            assert_eq!(specify(text, unit).as_deref(), Ok(specified), "{text}");
        }
        assert_eq!(specify("%H", "a.service"), Err(RefusedReason::Specifier { specifier: 'H' }));
    }

    #[test]
    fn variables_are_one_word_in_braces_and_several_without() {
        let env = BTreeMap::from([("A".to_owned(), "x 'y z'".to_owned()), ("E".to_owned(), String::new())]);
        for (word, words) in [
            ("$A", &["x", "y z"][..]),
            ("${A}", &["x 'y z'"]),
            ("-${A}-", &["-x 'y z'-"]),
            ("$E", &[]),
            ("${E}", &[""]),
            ("$$A", &["$A"]),
            ("a$A", &["a$A"]),
            ("$", &["$"]),
        ] {
            assert_eq!(expand(word, &env).expect(word), words, "{word}");
        }
        assert!(matches!(expand("$B", &env), Err(RefusedReason::UnknownVariable { .. })));
    }

    #[test]
    fn the_shell_reads_back_what_was_quoted() {
        for (word, quoted) in [("/bin/a-b", "/bin/a-b"), ("", "''"), ("a b", "'a b'"), ("it's $x", r"'it'\''s $x'")] {
            assert_eq!(shell_quoted(word), quoted);
        }
    }
}
