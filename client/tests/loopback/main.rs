//! Sessions, client and worker against a node on loopback that speaks the protocol frame by frame and does nothing by itself.
//!
//! Each test plays the node's part: what it does not send does not happen. So orders of events are chosen, not hoped for, and no
//! test sleeps.

mod bulk;
mod calendars;
mod client;
mod node;
mod session;
mod worker;
