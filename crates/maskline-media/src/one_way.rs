//! One-way audio: one party is heard and the other, which should be heard too, is not. That is
//! noticed while the call goes on, with what was seen of the silent one.
//!
//! What lives elsewhere: the silence that ends a call ([`crate::relay`]).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::counters::DropReason;
use crate::tick::Tick;

/// How long one is heard and the other is not before that is noticed.
pub const ONE_WAY_AFTER: Duration = Duration::from_secs(5);
/// How often a session is looked at for it, and how old the last packet of a party that is heard is
/// at most.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(2_500);

/// A party that should be heard and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWay {
    /// Whether it was heard before, since both were last programmed.
    pub stopped: bool,
    /// What came of it instead.
    pub seen: Seen,
}

/// What came in place of RTP that can be passed on, since that came last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing at all.
    #[default]
    Nothing,
    /// RTCP only.
    ControlOnly,
    /// Packets of another address.
    Stranger {
        /// The last one's.
        from: IpAddr,
        /// How many came, of whatever address.
        packets: u64,
    },
    /// Packets of another port of its host than the one that is heard, or of the one before.
    OtherPort,
    /// Packets of a payload type that was not negotiated.
    Payload {
        /// The last one, 0-127.
        payload_type: u8,
    },
    /// Packets that are not protected by the key that it told.
    NotAuthentic,
    /// Datagrams that are no RTP, or too long.
    NoRtp,
}

impl fmt::Display for OneWay {
    /// What an operator can act on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.stopped {
            "is not heard any more: "
        } else {
            "was never heard: "
        })?;
        match self.seen {
            Seen::Nothing if self.stopped => f.write_str(
                "nothing comes from where it was. It is muted without sending, sends from elsewhere now, or a firewall or NAT keeps its RTP away",
            ),
            Seen::Nothing => f.write_str(
                "nothing comes from it. It is muted without sending, or a firewall or NAT keeps its RTP away",
            ),
            Seen::ControlOnly => f.write_str(
                "RTCP comes from it and no RTP. It does not send, or only its RTP port is blocked",
            ),
            Seen::Stranger { from, packets } => write!(
                f,
                "{packets} packets came from {from}, which its description does not name. If they are its own, add that address to the trunk's media_sources"
            ),
            Seen::OtherPort => f.write_str(
                "packets come from another port of its host than the one that was heard first",
            ),
            Seen::Payload { payload_type } => write!(
                f,
                "its packets have the payload type {payload_type}, which was not agreed on"
            ),
            Seen::NotAuthentic => f.write_str(
                "its packets are not protected by the key that it told: they are plain RTP, or of another key",
            ),
            Seen::NoRtp => f.write_str("what comes from it is no RTP (it may be SRTP, STUN or T.38)"),
        }
    }
}

/// What was heard of one party, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// RTP that was accepted: the last, and the first of those that came without a pause.
    heard: Option<(Tick, Tick)>,
    seen: Seen,
    /// What was told, until it is heard again.
    told: Option<OneWay>,
}

impl Sight {
    /// Everything is described anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// RTP was accepted.
    pub(crate) fn on_rtp(&mut self, now: Tick) {
        let first = match self.heard {
            Some((last, first)) if now.since(last) <= WATCH_EVERY => first,
            Some(_) | None => now,
        };
        self.heard = Some((now, first));
        self.seen = Seen::Nothing;
        self.told = None;
    }

    /// RTCP was accepted.
    pub(crate) fn on_rtcp(&mut self) {
        if self.seen == Seen::Nothing {
            self.seen = Seen::ControlOnly;
        }
    }

    /// A datagram on the RTP port was refused.
    pub(crate) fn on_refused(&mut self, reason: DropReason, from: IpAddr, datagram: &[u8]) {
        self.seen = match reason {
            DropReason::Stranger => Seen::Stranger {
                from,
                packets: match self.seen {
                    Seen::Stranger { packets, .. } => packets + 1,
                    Seen::Nothing
                    | Seen::ControlOnly
                    | Seen::OtherPort
                    | Seen::Payload { .. }
                    | Seen::NotAuthentic
                    | Seen::NoRtp => 1,
                },
            },
            DropReason::NotLatched => Seen::OtherPort,
            DropReason::UnknownPayload => Seen::Payload {
                payload_type: datagram.get(1).map_or(0, |byte| byte & 0x7f),
            },
            DropReason::NotAuthentic => Seen::NotAuthentic,
            DropReason::TooLong | DropReason::MalformedRtp => Seen::NoRtp,
            DropReason::NotProgrammed
            | DropReason::Replayed
            | DropReason::MalformedRtcp
            | DropReason::ReceiverNotProgrammed
            | DropReason::ReceiverOnHold
            | DropReason::ReceiverLacksCodec
            | DropReason::NotTranscodable
            | DropReason::PlayedAnew
            | DropReason::Prompted
            | DropReason::NoDestination
            | DropReason::Looped
            | DropReason::TooMany => return,
        };
    }

    /// Whether this party is missing while the other is heard; both should be, since `agreed`.
    pub(crate) fn missing(&self, now: Tick, agreed: Tick, other: &Self) -> Option<OneWay> {
        let (last, first) = other.heard?;
        let heard = now.since(last) <= WATCH_EVERY && last.since(first) >= ONE_WAY_AFTER;
        let quiet_since = self.heard.map_or(agreed, |(last, _)| last.max(agreed));
        (heard && now.since(quiet_since) >= ONE_WAY_AFTER).then_some(OneWay {
            stopped: self.heard.is_some(),
            seen: self.seen,
        })
    }

