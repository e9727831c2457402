//! engine
pub mod dispatcher;
