//! One side of a relay: what its party negotiated, where its packets come from, and what was
//! received from and sent to it.
//!
//! What lives elsewhere: what happens between the sides, and when ([`crate::relay`]).

mod secured;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

use crate::allowance::Allowance;
use crate::codec::Voice;
use crate::command::{PayloadMap, Quality, RemoteMedia};
use crate::counters::DropReason;
use crate::hold::{HoldAudio, HoldPlayer};
use crate::keys::Keys;
use crate::latch::Latch;
use crate::one_way::Sight;
use crate::press_player::{PressPlayer, TakesPresses};
use crate::prompt::PromptPlayer;
use crate::quality::{Arrival, Reception};
use crate::report::SideReport;
use crate::round_trip::FarEnd;
use crate::rtcp::{Report, ReportBlock, RtcpCompound, RtcpPacket};
use crate::rtp::{HEADER_BYTES, MAX_PACKET_BYTES, RtpPacket};
use crate::srtp::Protection;
use crate::stream::{OutgoingStream, OwnPacket, Step, ntp};
use crate::tick::Tick;
use crate::tone_listener::ToneListener;
use crate::tones::FRAME_OCTETS;
use crate::transcode::Transcoder;

/// The most codecs of one party; further ones are not looked at.
const MAX_PAYLOADS: usize = 16;
/// The clock rate of everything that telephony knows but calls 0 in a faulty description.
const DEFAULT_CLOCK_RATE: u32 = 8_000;
/// A CNAME of 100 random bits (RFC 7022 §5 asks for 96), five to a character.
const CNAME_CHARACTERS: usize = 20;
const CNAME_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// RTP packets of one party that may come at once after a stall of the network.
const PACKET_BURST: u32 = 1_000;
/// The pace at which that allowance refills: 1,000 a second; Opus in its shortest frames (RFC 7587 §4.2) is 400.
const PACKET_INTERVAL: Duration = Duration::from_millis(1);
/// RFC 5761 §4: the packet types of RTCP on a port that it shares with RTP.
const MULTIPLEXED: std::ops::RangeInclusive<u8> = 192..=223;

/// One side of a relay.
#[derive(Debug)]
pub(crate) struct Party {
    media: Option<RemoteMedia>,
    protection: Option<Box<Protection>>,
    allowance: Allowance,
    rtp_latch: Latch,
    rtcp_latch: Latch,
    pub(crate) last_heard: Option<Tick>,
    pub(crate) silence_reported: bool,
    pub(crate) next_report: Option<Tick>,
    pub(crate) stream: OutgoingStream,
    reception: Reception,
    far: FarEnd,
    pub(crate) sight: Sight,
    pub(crate) keys: Keys,
    transcoder: Option<Box<Transcoder>>,
    /// What is played to this party of the other's key presses.
    pub(crate) player: PressPlayer,
    /// Where this party is in what it hears on hold.
    pub(crate) hold: HoldPlayer,
    /// What it is played instead of the other.
    pub(crate) prompt: PromptPlayer,
    cname: String,
    sent_rtcp: bool,
    last_sender_report: Option<SenderReportSeen>,
}

/// A packet that this side may have sent, and how the other side knows its codec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted<'a> {
    pub(crate) packet: RtpPacket<'a>,
    pub(crate) payload: PayloadMap,
    /// Whether this packet latched its source.
    pub(crate) latched: bool,
}

#[derive(Clone, Copy, Debug)]
struct SenderReportSeen {
    ssrc: u32,
    middle: u32,
    at: Tick,
}

impl Party {
    pub(crate) fn new(opened: Tick, rng: &mut ChaCha8Rng) -> Self {
        let stream = OutgoingStream::new(
            rng.next_u32(),
            // Far from its first rollover (RFC 3711 §3.3.1).
            (rng.next_u32() >> 17) as u16,
            rng.next_u32(),
        );
        let mut bits = [0; CNAME_CHARACTERS];
        rng.fill_bytes(&mut bits);
        let cname = bits
            .iter()
            .filter_map(|byte| CNAME_ALPHABET.get(usize::from(byte & 31)))
            .map(|byte| char::from(*byte))
            .collect();
        Self {
            media: None,
            protection: None,
            allowance: Allowance::new(opened, PACKET_BURST, PACKET_INTERVAL),
            rtp_latch: Latch::default(),
            rtcp_latch: Latch::default(),
            last_heard: None,
            silence_reported: false,
            next_report: None,
            stream,
            reception: Reception::default(),
            far: FarEnd::default(),
            sight: Sight::default(),
            keys: Keys::new(opened),
            transcoder: None,
            player: PressPlayer::default(),
            hold: HoldPlayer::new(opened),
            prompt: PromptPlayer::default(),
            cname,
            sent_rtcp: false,
            last_sender_report: None,
        }
    }

