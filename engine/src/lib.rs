//! engine
pub mod dispatcher;
pub mod wheel;
