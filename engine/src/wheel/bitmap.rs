//! Which slots of a ring are occupied: one bit per slot and a summary bit per word, so that the next occupied slot is
//! found with two bit scans however long the gap is.
//!
//! Invariant: a summary bit is set exactly when its word is not zero. Deliberately absent: any notion of time; the
//! ring maps positions to ticks.

const WORDS: usize = 64;

/// A circular set of positions.
#[derive(Debug)]
pub(super) struct Bitmap {
    summary: u64,
    words: [u64; WORDS],
}

impl Bitmap {
    /// The most positions that a bitmap can hold.
    pub(super) const POSITIONS_MAX: usize = WORDS * 64;

    /// The empty set.
    pub(super) const fn new() -> Self {
        Self { summary: 0, words: [0; WORDS] }
    }

    #[inline]
    pub(super) fn set(&mut self, position: usize) {
        self.words[position / 64] |= 1 << (position % 64);
        self.summary |= 1 << (position / 64);
    }

    #[inline]
    pub(super) fn clear(&mut self, position: usize) {
        let word = &mut self.words[position / 64];
        *word &= !(1 << (position % 64));
        if *word == 0 {
            self.summary &= !(1 << (position / 64));
        }
    }

    /// The first set position at or after `from`, going round the end once.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the number of a word is below 64")]
    pub(super) fn next_circular(&self, from: usize) -> Option<usize> {
        self.next_linear_in_word(from).or_else(|| {
            let start = from / 64 + 1;
            let rotated = self.summary.rotate_right((start % WORDS) as u32);
            if rotated == 0 {
                return None;
            }
            let word = (start + rotated.trailing_zeros() as usize) % WORDS;
            // Coming round to the word of `from` again finds only bits below it: those above were looked at first.
            Some(word * 64 + self.words[word].trailing_zeros() as usize)
        })
    }

    /// The first set position at or after `from`, not going round the end.
    pub(super) fn next_linear(&self, from: usize) -> Option<usize> {
        if from >= Self::POSITIONS_MAX {
            return None;
        }
        self.next_circular(from).filter(|&position| position >= from)
    }

    #[inline]
    fn next_linear_in_word(&self, from: usize) -> Option<usize> {
        let bits = self.words[from / 64] >> (from % 64);
        (bits != 0).then(|| from + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn next_position_is_that_of_a_sorted_set(
            changes in prop::collection::vec((0..Bitmap::POSITIONS_MAX, any::<bool>()), 0..60),
            from in 0..Bitmap::POSITIONS_MAX,
        ) {
            let mut bitmap = Bitmap::new();
            let mut model = BTreeSet::new();
            for (position, present) in changes {
                // Few distinct positions, so that clearing often meets what was set.
                let position = position / 97 * 97;
                if present {
                    bitmap.set(position);
                    model.insert(position);
                } else {
                    bitmap.clear(position);
                    model.remove(&position);
                }
                let from = if present { from } else { position };
                let linear = model.range(from..).next().copied();
                prop_assert_eq!(bitmap.next_linear(from), linear);
                prop_assert_eq!(bitmap.next_circular(from), linear.or(model.first().copied()));
            }
        }
    }
}
