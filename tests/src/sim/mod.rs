//! The simulator: the real core, sessions, log and shard loop on a simulated disk, network and clock, with clients and workers as
//! actors, under faults that real machines show once a year. One thread, virtual time, one seed.
//!
//! [`plan`] draws from the seed what will happen; [`world`] lets it happen; [`auditor`] and [`model`] hold every decision of the node
//! and every frame that an actor hears against what is promised; [`shrink`] makes a failing plan smaller. Equal seeds give equal runs.
//!
//! Deliberately absent: sockets, files, threads, and the real time.

pub mod auditor;
pub mod client;
pub mod clock;
pub mod labels;
pub mod log;
pub mod model;
pub mod network;
pub mod node;
pub mod plan;
pub mod random;
pub mod session;
pub mod shrink;
pub mod socket;
pub mod trace;
pub mod violation;
pub mod when;
pub mod worker;
pub mod world;

use tickwheel_wire::planted::Mistake;

/// Lets the runs of this thread make `mistake`, or none.
///
/// # Errors
/// When this build holds no mistakes: it needs the feature `planted`.
pub fn plant(mistake: Option<Mistake>) -> Result<(), &'static str> {
    #[cfg(feature = "planted")]
    Mistake::plant(mistake);
    if mistake.is_some() && !cfg!(feature = "planted") {
        return Err("this build holds no mistakes to plant: build it with --features planted");
    }
    Ok(())
}

/// The mistake with this name.
pub fn mistake_named(name: &str) -> Option<Mistake> {
    Mistake::ALL.into_iter().find(|mistake| format!("{mistake:?}") == name)
}