    /// It is told; true once until the party is heard again.
    pub(crate) fn tell(&mut self, fault: OneWay) -> bool {
        self.told.replace(fault).is_none()
    }

    pub(crate) const fn told(&self) -> Option<OneWay> {
        self.told
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::command::{CalleeMedia, CallerMedia, Carriage, PayloadMap, RemoteMedia, Side};
    use crate::emodel::VoiceCodec;
    use crate::relay::{Relay, RelayOutput};
    use crate::rtp::RtpPacket;

    const A: &str = "192.0.2.1:4000";
    const B: &str = "192.0.2.2:5000";

    fn media(at: &str) -> RemoteMedia {
        let rtp: SocketAddr = at.parse().unwrap();
        RemoteMedia {
            rtp,
            rtcp: None,
            rtcp_mux: false,
            srtp: None,
            sources: vec![rtp.ip()],
            payloads: vec![PayloadMap {
                here: 0,
                there: 0,
                clock_rate: 8_000,
                telephone_event: false,
                codec: Some(VoiceCodec::Pcmu),
                carriage: Carriage::AsIs,
            }],
            sends: true,
            receives: true,
            listens: false,
            holds: false,
        }
    }

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    /// One packet each 20 ms, by `who` sends then from where and as what; what is noticed, and when.
    fn noticed(
        until_ms: u64,
        caller: impl Fn(&mut RemoteMedia),
        who: impl Fn(u64, Side) -> Option<(&'static str, u8)>,
    ) -> Vec<(u64, Side, OneWay)> {
        let mut relay = Relay::new(Tick::ZERO, 7, Duration::from_secs(60));
        let mut of_caller = media(A);
        caller(&mut of_caller);
        relay.program_caller(Tick::ZERO, CallerMedia(of_caller));
        relay.program_callee(Tick::ZERO, CalleeMedia(media(B)));
        let (mut seen, mut out, mut datagram) = (Vec::new(), Vec::new(), Vec::new());
        for ms in (0..until_ms).step_by(20) {
            for side in [Side::Caller, Side::Callee] {
                let Some((from, payload_type)) = who(ms, side) else {
                    continue;
                };
                RtpPacket {
                    marker: false,
                    payload_type,
                    sequence: (ms / 20) as u16,
                    timestamp: (ms * 8) as u32,
                    ssrc: 9,
                    payload: &[0; 160],
                }
                .write(&mut datagram);
                relay.on_rtp(at(ms), side, from.parse().unwrap(), &datagram, &mut out);
            }
            relay.on_deadline(at(ms));
            while let Some(output) = relay.poll() {
                if let RelayOutput::OneWay { side, fault } = output {
                    seen.push((ms, side, fault));
                }
            }
        }
        seen
    }

    fn as_agreed(side: Side) -> Option<(&'static str, u8)> {
        Some(match side {
            Side::Caller => (A, 0),
            Side::Callee => (B, 0),
        })
    }

    #[test]
    fn a_party_that_was_never_heard_is_told_once_with_what_came_instead() {
        for (instead, seen) in [
            (None, Seen::Nothing),
            (
                Some(("203.0.113.66:4000", 0)),
                Seen::Stranger {
                    from: "203.0.113.66".parse().unwrap(),
                    packets: 251,
                },
            ),
            (Some((A, 8)), Seen::Payload { payload_type: 8 }),
        ] {
            let told = noticed(
                60_000,
                |_| {},
                |_, side| match side {
                    Side::Caller => instead,
                    Side::Callee => as_agreed(side),
                },
            );
            let [(ms, Side::Caller, fault)] = told[..] else {
                panic!("{told:?}");
            };
            assert_eq!(ms, 5_000);
            assert_eq!(
                fault,
                OneWay {
                    stopped: false,
                    seen
                }
            );
        }
    }

    #[test]
    fn a_party_that_stops_is_told_again_after_it_was_heard_again() {
        let told = noticed(
            60_000,
            |_| {},
            |ms, side| match side {
                Side::Callee if (10_000..20_000).contains(&ms) || ms > 30_000 => None,
                Side::Caller | Side::Callee => as_agreed(side),
            },
        );
        let stops: Vec<_> = told
            .iter()
            .map(|(ms, side, it)| (ms / 10_000, *side, it.stopped))
            .collect();
        assert_eq!(stops, [(1, Side::Callee, true), (3, Side::Callee, true)]);
    }

    #[test]
    fn two_that_talk_two_that_are_silent_and_one_on_hold_are_no_fault() {
        assert_eq!(noticed(30_000, |_| {}, |_, side| as_agreed(side)), []);
        assert_eq!(noticed(30_000, |_| {}, |_, _| None), []);
        let only_callee = |_, side| as_agreed(side).filter(|_| side == Side::Callee);
        assert_eq!(noticed(30_000, |it| it.sends = false, only_callee), []);
        assert_eq!(noticed(30_000, |it| it.receives = false, only_callee), []);
        let short = |ms, side| as_agreed(side).filter(|_| side == Side::Callee && ms < 4_000);
        assert_eq!(noticed(30_000, |_| {}, short), []);
    }

    #[test]
    fn an_operator_reads_what_to_do() {
        let fault = OneWay {
            stopped: false,
            seen: Seen::Stranger {
                from: "203.0.113.66".parse().unwrap(),
                packets: 251,
            },
        };
        let text = fault.to_string();
        assert!(
            text.contains("203.0.113.66") && text.contains("media_sources"),
            "{text}"
        );
    }
}
