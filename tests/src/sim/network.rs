//! The network between actors and node: datagrams on their way, late, lost, repeated, damaged, out of order, or cut off.

use super::random::Stream;
use quinn_proto::EcnCodepoint;
use std::{cmp::Reverse, collections::BinaryHeap, net::SocketAddr, time::Duration};

/// How badly the network behaves at the moment; chances in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost.
    pub loss: u64,
    /// Delivered twice.
    pub repeat: u64,
    /// Delayed so that others overtake.
    pub reorder: u64,
    /// Delivered with a flipped bit.
    pub corrupt: u64,
    /// Longest ordinary delay.
    pub delay_us_max: u64,
}

/// A datagram on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    at: Duration,
    number: u64,
    /// Who sent it.
    pub from: SocketAddr,
    /// Who gets it.
    pub to: SocketAddr,
    ecn: Option<u8>,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// Its congestion mark.
    pub fn ecn(&self) -> Option<EcnCodepoint> {
        self.ecn.and_then(EcnCodepoint::from_bits)
    }
}

/// The network.
#[derive(Debug)]
pub struct Network {
    on_the_way: BinaryHeap<Reverse<Packet>>,
    number: u64,
    stream: Stream,
    /// How it behaves.
    pub weather: Weather,
}

const DELAY_US_MIN: u64 = 50;

impl Network {
    /// An empty network.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self { on_the_way: BinaryHeap::new(), number: 0, stream: Stream::new(seed, "network", 0), weather }
    }

    /// Takes a datagram in.
    pub fn send(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, ecn: Option<EcnCodepoint>, bytes: &[u8]) {
        let Weather { loss, repeat, reorder, corrupt, delay_us_max } = self.weather;
        if self.stream.chance(loss) {
            return;
        }
        let copies = 1 + u64::from(self.stream.chance(repeat));
        for _ in 0..copies {
            let mut delay_us = self.stream.between(DELAY_US_MIN, delay_us_max.max(DELAY_US_MIN));
            // Without a detour datagrams keep their order.
            let is_detour = self.stream.chance(reorder);
            if is_detour {
                delay_us += self.stream.below(4 * delay_us_max + 1_000);
            } else {
                delay_us = DELAY_US_MIN.max(delay_us_max / 2);
            }
            let mut bytes = bytes.to_vec();
            if self.stream.chance(corrupt) {
                let index = usize::try_from(self.stream.below(bytes.len() as u64)).expect("an index");
                bytes[index] ^= 1 << self.stream.below(8);
            }
            self.number += 1;
            let at = now + Duration::from_micros(delay_us);
            let packet = Packet { at, number: self.number, from, to, ecn: ecn.map(|ecn| ecn as u8), bytes };
            self.on_the_way.push(Reverse(packet));
        }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.on_the_way.peek().map(|Reverse(packet)| packet.at)
    }

    /// A datagram that has arrived by now.
    pub fn receive(&mut self, now: Duration) -> Option<Packet> {
        self.on_the_way.peek().filter(|Reverse(packet)| packet.at <= now)?;
        self.on_the_way.pop().map(|Reverse(packet)| packet)
    }
}
