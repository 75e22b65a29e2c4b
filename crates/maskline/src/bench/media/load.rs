//! The load: both parties of all calls, from one thread that never waits.
//!
//! All callers share one socket and all callees another: what carries tells calls apart by its own ports.
//! A packet's payload says when it was sent, so that whatever passes payloads on can be measured.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use maskline_media::rtp::RtpPacket;
use rand::Rng;
use socket2::{Domain, Protocol, Socket, Type};

/// One packet of G.711 each so often.
const FRAME: Duration = Duration::from_millis(20);
/// Samples of a packet.
const SAMPLES: u32 = 160;
/// How many packets are sent, or received, before the other has its turn.
const TURN: u32 = 16;
/// How long the last packets may take.
const LAST: Duration = Duration::from_millis(1_500);

/// Where a call's parties send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridge {
    /// The caller.
    pub(super) caller: SocketAddr,
    /// The callee.
    pub(super) callee: SocketAddr,
}

/// The parties' sockets.
pub(super) struct Load {
    caller: UdpSocket,
    callee: UdpSocket,
    /// Takes reports, which nobody reads.
    rtcp: UdpSocket,
    origin: Instant,
}

/// What became of one step's packets.
pub(super) struct Step {
    pub(super) sent: u64,
    pub(super) took: Duration,
    /// How far the sender was behind its own schedule at worst.
    pub(super) behind: Duration,
    /// Sorted, in nanoseconds.
    latencies: Vec<u64>,
}

impl Load {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            caller: socket()?,
            callee: socket()?,
            rtcp: socket()?,
            origin: Instant::now(),
        })
    }

    /// Where callers receive.
    pub(super) fn caller(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.caller.local_addr()?)
    }

    /// Where callees receive.
    pub(super) fn callee(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.callee.local_addr()?)
    }

    /// Where both may be sent reports.
    pub(super) fn rtcp(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.rtcp.local_addr()?)
    }

    /// The same load with nothing between the parties.
    pub(super) fn direct(&self, calls: u32, time: Duration) -> anyhow::Result<Step> {
        let bridge = Bridge {
            caller: self.callee()?,
            callee: self.caller()?,
        };
        self.run(&vec![bridge; usize::try_from(calls)?], time)
    }

    /// Sends for so long through these calls, evenly spread, and waits for what is on its way.
    pub(super) fn run(&self, calls: &[Bridge], time: Duration) -> anyhow::Result<Step> {
        let mark: u64 = rand::rng().random();
        let streams = calls.len() as u64 * 2;
        let rounds = u64::try_from(time.as_nanos() / FRAME.as_nanos())?.max(1);
        let all = streams * rounds;
        let apart = FRAME.as_nanos() as f64 / streams.max(1) as f64;
        let start = Instant::now();
        let mut step = Step {
            sent: 0,
            took: time,
            behind: Duration::ZERO,
            latencies: Vec::with_capacity(usize::try_from(all)?),
        };
        let mut due = Duration::ZERO;
        let mut out = Vec::new();
        let mut ended = None;
        loop {
            for _ in 0..TURN {
                let now = start.elapsed();
                if step.sent == all || due > now {
                    break;
                }
                step.behind = step.behind.max(now.saturating_sub(due));
                self.send(calls, step.sent, mark, &mut out)?;
                step.sent += 1;
                due = Duration::from_nanos((step.sent as f64 * apart) as u64);
            }
            for socket in [&self.caller, &self.callee] {
                self.receive(socket, mark, &mut step)?;
            }
            if step.sent == all {
                let ended = *ended.get_or_insert_with(Instant::now);
                if step.lost() == 0 || ended.elapsed() > LAST {
                    break;
                }
            }
        }
        step.latencies.sort_unstable();
        Ok(step)
    }

    fn send(
        &self,
        calls: &[Bridge],
        number: u64,
        mark: u64,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let streams = calls.len() as u64 * 2;
        let (round, stream) = (number / streams, number % streams);
        let Some(bridge) = calls.get(usize::try_from(stream / 2)?) else {
            return Ok(());
        };
        let (socket, to) = if stream.is_multiple_of(2) {
            (&self.caller, bridge.caller)
        } else {
            (&self.callee, bridge.callee)
        };
        let mut payload = [0xff; SAMPLES as usize];
        let sent_at = u64::try_from(self.origin.elapsed().as_nanos())?;
        for (place, byte) in payload
            .iter_mut()
            .zip(mark.to_be_bytes().into_iter().chain(sent_at.to_be_bytes()))
        {
            *place = byte;
        }
        RtpPacket {
            marker: false,
            payload_type: 0,
            sequence: (round & 0xffff) as u16,
            timestamp: (round as u32).wrapping_mul(SAMPLES),
            ssrc: (stream as u32).wrapping_add(mark as u32),
            payload: &payload,
        }
        .write(out);
        // A full queue on the way is a loss like any other.
        let _ = socket.send_to(out, to);
        Ok(())
    }

    fn receive(&self, socket: &UdpSocket, mark: u64, step: &mut Step) -> anyhow::Result<()> {
        let mut datagram = [0; 2_048];
        for _ in 0..TURN {
            let length = match socket.recv(&mut datagram) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Somebody's port was not there.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            let payload = datagram
                .get(..length)
                .and_then(|datagram| RtpPacket::parse(datagram).ok())
                .map(|packet| packet.payload);
            if let Some((own, rest)) = payload.and_then(|payload| payload.split_first_chunk())
                && let Some((sent_at, _)) = rest.split_first_chunk()
                && u64::from_be_bytes(*own) == mark
            {
                let now = u64::try_from(self.origin.elapsed().as_nanos())?;
                step.latencies
                    .push(now.saturating_sub(u64::from_be_bytes(*sent_at)));
            }
        }
        Ok(())
    }
}

impl Step {
    /// Packets that never came.
    pub(super) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.latencies.len() as u64)
    }

    /// The latency below which this part (0-1) of all packets stayed.
    pub(super) fn latency(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        Duration::from_nanos(self.latencies.get(place).copied().unwrap_or(0))
    }
}

fn socket() -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_counted_and_what_does_not_is_lost() {
        let load = Load::new().unwrap();
        let step = load.direct(2, Duration::from_millis(60)).unwrap();
        assert_eq!((step.sent, step.lost()), (12, 0));
        assert!(step.latency(0.5) <= step.latency(0.99));
        let nobody = load.rtcp().unwrap();
        let nowhere = Bridge {
            caller: nobody,
            callee: nobody,
        };
        let step = load.run(&[nowhere], Duration::from_millis(20)).unwrap();
        assert_eq!((step.sent, step.lost()), (2, 2));
    }
}
