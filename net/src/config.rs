//! Limits and timings of an endpoint, and the QUIC settings that follow from them.
//!
//! Invariants: every queue of this crate has its bound here; [`EndpointConfig::validate`] has passed before an endpoint
//! exists. Deliberately absent: addresses, files, anything about sockets.

use quinn_proto::{
    EndpointConfig as QuicEndpointConfig, HashedConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt, congestion::CubicConfig,
};
use std::{sync::Arc, time::Duration};
use tickwheel_wire::{
    frame::{FrameHeader, FrameType},
    limits,
};

use crate::{
    lane::LANE_COUNT,
    tls::{RestartSecrets, ServerTls},
};

/// Smallest datagram payload that QUIC permits as a path's limit, in bytes; handshakes always use it.
pub const MTU_BYTES_MIN: u16 = 1200;
/// Largest value of [`EndpointConfig::mtu_bytes`]: jumbo frames of 9,000 bytes, less IPv6 and UDP headers.
pub const MTU_BYTES_MAX: u16 = 8952;
/// Datagrams per send call that Linux accepts with segmentation offload.
const SEGMENTS_MAX: usize = 64;
/// Bytes per send call that UDP over IPv4 accepts.
const TRANSMIT_BYTES_MAX: usize = 65_507;
/// Default congestion window of RFC 9002 in bytes, for the smallest MTU.
const INITIAL_WINDOW_BYTES_MIN: u64 = 14_720;

