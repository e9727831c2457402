//! What a command wrote, within a bound: all of it, or its beginning and its end with a mark between them.
//!
//! The beginning often says what was tried, the end what went wrong. Memory stays within the bound however much is written.

use std::collections::VecDeque;

/// Keeps the beginning and the end of a stream of bytes.
#[derive(Debug)]
pub(super) struct Capture {
    bytes_max: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    written_bytes: u64,
}

impl Capture {
    /// Nothing was written yet, and at most `bytes_max` bytes will be kept.
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, head: Vec::new(), tail: VecDeque::new(), written_bytes: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.written_bytes += bytes.len() as u64;
        let head_room = (self.bytes_max / 2).saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(head_room);
        self.head.extend_from_slice(head);
        let tail_bytes_max = self.bytes_max - self.bytes_max / 2;
        self.tail.extend(&rest[rest.len().saturating_sub(tail_bytes_max)..]);
        let surplus = self.tail.len().saturating_sub(tail_bytes_max);
        self.tail.drain(..surplus);
    }

    /// What is kept, in at most `bytes_max` bytes, or fewer if that was the bound.
    pub fn render(mut self, bytes_max: usize) -> Vec<u8> {
        let bytes_max = bytes_max.min(self.bytes_max);
        let tail_bytes = self.tail.len();
        self.head.extend(&self.tail);
        let kept = self.head;
        if self.written_bytes <= bytes_max as u64 {
            return kept;
        }
        // The number that is left out is no longer than the number of all.
        let mark_bytes = mark(self.written_bytes).len();
        let Some(room) = bytes_max.checked_sub(mark_bytes) else {
            // Without a mark between them, beginning and end would read as one.
            return kept[kept.len() - bytes_max.min(tail_bytes)..].to_vec();
        };
        let (head, tail) = (&kept[..room / 2], &kept[kept.len() - (room - room / 2)..]);
        let mark = mark(self.written_bytes - room as u64);
        [head, mark.as_bytes(), tail].concat()
    }
}

fn mark(left_out_bytes: u64) -> String {
    format!("\n[... {left_out_bytes} bytes left out ...]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `count` numbered lines in pieces of `piece_bytes` and returns what is kept of them.
    fn kept(count: usize, piece_bytes: usize, bytes_max: usize, render_max: usize) -> (Vec<u8>, Vec<u8>) {
        let all: String = (0..count).map(|line| format!("{line}\n")).collect();
        let mut capture = Capture::new(bytes_max);
        for piece in all.as_bytes().chunks(piece_bytes) {
            capture.push(piece);
        }
        assert!(capture.head.len() + capture.tail.len() <= bytes_max);
        (all.into_bytes(), capture.render(render_max))
    }

    #[test]
    fn what_fits_is_kept_whole() {
        for piece_bytes in [1, 3, 1000] {
            let (all, kept) = kept(100, piece_bytes, 290, 290);
            assert_eq!((all.len(), &kept), (290, &all));
        }
    }

    #[test]
    fn of_more_the_beginning_and_the_end_are_kept_and_the_rest_is_counted() {
        for (piece_bytes, bytes_max, render_max) in [(1, 289, 289), (7, 400, 300), (5000, 100, 4096), (64, 4096, 4000)]
        {
            let (all, kept) = kept(2000, piece_bytes, bytes_max, render_max);
            let bound = bytes_max.min(render_max);
            assert!(kept.len() <= bound && kept.len() + 4 >= bound, "{} of {bound}", kept.len());
            let text = String::from_utf8(kept).expect("ASCII");
            let (head, rest) = text.split_once("\n[... ").expect("a mark");
            let (count, tail) = rest.split_once(" bytes left out ...]\n").expect("a whole mark");
            assert!(all.starts_with(head.as_bytes()) && all.ends_with(tail.as_bytes()), "{text}");
            assert_eq!(head.len() + tail.len() + count.parse::<usize>().expect("a number"), all.len());
            assert!(head.len().abs_diff(tail.len()) <= 1);
        }
    }

    #[test]
    fn a_bound_too_small_for_the_mark_keeps_the_end() {
        let (all, kept) = kept(100, 10, 8, 8);
        assert_eq!(kept, all[all.len() - 4..]);
        assert_eq!(self::kept(100, 10, 0, 0).1, b"");
    }
}