    pub(crate) const fn media(&self) -> Option<&RemoteMedia> {
        self.media.as_ref()
    }

    pub(crate) fn quality(&self) -> Option<Quality> {
        let round_trip = self.far.round_trip().map(|it| it.mean_ms);
        let received = self.reception.received()?;
        Some(received.quality(round_trip))
    }

    /// How this side goes.
    pub(crate) fn side_report(&self, now: Tick) -> SideReport {
        let media = self.media.as_ref();
        let sent = self.stream.sent_so_far();
        SideReport {
            described: media.map(|media| media.rtp),
            latched: self.rtp_latch.source(),
            rtcp_mux: media.is_some_and(|media| media.rtcp_mux),
            sends: media.is_some_and(|media| media.sends),
            receives: media.is_some_and(|media| media.receives),
            holds: media.is_some_and(|media| media.holds),
            received: self.reception.received(),
            mos: self.quality().map(|quality| quality.mos),
            sent_packets: sent.map_or(0, |sent| sent.packets),
            sent_octets: sent.map_or(0, |sent| sent.octets),
            far: self.far.report(),
            round_trip: self.far.round_trip(),
            silent_for: self.last_heard.map(|heard| now.since(heard)),
            one_way: self.sight.told(),
        }
    }

    /// Takes what was negotiated; forgets the latched sources if they may not be right any more.
    pub(crate) fn program(&mut self, mut media: RemoteMedia) {
        media.payloads.truncate(MAX_PAYLOADS);
        for payload in &mut media.payloads {
            if payload.clock_rate == 0 {
                payload.clock_rate = DEFAULT_CLOCK_RATE;
            }
        }
        if let Some(before) = &self.media {
            let moved = before.rtp != media.rtp || before.sources != media.sources;
            if moved {
                self.rtp_latch.release();
            }
            if moved || before.rtcp != media.rtcp || before.rtcp_mux != media.rtcp_mux {
                self.rtcp_latch.release();
            }
        }
        self.secure(media.srtp);
        // Whoever signals its keys is not listened to.
        let listens = media.listens && !media.payloads.iter().any(|it| it.telephone_event);
        if !listens {
            self.keys.listener = None;
        } else if self.keys.listener.is_none() {
            self.keys.listener = Some(Box::<ToneListener>::default());
        }
        self.media = Some(media);
    }

    /// Whether one more packet of this party may go further: it bounds what a flood costs, and what goes in
    /// circles through the ports of several sessions.
    pub(crate) fn allows(&mut self, now: Tick) -> bool {
        self.allowance.take(now)
    }

