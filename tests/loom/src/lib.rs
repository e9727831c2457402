//! The queues between shards and the handshake of sleep and waking, with loom's atomics in place of the standard library's.
//!
//! loom runs each test once for every order in which the threads' steps, and what they may see of each other's memory, can come. A wake-up
//! that is lost leaves a thread asleep for ever, which loom reports as a deadlock.
//!
//! The two files are the server's own. What is modelled: the eventfd by a flag and a condition variable; crossbeam's `ArrayQueue` by a list
//! under a mutex and a count beside it, which promises less than the real one, whose emptiness is a sequentially consistent question.

#[path = "../../../server/src/runtime/handshake.rs"]
pub mod handshake;
pub mod idle;
#[path = "../../../server/src/runtime/queues.rs"]
pub mod queues;
pub mod sync;

#[cfg(test)]
mod tests;
