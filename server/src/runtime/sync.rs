//! What is shared between shards is made of these, so that the model checker can put its own in their place: `tests/loom` compiles
//! `handshake.rs` and `queues.rs` beside another module of this name, and then tries every order in which their steps can happen.
//!
//! Deliberately absent: anything that those two files do not need.

pub use crossbeam_queue::ArrayQueue;
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};
