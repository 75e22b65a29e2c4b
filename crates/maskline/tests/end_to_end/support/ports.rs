//! Ports that no other test of this machine takes.
//!
//! Port 0 is no way out here: SIPp, the switch and its configuration all have to know the numbers
//! beforehand. So each test takes a block of ports, and holds it by listening on its first one.

use std::net::{Ipv4Addr, TcpListener};

const FIRST: u16 = 21_000;
/// Up to the ports of the engine's own tests.
const BLOCKS: u16 = 90;
const BLOCK: u16 = 100;

/// A block of ports, held until it is dropped.
#[derive(Debug)]
pub struct Ports {
    _hold: TcpListener,
    first: u16,
}

impl Ports {
    /// Takes a free block. Blocks lie below the range from which the kernel hands out ports.
    pub fn take() -> Self {
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
        (0..BLOCKS)
            .map(|step| FIRST + (start + step) % BLOCKS * BLOCK)
            .find_map(|first| {
                let hold = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
                Some(Self { _hold: hold, first })
            })
            .expect("a block of ports is free")
    }

    /// The switch's HTTP port.
    pub const fn http(&self) -> u16 {
        self.first + 1
    }

    /// The switch's SIP port.
    pub const fn sip(&self) -> u16 {
        self.first + 2
    }

    /// The caller's SIP port.
    pub const fn caller_sip(&self) -> u16 {
        self.first + 8
    }

    /// The callee's SIP port.
    pub const fn callee_sip(&self) -> u16 {
        self.first + 9
    }

    /// The switch's port for TLS.
    pub const fn tls(&self) -> u16 {
        self.first + 14
    }

    /// Where the caller's tunnel to the switch begins.
    pub const fn caller_tunnel(&self) -> u16 {
        self.first + 15
    }

    /// Where the tunnel to the callee begins.
    pub const fn callee_tunnel(&self) -> u16 {
        self.first + 16
    }

    /// A neighbour's port for UDP.
    pub const fn neighbour_udp(&self) -> u16 {
        self.first + 17
    }

    /// A neighbour's port for TLS.
    pub const fn neighbour_tls(&self) -> u16 {
        self.first + 18
    }

    /// The port of a collector of traces.
    pub const fn collector(&self) -> u16 {
        self.first + 19
    }

    /// The name server's port.
    pub const fn dns(&self) -> u16 {
        self.first + 10
    }

    /// Where the caller is told what to do.
    pub const fn caller_control(&self) -> u16 {
        self.first + 11
    }

    /// Where the callee is told what to do.
    pub const fn callee_control(&self) -> u16 {
        self.first + 12
    }

    /// A port on which nothing listens.
    pub const fn nobody(&self) -> u16 {
        self.first + 3
    }

    /// The RTP port of the caller.
    pub const fn caller_media(&self) -> u16 {
        self.first + 4
    }

    /// The RTP port of the callee.
    pub const fn callee_media(&self) -> u16 {
        self.first + 6
    }

    /// Where rtpengine takes orders: the first one or the second.
    pub const fn rtpengine(&self, number: u16) -> u16 {
        self.first + 11 + number
    }

    /// Where rtpengine tells of key presses.
    pub const fn rtpengine_presses(&self) -> u16 {
        self.first + 13
    }

    /// Half of the range for media.
    pub const fn rtpengine_media(&self, number: u16) -> (u16, u16) {
        let first = self.first + 20 + number * 40;
        (first, first + 39)
    }

    /// The switch's range for media.
    pub fn media(&self) -> String {
        format!("{}-{}", self.first + 20, self.first + BLOCK - 1)
    }
}
