//! What a shard stands on: its pinned executor, its socket, its log device, its sleep, its clock, and the queues to
//! its siblings.
//!
//! Invariants: glommio, io-uring and quinn-udp appear in this folder and nowhere else; every queue and loop has a
//! bound; a shard that runs makes no system call that can wait, except for the one in [`idle`], where it sleeps.
//!
//! Deliberately absent: frames, events, partitions, policy. The shard loop composes these parts with `engine`, `net`
//! and `storage`.
//!
//! glommio starts the executors and pins them; the shard's task then sleeps in its own `ppoll` and never awaits
//! glommio's reactor. So glommio 0.9.0's lost wake-up (it can park with work still runnable) cannot reach a shard
//! that runs, and a wake-up costs a quarter of what it costs through the reactor. The price: nothing else can run on
//! a shard's executor.

pub mod allocations;
pub mod clock;
pub mod counters;
pub mod device;
pub mod executor;
mod handshake;
pub mod huge_pages;
pub mod idle;
pub mod queues;
pub mod socket;
mod sync;
mod sys;
pub mod watchdog;
