//! One field of a definition: its tag, its length, its value.

use crate::{DecodeError, Writer, layout::FixedField};

/// Appends fields, which the caller gives in ascending order of tags.
pub(super) struct FieldWriter<'a> {
    pub out: &'a mut Vec<u8>,
}

impl FieldWriter<'_> {
    pub fn put(&mut self, tag: u8, value: &[u8]) {
        Writer::new(self.out).u8(tag).bytes(value);
    }

    /// A field that is left out at its default.
    pub fn fixed<T: FixedField + PartialEq>(&mut self, tag: u8, value: T, default: T) {
        if value != default {
            let mut bytes = [0; 16];
            value.put(&mut bytes);
            self.put(tag, &bytes[..T::BYTES]);
        }
    }
}

pub(super) fn text<'a>(value: &'a [u8], field: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(value).map_err(|_| DecodeError::NotUtf8 { field })
}

pub(super) fn fixed<T: FixedField>(value: &[u8], field: &'static str) -> Result<T, DecodeError> {
    match value.len().checked_sub(T::BYTES) {
        None => Err(DecodeError::Truncated { field, needed: T::BYTES - value.len() }),
        Some(0) => T::pick(value, field),
        Some(trailing) => Err(DecodeError::Trailing(trailing)),
    }
}
