//! Imports what other schedulers run: one folder for each form.
//!
//! Invariant: what is imported fires as it did, or what differs is noted with the job, or it is refused with a reason.

pub mod crontab;
mod zone;
