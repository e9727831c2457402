//! The schedules of a job besides its first, as they travel: one after the other, each as the definition's own field of its kind.
//!
//! Invariant: the bytes of a [`ScheduleList`] are schedules, so that reading them cannot fail. How many there may be and which go
//! together is for [`JobSpec::validate`](super::JobSpec::validate) to say.

use super::{JobSpecError, ScheduleSpec, fields::FieldWriter};
use crate::Reader;
use std::fmt;

/// Schedules in their encoding; none by default.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ScheduleList<'a> {
    bytes: &'a [u8],
}

impl<'a> ScheduleList<'a> {
    /// Takes an encoding.
    ///
    /// # Errors
    /// When the bytes are no schedules.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, JobSpecError> {
        let mut input = Reader::new(bytes);
        while !input.is_empty() {
            next(&mut input)?;
        }
        Ok(Self { bytes })
    }

    /// The schedules, in their order.
    pub fn iter(self) -> impl Iterator<Item = ScheduleSpec<'a>> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let (first, others) = rest.split_first()?;
            rest = others;
            Some(first)
        })
    }

    /// The first schedule and the others; `None`: there is none.
    pub fn split_first(self) -> Option<(ScheduleSpec<'a>, Self)> {
        let mut input = Reader::new(self.bytes);
        let first = (!input.is_empty()).then(|| next(&mut input).expect("the bytes are schedules"))?;
        Some((first, Self { bytes: input.rest() }))
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The encoding.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for ScheduleList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A [`ScheduleList`] that owns its bytes and can grow.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ScheduleListBuf {
    bytes: Vec<u8>,
}

impl ScheduleListBuf {
    /// Appends a schedule.
    pub fn push(&mut self, schedule: &ScheduleSpec<'_>) {
        schedule.encode(&mut FieldWriter { out: &mut self.bytes });
    }

    /// The list.
    pub const fn as_list(&self) -> ScheduleList<'_> {
        ScheduleList { bytes: self.bytes.as_slice() }
    }
}

impl<'a> FromIterator<ScheduleSpec<'a>> for ScheduleListBuf {
    fn from_iter<I: IntoIterator<Item = ScheduleSpec<'a>>>(schedules: I) -> Self {
        let mut list = Self::default();
        schedules.into_iter().for_each(|schedule| list.push(&schedule));
        list
    }
}

impl From<ScheduleList<'_>> for ScheduleListBuf {
    fn from(list: ScheduleList<'_>) -> Self {
        Self { bytes: list.bytes.to_vec() }
    }
}

impl fmt::Debug for ScheduleListBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_list().fmt(f)
    }
}

fn next<'a>(input: &mut Reader<'a>) -> Result<ScheduleSpec<'a>, JobSpecError> {
    let tag = input.u8("also.tag")?;
    let value = input.bytes("also.value")?;
    ScheduleSpec::decode(tag, value)?.ok_or(JobSpecError::UnknownField(tag))
}
