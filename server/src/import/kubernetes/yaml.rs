//! YAML as trees in which every node knows its line.
//!
//! Invariants: a text gives at most [`NODE_COUNT_MAX`] nodes, aliases written out, at most [`DEPTH_MAX`] deep; keys are texts, each once
//! in its mapping. JSON is YAML. Deliberately absent: tags, merge keys (`<<`), and any type but text: who reads a node knows
//! what it should be.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use std::collections::HashMap;

/// Most nodes of a text.
const NODE_COUNT_MAX: usize = 1_000_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 64;

/// A value and where it begins; a block of text begins with its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `null` or `~`.
    Null,
    Text(String),
    List(Vec<Node>),
    /// In the order of the text.
    Map(Vec<(String, Node)>),
}

/// Why a text is no YAML, or none that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    /// From 1.
    pub line: usize,
    pub problem: String,
}

/// The documents of a text, and what is wrong behind the last of them.
pub(super) fn read(text: &str) -> (Vec<Node>, Option<YamlError>) {
    let mut loader =
        Loader { parser: Parser::new_from_str(text), anchors: HashMap::new(), node_count: 0, document_line: 1 };
    let mut documents = Vec::new();
    loop {
        match loader.document() {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => return (documents, None),
            Err(error) => return (documents, Some(error)),
        }
    }
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Each with its number of nodes.
    anchors: HashMap<usize, (Node, usize)>,
    node_count: usize,
    document_line: usize,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        let told = |error: ScanError| YamlError { line: error.marker().line(), problem: error.info().to_owned() };
        match self.parser.next_event() {
            Some(event) => event.map_err(told),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(None),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    self.anchors.clear();
                    self.document_line = span.start.line();
                }
                event => return self.node(event, span, 0).map(Some),
            }
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let line = span.start.line();
        let wrong = |problem: &str| YamlError { line, problem: problem.to_owned() };
        let count_before = self.node_count;
        self.node_count += 1;
        if self.node_count > NODE_COUNT_MAX || depth > DEPTH_MAX {
            return Err(wrong("too many values, or too deep"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let (node, count) = self.anchors.get(&anchor).ok_or_else(|| wrong("an alias within its own value"))?;
                self.node_count += count;
                if self.node_count > NODE_COUNT_MAX {
                    return Err(wrong("too many values, aliases written out"));
                }
                (node.value.clone(), 0)
            }
            _ => return Err(wrong("a value is missing")),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.node_count - count_before));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(nodes)),
                (event, span) => nodes.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let wrong = |problem: String| YamlError { line: key.line, problem };
            let Value::Text(text) = key.value else { return Err(wrong("a key is not a text".to_owned())) };
            if text == "<<" {
                return Err(wrong("merge keys (`<<`) are not supported; write the values out".to_owned()));
            }
            if entries.iter().any(|(other, _)| *other == text) {
                return Err(wrong(format!("the key `{text}` stands twice")));
            }
            let (event, span) = self.next()?;
            entries.push((text, self.node(event, span, depth + 1)?));
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_null { Value::Null } else { Value::Text(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> Node {
        Node { line, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn every_value_knows_its_line() {
        let (documents, error) = read("# first\na: 1\nb:\n  - x\n  - \"y\"\n---\n- ~\n- \"~\"\n- |\n  z\n");
        let list = Node { line: 4, value: Value::List(vec![text(4, "x"), text(5, "y")]) };
        let first = Node { line: 2, value: Value::Map(vec![("a".to_owned(), text(2, "1")), ("b".to_owned(), list)]) };
        let null = Node { line: 7, value: Value::Null };
        let second = Node { line: 7, value: Value::List(vec![null, text(8, "~"), text(10, "z\n")]) };
        assert_eq!((documents, error), (vec![first, second], None));
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_what_precedes_it_is_kept() {
        for (bad, line, word) in [
            ("a: b: c\n", 3, "mapping"),
            ("a: [1, 2\nb: 3\n", 4, ""),
            ("a: 'x\n", 3, ""),
            ("a: 1\nb: 2\na: 3\n", 5, "`a`"),
            ("a: &x 1\n<<: *x\n", 4, "<<"),
            ("a: *b\n", 3, ""),
            ("a: &b [*b]\n", 3, ""),
            ("? [a]\n: b\n", 3, "key"),
        ] {
            let (documents, error) = read(&format!("x: 1\n---\n{bad}"));
            let error = error.unwrap_or_else(|| panic!("{bad:?} is wrong"));
            assert!(error.line == line && error.problem.contains(word), "{bad:?}: {error:?}");
            assert_eq!(documents.len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn aliases_cannot_blow_a_text_up() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let error = read(&text).1.expect("too many");
        assert!(error.problem.contains("too many"), "{error:?}");
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(read(&deep).1.is_some());
    }
}
