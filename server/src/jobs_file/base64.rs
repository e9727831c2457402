//! Bytes that are no text: base64 (RFC 4648, section 4, with padding), in lines if it is long.

use data_encoding::{BASE64, Encoding};
use std::sync::LazyLock;

/// Characters of a line.
const LINE_CHARS: usize = 76;

/// The same alphabet in lines; blanks and line breaks between its characters mean nothing.
static IN_LINES: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE64.specification();
    specification.ignore.push_str(" \t\r\n");
    specification.wrap.width = LINE_CHARS;
    specification.wrap.separator.push('\n');
    specification.encoding().expect("it is a valid encoding")
});

/// Writes `bytes`; each line ends with a line break if there are several.
pub fn write(bytes: &[u8]) -> String {
    if BASE64.encode_len(bytes.len()) <= LINE_CHARS { BASE64.encode(bytes) } else { IN_LINES.encode(bytes) }
}

/// Reads what [`write`] wrote, or anyone else, with blanks and line breaks anywhere. `None`: it is no base64.
pub fn parse(text: &str) -> Option<Vec<u8>> {
    IN_LINES.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_in_lines_of_bounded_length() {
        for length in [0, 1, 2, 3, 56, 57, 58, 114, 115, 1_000] {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let text = write(&bytes);
            assert!(text.lines().all(|line| line.len() <= LINE_CHARS), "{text}");
            assert_eq!(text.contains('\n'), length > 57, "{text}");
            assert_eq!(parse(&text), Some(bytes));
        }
    }

    #[test]
    fn blanks_mean_nothing_and_everything_else_is_refused() {
        assert_eq!(parse(" AP\n 8=\t"), Some(vec![0x00, 0xff]));
        for text in ["AP8", "AP8==", "A", "AP9=", "AP-_", "AP8=AP8", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