    /// Decides whether an RTP datagram is this party's; if so, measures it and latches its source.
    pub(crate) fn accept_rtp<'a>(
        &mut self,
        now: Tick,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<Accepted<'a>, DropReason> {
        let accepted = self.measure_rtp(now, from, datagram);
        match accepted {
            Ok(_) => self.sight.on_rtp(now),
            Err(reason) => self.sight.on_refused(reason, from.ip(), datagram),
        }
        accepted
    }

    fn measure_rtp<'a>(
        &mut self,
        now: Tick,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<Accepted<'a>, DropReason> {
        let media = self.media.as_ref().ok_or(DropReason::NotProgrammed)?;
        self.rtp_latch
            .check(now, from, Some(media.rtp), &media.sources)?;
        if datagram.len() > MAX_PACKET_BYTES {
            return Err(DropReason::TooLong);
        }
        let packet = RtpPacket::parse(datagram).map_err(|_| DropReason::MalformedRtp)?;
        let payload = media
            .payloads
            .iter()
            .find(|payload| payload.here == packet.payload_type)
            .copied();
        self.heard(now);
        let payload = payload.ok_or(DropReason::UnknownPayload)?;
        let latched = self.rtp_latch.take(from);
        self.reception.on_packet(Arrival {
            at: now,
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: (!payload.telephone_event).then_some(packet.timestamp),
            clock_rate: payload.clock_rate,
            octets: packet.payload.len(),
            codec: payload.codec,
        });
        Ok(Accepted {
            packet,
            payload,
            latched,
        })
    }

    /// Whether a datagram on the RTP port is RTCP: the party multiplexes, and the second byte is a
    /// packet type of RTCP (RFC 5761 §4), which no payload type with or without marker may be.
    pub(crate) fn is_multiplexed_rtcp(&self, datagram: &[u8]) -> bool {
        self.media.as_ref().is_some_and(|media| media.rtcp_mux)
            && datagram
                .get(1)
                .is_some_and(|packet_type| MULTIPLEXED.contains(packet_type))
    }

    /// Decides whether an RTCP datagram is this party's; if so, notes what our reports need of it,
    /// and what it says of us. On its own port it latches its source. On the RTP port (`muxed`) it
    /// comes from where RTP may come from, and latches nothing.
    pub(crate) fn accept_rtcp(
        &mut self,
        now: Tick,
        from: SocketAddr,
        muxed: bool,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let media = self.media.as_ref().ok_or(DropReason::NotProgrammed)?;
        let (latch, told) = if muxed {
            (&mut self.rtp_latch, Some(media.rtp))
        } else {
            (&mut self.rtcp_latch, media.rtcp)
        };
        latch.check(now, from, told, &media.sources)?;
        if datagram.len() > MAX_PACKET_BYTES {
            return Err(DropReason::TooLong);
        }
        let compound = RtcpCompound::parse(datagram).map_err(|_| DropReason::MalformedRtcp)?;
        if !muxed {
            latch.take(from);
        }
        self.sight.on_rtcp();
        self.heard(now);
        // The last of each counts, however many a compound holds.
        let (mut of_sender, mut of_us) = (None, None);
        let ours = |block: &ReportBlock| block.ssrc == self.stream.ssrc();
        for packet in compound.packets() {
            match packet {
                RtcpPacket::SenderReport { ssrc, info, blocks } => {
                    of_sender = Some(SenderReportSeen {
                        ssrc,
                        middle: (info.ntp_timestamp >> 16) as u32,
                        at: now,
                    });
                    of_us = blocks.iter().find(ours).or(of_us);
                }
                RtcpPacket::ReceiverReport { blocks, .. } => {
                    of_us = blocks.iter().find(ours).or(of_us);
                }
                RtcpPacket::SourceDescription { .. }
                | RtcpPacket::Goodbye { .. }
                | RtcpPacket::Other { .. } => {}
            }
        }
        self.last_sender_report = of_sender.or(self.last_sender_report);
        if let Some((block, sent)) = of_us.zip(self.stream.sent_so_far()) {
            self.far
                .on_block(now, &block, sent.packets, sent.clock_rate);
        }
        Ok(())
    }

    /// Turns what this party sent into what the other one knows, in place.
    pub(crate) fn transcode(&mut self, from: Voice, to: Voice, payload: &mut [u8]) {
        let known = self.transcoder.take();
        let mut transcoder = known
            .filter(|it| it.is_between(from, to))
            .unwrap_or_else(|| Box::new(Transcoder::new(from, to)));
        transcoder.run(payload);
        self.transcoder = Some(transcoder);
    }

    /// The first codec of this party that is made here, and its number.
    pub(crate) fn voice(&self) -> Option<(u8, Voice)> {
        let payloads = &self.media.as_ref()?.payloads;
        payloads
            .iter()
            .find_map(|it| Some((it.here, Voice::of(it.codec?)?)))
    }

    /// The next packet of what this party hears on hold; `None`: it can hear nothing.
    pub(crate) fn next_of_hold(&mut self, now: Tick, audio: &HoldAudio) -> Option<Vec<u8>> {
        let (payload_type, voice) = self.voice()?;
        let mut payload = Vec::with_capacity(FRAME_OCTETS);
        let begins = self.hold.play(now, audio, voice, &mut payload);
        if payload.is_empty() {
            return None;
        }
        Some(self.made_here(now, payload_type, begins, &payload))
    }

    /// The next packet of what this party is played. `Err`: it is over, and whether it was heard whole.
    pub(crate) fn next_of_prompt(&mut self, now: Tick) -> Result<Vec<u8>, (u64, bool)> {
        let Some((payload_type, voice)) = self.voice() else {
            return Err((self.prompt.stop().unwrap_or_default(), false));
        };
        let mut payload = Vec::with_capacity(FRAME_OCTETS);
        let begins = self
            .prompt
            .play(now, voice, &mut payload)
            .map_err(|id| (id, true))?;
        Ok(self.made_here(now, payload_type, begins, &payload))
    }

    /// A packet of 20 ms of our own making.
    fn made_here(&mut self, now: Tick, payload_type: u8, begins: bool, payload: &[u8]) -> Vec<u8> {
        let step = if begins {
            Step::TimePassed
        } else {
            Step::Ticks(FRAME_OCTETS as u32)
        };
        let own = OwnPacket {
            payload_type,
            marker: begins,
            clock_rate: DEFAULT_CLOCK_RATE,
            step,
            payload,
        };
        let mut datagram = Vec::with_capacity(HEADER_BYTES + FRAME_OCTETS);
        self.stream.own(now, own).write(&mut datagram);
        datagram
    }

    /// How key presses are played to this party; `None`: they can't be.
    pub(crate) fn takes_presses(&self) -> Option<TakesPresses> {
        let media = self.media.as_ref().filter(|media| media.receives)?;
        let event = media.payloads.iter().find(|it| it.telephone_event);
        match (event, self.voice()) {
            (Some(event), _) => Some(TakesPresses::Events {
                payload_type: event.here,
                clock_rate: event.clock_rate,
            }),
            (None, Some((payload_type, voice))) => Some(TakesPresses::Tones {
                payload_type,
                voice,
            }),
            (None, None) => None,
        }
    }

    /// The next packet of the presses that are played to this party; `None`: none is due, or it
    /// takes none any more.
    pub(crate) fn next_played(&mut self, now: Tick) -> Option<Vec<u8>> {
        let Some(to) = self.takes_presses() else {
            self.player.stop();
            return None;
        };
        let (payload_type, clock_rate) = match to {
            TakesPresses::Events {
                payload_type,
                clock_rate,
            } => (payload_type, clock_rate),
            TakesPresses::Tones { payload_type, .. } => (payload_type, DEFAULT_CLOCK_RATE),
        };
        let mut payload = Vec::with_capacity(FRAME_OCTETS);
        let played = self.player.play(now, to, &mut payload)?;
        let mut datagram = Vec::with_capacity(HEADER_BYTES + FRAME_OCTETS);
        self.stream
            .own(
                now,
                OwnPacket {
                    payload_type,
                    marker: played.begins,
                    clock_rate,
                    step: played.step,
                    payload: &payload,
                },
            )
            .write(&mut datagram);
        Some(datagram)
    }

    /// Where RTP to this party goes: where its own comes from, else where it asked for it.
    pub(crate) fn rtp_destination(&self) -> Option<SocketAddr> {
        let media = self.media.as_ref()?;
        self.rtp_latch
            .source()
            .or(Some(media.rtp))
            .filter(|to| is_destination(*to))
    }

    /// Where RTCP to this party goes, if it wants any.
    pub(crate) fn rtcp_destination(&self) -> Option<SocketAddr> {
        let media = self.media.as_ref()?;
        let asked = media.rtcp?;
        if media.rtcp_mux {
            return self.rtp_destination();
        }
        Some(self.rtcp_latch.source().unwrap_or(asked)).filter(|to| is_destination(*to))
    }

    /// Whether RTCP to this party leaves from the RTP port.
    pub(crate) fn multiplexes(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.rtcp_mux)
    }

    /// The source that RTP is latched to, if no other would be heard.
    pub(crate) fn only_rtp_source(&self) -> Option<SocketAddr> {
        self.rtp_latch.only(Some(self.media.as_ref()?.rtp))
    }

    /// As [`Self::only_rtp_source`], of RTCP.
    pub(crate) fn only_rtcp_source(&self) -> Option<SocketAddr> {
        self.rtcp_latch.only(self.media.as_ref()?.rtcp)
    }

    /// Our next report to this party.
    pub(crate) fn report(&mut self, now: Tick, opened: Tick) -> Vec<u8> {
        self.sent_rtcp = true;
        self.compound(now, opened, false)
    }

    /// Our BYE to this party, `None` if it never heard of us (RFC 3550 §6.3.7).
    pub(crate) fn goodbye(&mut self, now: Tick, opened: Tick) -> Option<Vec<u8>> {
        (self.sent_rtcp || self.stream.has_sent()).then(|| self.compound(now, opened, true))
    }

    fn compound(&mut self, now: Tick, opened: Tick, goodbye: bool) -> Vec<u8> {
        let seen = self.last_sender_report;
        let block = self.reception.report().map(|report| {
            let seen = seen.filter(|seen| seen.ssrc == report.ssrc);
            ReportBlock {
                ssrc: report.ssrc,
                fraction_lost: report.fraction_lost,
                cumulative_lost: report.cumulative_lost,
                extended_sequence: report.extended_sequence,
                jitter: report.jitter,
                last_report: seen.map_or(0, |seen| seen.middle),
                delay_since_last_report: seen
                    .map_or(0, |seen| (ntp(now.since(seen.at)) >> 16) as u32),
            }
        });
        let sender = self.stream.sender_info(now, opened);
        if let Some(info) = sender {
            self.far.reported(now, (info.ntp_timestamp >> 16) as u32);
        }
        Report {
            ssrc: self.stream.ssrc(),
            cname: &self.cname,
            sender,
            block,
            goodbye,
        }
        .to_bytes()
    }

    const fn heard(&mut self, now: Tick) {
        self.last_heard = Some(now);
        self.silence_reported = false;
    }
}

/// Whether one party can be at this address: a hostile description could name a multicast group
/// or everybody on the network.
fn is_destination(to: SocketAddr) -> bool {
    let everybody = match to.ip() {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    to.port() != 0 && !to.ip().is_unspecified() && !to.ip().is_multicast() && !everybody
}