/// Configuration of an [`Endpoint`](crate::Endpoint). All fields have defaults.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Connections at most, those that are still shaking hands or draining included; more are refused. Default 4,096.
    pub sessions_max: usize,
    /// Handshakes in progress at most; further first packets are dropped and the client's retransmission tries
    /// again, so that a reconnecting crowd is served in waves. Default 512.
    pub handshakes_max: usize,
    /// A handshake that takes longer is given up. Default 10 s.
    pub handshake_timeout: Duration,
    /// A session from which nothing is heard for this long is closed; clients keep theirs alive. Default 30 s.
    pub idle_timeout: Duration,
    /// Largest datagram payload that path discovery tries and that is accepted, in bytes, from [`MTU_BYTES_MIN`] to
    /// [`MTU_BYTES_MAX`]. Connections begin with 1,200 and discover upward. Default 8,952.
    pub mtu_bytes: u16,
    /// Longest body of a frame, in bytes. Default 1 MiB.
    pub frame_bytes_max: u32,
    /// Bytes that wait per session in lane buffers before [`SendError::Backlog`](crate::SendError::Backlog).
    /// Default 8 MiB.
    pub backlog_bytes_max: usize,
    /// Sent or sendable bytes that QUIC keeps per session until they are acknowledged; the control lane may fill all of
    /// it, P0 three quarters, P1 half, P2 a quarter. Default 2 MiB.
    pub send_window_bytes: u32,
    /// Bytes that a peer may send on one lane before they are read here. Default 1 MiB.
    pub lane_receive_window_bytes: u32,
    /// Bytes that a peer may send on all lanes together before they are read here. Default 2 MiB.
    pub receive_window_bytes: u32,
    /// Tells whether a frame type is known. Frames of unknown types are skipped, or, marked critical, end their
    /// session. Default: the types of this protocol version.
    pub is_known_frame: fn(u16) -> bool,
    /// Seeds connection ids and packet number choices, for tests; keys stay random. Default: the system's entropy.
    pub random_seed: Option<[u8; 32]>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            sessions_max: 4096,
            handshakes_max: 512,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            mtu_bytes: MTU_BYTES_MAX,
            frame_bytes_max: u32::try_from(limits::FRAME_BYTES_MAX).expect("1 MiB"),
            backlog_bytes_max: 8 << 20,
            send_window_bytes: 2 << 20,
            lane_receive_window_bytes: 1 << 20,
            receive_window_bytes: 2 << 20,
            is_known_frame: |number| FrameType::from_number(number).is_some(),
            random_seed: None,
        }
    }
}

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` must be {range}, not {value}")]
pub struct ConfigError {
    /// The field.
    pub setting: &'static str,
    /// What it may be.
    pub range: &'static str,
    /// What it is.
    pub value: u64,
}

impl EndpointConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first setting outside its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |setting, range, value: u64, good: bool| {
            if good { Ok(()) } else { Err(ConfigError { setting, range, value }) }
        };
        let idle_ms = u64::try_from(self.idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let handshake_ms = u64::try_from(self.handshake_timeout.as_millis()).unwrap_or(u64::MAX);
        check(
            "sessions_max",
            "from 1 to 1,000,000",
            self.sessions_max as u64,
            (1..=1_000_000).contains(&self.sessions_max),
        )?;
        check("handshakes_max", "at least 1", self.handshakes_max as u64, self.handshakes_max >= 1)?;
        check("handshake_timeout", "from 100 ms to 1 h", handshake_ms, (100..=3_600_000).contains(&handshake_ms))?;
        check("idle_timeout", "from 100 ms to 1 h", idle_ms, (100..=3_600_000).contains(&idle_ms))?;
        let mtu_range = MTU_BYTES_MIN..=MTU_BYTES_MAX;
        check("mtu_bytes", "from 1200 to 8952", self.mtu_bytes.into(), mtu_range.contains(&self.mtu_bytes))?;
        let frame_range = 64..=1 << 30;
        check(
            "frame_bytes_max",
            "from 64 B to 1 GiB",
            self.frame_bytes_max.into(),
            frame_range.contains(&self.frame_bytes_max),
        )?;
        let backlog_min = self.frame_bytes_max as usize + FrameHeader::BYTES;
        check(
            "backlog_bytes_max",
            "at least one whole frame",
            self.backlog_bytes_max as u64,
            self.backlog_bytes_max >= backlog_min,
        )?;
        check(
            "send_window_bytes",
            "at least 64 KiB",
            self.send_window_bytes.into(),
            self.send_window_bytes >= 1 << 16,
        )?;
        let lane_window = self.lane_receive_window_bytes;
        check("lane_receive_window_bytes", "at least 16 KiB", lane_window.into(), lane_window >= 1 << 14)?;
        let window = self.receive_window_bytes;
        check("receive_window_bytes", "at least the window of one lane", window.into(), window >= lane_window)
    }

    /// Datagrams per transmit that fit both the kernel's limits for segments of `mtu_bytes`.
    pub(crate) fn segments_max(mtu_bytes: u16) -> usize {
        (TRANSMIT_BYTES_MAX / usize::from(mtu_bytes)).clamp(1, SEGMENTS_MAX)
    }

    /// Settings of the QUIC endpoint.
    pub(crate) fn quic_endpoint(&self, tls: &ServerTls) -> QuicEndpointConfig {
        let RestartSecrets { reset_key, connection_id_key } = tls.secrets();
        let mut quic = QuicEndpointConfig::new(reset_key);
        quic.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));
        quic.max_udp_payload_size(self.mtu_bytes).expect("the range was validated").rng_seed(self.random_seed);
        quic
    }

    /// Settings of every connection that the endpoint accepts.
    pub(crate) fn quic_server(&self, tls: &ServerTls) -> ServerConfig {
        let mut server = ServerConfig::with_crypto(tls.quic());
        server.transport_config(Arc::new(self.quic_transport()));
        // The endpoint decides about each attempt at once, so that none is ever queued inside quinn-proto.
        server.max_incoming(1);
        server
    }

    fn quic_transport(&self) -> TransportConfig {
        let idle = IdleTimeout::try_from(self.idle_timeout).expect("the range was validated");
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes);
        // Slow start has to hold several packets of the largest size, or a path that discovers it stalls.
        let mut congestion = CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW_BYTES_MIN.max(10 * u64::from(self.mtu_bytes)));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::try_from(LANE_COUNT as u64).expect("a handful"))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle))
            .send_window(self.send_window_bytes.into())
            .stream_receive_window(self.lane_receive_window_bytes.into())
            .receive_window(self.receive_window_bytes.into())
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(congestion));
        transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(EndpointConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let config = EndpointConfig { mtu_bytes: 9000, ..EndpointConfig::default() };
        assert_eq!(config.validate().unwrap_err().setting, "mtu_bytes");
        let config = EndpointConfig { backlog_bytes_max: 1 << 20, ..EndpointConfig::default() };
        assert_eq!(config.validate().unwrap_err().setting, "backlog_bytes_max");
    }

    #[test]
    fn a_transmit_never_exceeds_the_limits_of_udp() {
        for mtu_bytes in MTU_BYTES_MIN..=MTU_BYTES_MAX {
            let segments = EndpointConfig::segments_max(mtu_bytes);
            assert!(segments <= 64 && segments * usize::from(mtu_bytes) <= 65_507, "{mtu_bytes}");
        }
        assert_eq!(EndpointConfig::segments_max(MTU_BYTES_MAX), 7);
    }
}
