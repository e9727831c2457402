//! Sessions over QUIC, sans-IO: datagrams and time in, frames, events and datagrams out.
//!
//! An [`Endpoint`] holds the sessions of one UDP socket, on quinn-proto; the shard's loop drives it. A session has four
//! [`Lane`]s, which carry frames; what a frame means is not known here. Who the peer is comes from its certificate
//! ([`Identity`]).
//!
//! Invariants: no socket, no clock, no thread, no runtime; every queue is bounded by the [`EndpointConfig`]; nothing a
//! peer sends makes this crate panic or touches another peer's session.

mod close;
mod config;
mod endpoint;
mod identity;
mod lane;
mod session;
mod timeouts;
mod tls;
mod worklist;

pub use close::{Close, CloseCode, CloseReason, REASON_BYTES_MAX};
pub use config::{ConfigError, EndpointConfig, MTU_BYTES_MAX, MTU_BYTES_MIN};
pub use endpoint::{Endpoint, EndpointStats, Event, ReadSummary, SendError, Transmit};
pub use identity::{IDENTITY_NAME_BYTES_MAX, Identity, IdentityError, POOLS_MAX, Role};
pub use lane::{Frame, FrameReader, Glance, LANE_COUNT, Lane};
pub use quinn_proto::EcnCodepoint;
pub use tls::{ALPN, ServerTls, TlsError};
