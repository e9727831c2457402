//! The content lines of an iCalendar file: unfolded, and taken apart into name, parameters and value.

/// A content line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub number: usize,
    /// In capitals.
    pub name: String,
    /// Names in capitals, values without quotation marks.
    parameters: Vec<(String, String)>,
    pub value: String,
}

impl Line {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn parse(number: usize, text: &str) -> Option<Self> {
        let (head, value) = split_outside_quotes(text, ':')?;
        let (name, mut rest) = split_outside_quotes(head, ';').unwrap_or((head, ""));
        let mut parameters = Vec::new();
        while !rest.is_empty() {
            let (parameter, others) = split_outside_quotes(rest, ';').unwrap_or((rest, ""));
            let (name, value) = parameter.split_once('=')?;
            parameters.push((name.to_ascii_uppercase(), value.trim_matches('"').to_owned()));
            rest = others;
        }
        Some(Self { number, name: name.to_ascii_uppercase(), parameters, value: value.to_owned() })
    }
}

/// The lines of a file; of the first that is none, its number.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, usize> {
    let mut unfolded: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix([' ', '\t']), unfolded.last_mut()) {
            (Some(more), Some((_, last))) => last.push_str(more),
            _ if line.trim().is_empty() => {}
            _ => unfolded.push((number, line.to_owned())),
        }
    }
    unfolded.into_iter().map(|(number, line)| Line::parse(number, &line).ok_or(number)).collect()
}

fn split_outside_quotes(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let at = text.char_indices().find_map(|(at, character)| {
        is_quoted ^= character == '"';
        (character == separator && !is_quoted).then_some(at)
    })?;
    Some((&text[..at], &text[at + separator.len_utf8()..]))
}
