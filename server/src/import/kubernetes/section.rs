//! A mapping of a manifest while it is read: which of its keys were asked for, and which were not.
//!
//! Invariant: a key that nobody asks for is listed, so that none is passed over in silence.

use super::{
    Problem, RefusedReason,
    yaml::{Node, Value},
};

/// A mapping, and its place in the manifest.
pub(super) struct Section<'a> {
    /// Such as `spec.jobTemplate`; empty for the manifest itself.
    path: String,
    pub line: usize,
    unread: Vec<&'a str>,
    entries: &'a [(String, Node)],
}

impl<'a> Section<'a> {
    /// # Errors
    /// When the node is no mapping.
    pub fn new(path: impl Into<String>, node: &'a Node) -> Result<Self, Problem> {
        let path = path.into();
        match &node.value {
            Value::Map(entries) => {
                let unread = entries.iter().map(|(key, _)| key.as_str()).collect();
                Ok(Self { path, line: node.line, unread, entries })
            }
            _ => Err(kind(node.line, if path.is_empty() { "manifest".to_owned() } else { path }, "a mapping")),
        }
    }

    /// The keys with a value that were not asked for.
    pub fn unread(&self) -> Vec<&'a str> {
        let is_set = |key: &&str| self.entries.iter().any(|(other, node)| other == key && !is_empty(node));
        self.unread.iter().copied().filter(is_set).collect()
    }

    /// The value of a key; `null` is none.
    pub fn find(&mut self, key: &str) -> Option<&'a Node> {
        self.unread.retain(|unread| *unread != key);
        let (_, node) = self.entries.iter().find(|(other, _)| other == key)?;
        (node.value != Value::Null).then_some(node)
    }

    pub fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn missing(&self, key: &str) -> Problem {
        Problem { line: self.line, reason: RefusedReason::Missing { field: self.field(key) } }
    }

    pub fn section(&mut self, key: &str) -> Result<Self, Problem> {
        let node = self.find(key).ok_or_else(|| self.missing(key))?;
        Self::new(self.field(key), node)
    }

    /// The elements of a list; none if it is absent.
    pub fn list(&mut self, key: &str) -> Result<&'a [Node], Problem> {
        match self.find(key) {
            None => Ok(&[]),
            Some(Node { value: Value::List(nodes), .. }) => Ok(nodes),
            Some(node) => Err(kind(node.line, self.field(key), "a list")),
        }
    }

    /// A list of texts; none if it is absent.
    pub fn texts(&mut self, key: &str) -> Result<Vec<&'a str>, Problem> {
        let field = self.field(key);
        let text = |node: &'a Node| match &node.value {
            Value::Text(text) => Ok(text.as_str()),
            _ => Err(kind(node.line, field.clone(), "a list of texts")),
        };
        self.list(key)?.iter().map(text).collect()
    }

    /// Texts by their keys; none if it is absent.
    pub fn texts_by_key(&mut self, key: &str) -> Result<Vec<(&'a str, &'a str)>, Problem> {
        let Some(node) = self.find(key) else { return Ok(Vec::new()) };
        let field = self.field(key);
        let texts = Section::new(field.clone(), node)?;
        let text = |(key, node): &'a (String, Node)| match &node.value {
            Value::Text(text) => Ok((key.as_str(), text.as_str())),
            _ => Err(kind(node.line, format!("{field}.{key}"), "a text")),
        };
        texts.entries.iter().map(text).collect()
    }

    /// A text and its line.
    pub fn text(&mut self, key: &str) -> Result<Option<(&'a str, usize)>, Problem> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::Text(text), line }) => Ok(Some((text, *line))),
            Some(node) => Err(kind(node.line, self.field(key), "a text")),
        }
    }

    pub fn required_text(&mut self, key: &str) -> Result<(&'a str, usize), Problem> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number from 0.
    pub fn number(&mut self, key: &str) -> Result<Option<(u32, usize)>, Problem> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let number = text.parse().map_err(|_| kind(line, self.field(key), "a whole number from 0"))?;
        Ok(Some((number, line)))
    }

    pub fn boolean(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        match self.text(key)? {
            None => Ok(None),
            Some(("true", _)) => Ok(Some(true)),
            Some(("false", _)) => Ok(Some(false)),
            Some((_, line)) => Err(kind(line, self.field(key), "`true` or `false`")),
        }
    }
}

fn kind(line: usize, field: String, expected: &'static str) -> Problem {
    Problem { line, reason: RefusedReason::Kind { field, expected } }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(_) => false,
        Value::List(nodes) => nodes.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}
