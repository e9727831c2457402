//! engine
pub mod dispatcher;
pub mod wheel;
pub mod schedule;
