//! Sessions from the first datagram to the last, over a simulated network under a virtual clock.

mod flow;
mod frames;
mod handshake;
mod scale;
mod support;
