//! The relay of one session: which packet of one party goes to the other, as what, and what is
//! noticed on the way.
//!
//! Pure: the shell hands over datagrams with their time and source, sends what comes out, and
//! calls again at the deadline. What lives elsewhere: sockets ([`crate::engine`]); one party's
//! state (`party.rs`).
//!
//! **Latching.** A party's packets are accepted from the addresses that signalling named, and from
//! the first valid packet on from exactly its address and port; packets to the party go there
//! too, since it may sit behind a NAT. A stranger's packet is dropped, counted, and moves nothing.
//! RTP and RTCP latch on their own.
//!
//! **SRTP** (RFC 3711) is each side's own: what comes is verified and decrypted before it is looked at, what
//! leaves is protected last. A packet that is not authentic is dropped, counted, and moves nothing.
//!
//! **RTCP** is never passed on. It has a port of its own, or shares that of RTP where the party
//! agreed to that (RFC 5761), each side by itself. Each party gets reports of our own about what it sent and what we
//! sent it, on average every 5 s (RFC 3550 §6.2 with its least interval; a session of two needs
//! neither bandwidth shares nor timer reconsideration, and so no compensation for the latter).
//!
//! **One-way audio.** While one party's RTP comes and the other's, which is wanted, has not come for
//! five seconds, that is told with what was seen of it.
//!
//! **Hold.** While a party that holds the other sends nothing, the other hears what the operator
//! chose, if it wants to hear: one stream, whoever makes it.
//!
//! **Silence.** A direction flows when both sides are programmed, its sender is expected to send
//! and its receiver to receive. When its sender sent neither RTP nor RTCP for the configured time,
//! counted from the last such packet or the last programming of either side, that is reported,
//! and again only after the party was heard or programmed anew.

mod hold;
mod presses;
mod prompts;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::codec::Voice;
use crate::command::{CalleeMedia, CallerMedia, Carriage, Quality, RemoteMedia, Side};
use crate::counters::{DropReason, RelayCounters};
use crate::hold::HoldAudio;
use crate::one_way::{OneWay, WATCH_EVERY};
use crate::party::Party;
use crate::report::MediaReport;
use crate::rtp::HEADER_BYTES;
use crate::tick::Tick;
use crate::transcode::is_transcodable;

/// How long a party is not heard before it counts as silent, by default.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(60);

/// The mean time between two reports to a party.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Both sides of one session's media.
#[derive(Debug)]
pub struct Relay {
    opened: Tick,
    silence: Duration,
    rng: ChaCha8Rng,
    caller: Party,
    callee: Party,
    programmed: Tick,
    /// When to look for one-way audio next; `None` before both sides are programmed.
    watch: Option<Tick>,
    /// What a party on hold hears; `None`: nothing.
    hold: Option<Arc<HoldAudio>>,
    outputs: VecDeque<RelayOutput>,
    counters: RelayCounters,
    /// What was protected, while it is looked at.
    clear: Vec<u8>,
}

/// What became of an RTP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was written to the output buffer goes from the other side's RTP port to this address.
    Forward {
        /// The other party.
        to: SocketAddr,
    },
    /// It was RTCP on a shared port (RFC 5761), and goes no further.
    Taken,
    /// Nothing is sent. The drop is counted already.
    Drop(DropReason),
}

/// What a relay wants done or known.
#[derive(Clone, Debug, PartialEq)]
pub enum RelayOutput {
    /// Send this from the side's RTCP port, or from its RTP port if they are one to the party.
    SendRtcp {
        /// Whose port sends it.
        side: Side,
        /// Whether it leaves from the RTP port (RFC 5761).
        muxed: bool,
        /// To whom.
        to: SocketAddr,
        /// The compound.
        datagram: Vec<u8>,
    },
    /// Send this from the side's RTP port.
    SendRtp {
        /// Whose port sends it.
        side: Side,
        /// To whom.
        to: SocketAddr,
        /// The packet.
        datagram: Vec<u8>,
    },
    /// A party pressed a key; once per press.
    Dtmf {
        /// Who.
        side: Side,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// A key that a party pressed by other means has not come by RTP, and will not be passed on if it does.
    NotInRtp {
        /// Who.
        side: Side,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// A party is not heard while the other is; once until it is heard again.
    OneWay {
        /// Who is not heard.
        side: Side,
        /// Since when, and what came instead.
        fault: OneWay,
    },
    /// A prompt is over: it was played, or stopped, or replaced, or could not be heard.
    Played {
        /// To whom.
        side: Side,
        /// [`Prompt::id`](crate::Prompt::id).
        id: u64,
        /// Whether it was played to its end.
        whole: bool,
    },
    /// How both sides go, for whoever asks; the last one counts.
    Report(Box<MediaReport>),
    /// A party that should send has been silent for the configured time; once per silence.
    Silent {
        /// Who.
        side: Side,
    },
}

/// Why a relay wants to be called at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTimer {
    /// A report to a party is due.
    Report(Side),
    /// A party would be silent by then.
    Silence(Side),
    /// The next packet of what a party hears on hold is due.
    Hold(Side),
    /// It is time to see whether both parties are heard.
    Watch,
    /// The next packet of a press that is played to a party is due.
    Press(Side),
    /// The next packet of a prompt that is played to a party is due, or it is over.
    Prompt(Side),
}

/// What was received from both parties; absent where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Received from A.
    pub caller: Option<Quality>,
    /// Received from B.
    pub callee: Option<Quality>,
}

impl Relay {
    /// A relay with neither side programmed. `seed` has to be unpredictable: SSRCs, CNAMEs, first
    /// sequence numbers and timestamps come from it.
    #[must_use]
    pub fn new(now: Tick, seed: u64, silence: Duration) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let caller = Party::new(now, &mut rng);
        let callee = Party::new(now, &mut rng);
        Self {
            opened: now,
            silence,
            rng,
            caller,
            callee,
            programmed: now,
            watch: None,
            hold: None,
            outputs: VecDeque::new(),
            counters: RelayCounters::default(),
            clear: Vec::new(),
        }
    }

    /// The same, where a party on hold hears this.
    #[must_use]
    pub fn with_hold(self, hold: Option<Arc<HoldAudio>>) -> Self {
        Self { hold, ..self }
    }

    /// Takes what A negotiated, at first or anew.
    pub fn program_caller(&mut self, now: Tick, CallerMedia(media): CallerMedia) {
        self.program(now, Side::Caller, media);
    }

    /// Takes what B negotiated, at first or anew.
    pub fn program_callee(&mut self, now: Tick, CalleeMedia(media): CalleeMedia) {
        self.program(now, Side::Callee, media);
    }

    /// Takes a datagram that arrived on a side's RTP port. With [`Verdict::Forward`], `out` holds
    /// what is to be sent and nothing else.
    pub fn on_rtp(
        &mut self,
        now: Tick,
        side: Side,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<u8>,
    ) -> Verdict {
        if self.party(side).is_multiplexed_rtcp(datagram) {
            return self.on_control(now, side, from, true, datagram);
        }
        self.counters.rtp_received += 1;
        let mut clear = std::mem::take(&mut self.clear);
        let revealed = self
            .party_mut(side)
            .reveal_rtp(now, from, datagram, &mut clear);
        let forwarded = revealed.and_then(|packet| self.forward_rtp(now, side, from, packet, out));
        self.clear = clear;
        self.play(now, side.other());
        match forwarded {
            Ok(to) => {
                self.counters.rtp_forwarded += 1;
                Verdict::Forward { to }
            }
            Err(reason) => {
                self.counters.drops.add(reason, 1);
                Verdict::Drop(reason)
            }
        }
    }

    /// Takes a datagram that arrived on a side's RTCP port. It goes no further; one that is
    /// refused is counted.
    pub fn on_rtcp(&mut self, now: Tick, side: Side, from: SocketAddr, datagram: &[u8]) {
        self.on_control(now, side, from, false, datagram);
    }

    /// The one source from which a side's RTP is heard now, if there is no other: what comes from
    /// elsewhere would be dropped, until the side is programmed anew.
    #[must_use]
    pub fn only_rtp_source(&self, side: Side) -> Option<SocketAddr> {
        self.party(side).only_rtp_source()
    }

    /// As [`Self::only_rtp_source`], of RTCP.
    #[must_use]
    pub fn only_rtcp_source(&self, side: Side) -> Option<SocketAddr> {
        self.party(side).only_rtcp_source()
    }

    /// When to call [`Relay::on_deadline`], and why. May move after each input; one that moved
    /// later may be kept at its earlier time.
    #[must_use]
    pub fn deadline(&self) -> Option<(Tick, RelayTimer)> {
        [Side::Caller, Side::Callee]
            .into_iter()
            .flat_map(|side| {
                let report = self.party(side).next_report;
                let silence = self.silence_due(side);
                let press = self.party(side).player.due();
                let prompt = self.party(side).prompt.due();
                [
                    report.map(|at| (at, RelayTimer::Report(side))),
                    silence.map(|at| (at, RelayTimer::Silence(side))),
                    press.map(|at| (at, RelayTimer::Press(side))),
                    prompt.map(|at| (at, RelayTimer::Prompt(side))),
                    self.hold_due(side).map(|at| (at, RelayTimer::Hold(side))),
                ]
            })
            .flatten()
            .chain(self.watch.map(|at| (at, RelayTimer::Watch)))
            .min_by_key(|(at, _)| *at)
    }

    /// Does what is due by now; nothing if it is called early.
    pub fn on_deadline(&mut self, now: Tick) {
        for side in [Side::Caller, Side::Callee] {
            self.play(now, side);
            self.play_prompts(now, side);
            self.play_hold(now, side);
            if self.party(side).next_report.is_some_and(|at| at <= now) {
                self.report(now, side);
            }
            if self.silence_due(side).is_some_and(|at| at <= now) {
                self.party_mut(side).silence_reported = true;
                self.outputs.push_back(RelayOutput::Silent { side });
            }
        }
        if self.watch.is_some_and(|at| at <= now) {
            self.look_for_one_way(now);
            self.tell(now);
        }
    }

    /// Leaves a report, and looks again soon.
    fn tell(&mut self, now: Tick) {
        self.watch = Some(now + WATCH_EVERY);
        let report = Box::new(self.report_of_both(now));
        self.outputs.push_back(RelayOutput::Report(report));
    }

    /// How both sides go.
    #[must_use]
    pub fn report_of_both(&self, now: Tick) -> MediaReport {
        MediaReport {
            caller: self.caller.side_report(now),
            callee: self.callee.side_report(now),
            carried_by: None,
        }
    }

    /// What is to be done next; to be called until `None` after each other call.
    pub fn poll(&mut self) -> Option<RelayOutput> {
        self.outputs.pop_front()
    }

    /// Ends the media: a BYE to each party that heard of us comes out, and the call's figures.
    pub fn close(&mut self, now: Tick) -> Figures {
        self.watch = None;
        self.hold = None;
        for side in [Side::Caller, Side::Callee] {
            let opened = self.opened;
            let party = self.party_mut(side);
            party.next_report = None;
            party.player.stop();
            party.prompt.stop();
            if let Some(to) = party.rtcp_destination()
                && let Some(datagram) = party.goodbye(now, opened)
            {
                self.send_rtcp(side, to, datagram);
            }
        }
        Figures {
            caller: self.caller.quality(),
            callee: self.callee.quality(),
        }
    }

    /// What was counted since the last call.
    pub fn take_counters(&mut self) -> RelayCounters {
        std::mem::take(&mut self.counters)
    }

    fn program(&mut self, now: Tick, side: Side, media: RemoteMedia) {
        let first_report = self.report_interval() / 2;
        let party = self.party_mut(side);
        party.program(media);
        party.next_report = match party.rtcp_destination() {
            Some(_) => party.next_report.or(Some(now + first_report)),
            None => None,
        };
        self.programmed = now;
        for party in [&mut self.caller, &mut self.callee] {
            party.sight.restart();
            party.hold.restart(now);
        }
        if self.caller.media().is_some() && self.callee.media().is_some() {
            self.tell(now);
        }
        self.caller.silence_reported = false;
        self.callee.silence_reported = false;
    }

    fn on_control(
        &mut self,
        now: Tick,
        side: Side,
        from: SocketAddr,
        muxed: bool,
        datagram: &[u8],
    ) -> Verdict {
        self.counters.rtcp_received += 1;
        let mut clear = std::mem::take(&mut self.clear);
        let party = self.party_mut(side);
        let accepted = party
            .reveal_rtcp(now, from, muxed, datagram, &mut clear)
            .and_then(|compound| party.accept_rtcp(now, from, muxed, compound));
        self.clear = clear;
        match accepted {
            Ok(()) => Verdict::Taken,
            Err(reason) => {
                self.counters.drops.add(reason, 1);
                Verdict::Drop(reason)
            }
        }
    }

    fn forward_rtp(
        &mut self,
        now: Tick,
        side: Side,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<SocketAddr, DropReason> {
        let (sender, receiver) = self.both(side);
        let accepted = sender.accept_rtp(now, from, datagram)?;
        if !sender.allows(now) {
            return Err(DropReason::TooMany);
        }
        if accepted.latched {
            receiver.stream.source_changed();
        }
        let voice = accepted.payload.codec.and_then(Voice::of);
        if accepted.payload.telephone_event {
            self.on_event(now, side, &accepted);
        } else if let Some(voice) = voice.filter(|_| self.party(side).keys.listener.is_some()) {
            self.listen(now, side, &accepted, voice);
        } else if let Some(listener) = &mut self.party_mut(side).keys.listener {
            listener.pass_over(&accepted.packet);
        }
        let (sender, receiver) = self.both(side);
        let media = receiver.media().ok_or(DropReason::ReceiverNotProgrammed)?;
        if !media.receives {
            return Err(DropReason::ReceiverOnHold);
        }
        if accepted.payload.there > 127 {
            return Err(DropReason::ReceiverLacksCodec);
        }
        let withheld =
            accepted.payload.telephone_event && sender.keys.is_withheld(accepted.packet.timestamp);
        if withheld || receiver.player.is_playing() {
            return Err(DropReason::PlayedAnew);
        }
        let to = receiver
            .rtp_destination()
            .ok_or(DropReason::NoDestination)?;
        let transcoded = match accepted.payload.carriage {
            Carriage::AsIs => None,
            Carriage::Transcoded { from, to } => {
                if !is_transcodable(accepted.packet.payload.len()) {
                    return Err(DropReason::NotTranscodable);
                }
                Some((from, to))
            }
            Carriage::Anew => return Err(DropReason::PlayedAnew),
        };
        if receiver.prompt.is_playing() {
            return Err(DropReason::Prompted);
        }
        let held = receiver.hold.interrupt(now);
        let mut packet = receiver.stream.translate(
            now,
            &accepted.packet,
            accepted.payload.there,
            accepted.payload.clock_rate,
        );
        packet.marker |= held;
        packet.write(out);
        if let (Some((from, to)), Some(payload)) = (transcoded, out.get_mut(HEADER_BYTES..)) {
            sender.transcode(from, to, payload);
        }
        receiver.protect_rtp(out)?;
        Ok(to)
    }

    fn report(&mut self, now: Tick, side: Side) {
        let next = now + self.report_interval();
        let opened = self.opened;
        let party = self.party_mut(side);
        party.next_report = Some(next);
        if let Some(to) = party.rtcp_destination() {
            let datagram = party.report(now, opened);
            self.send_rtcp(side, to, datagram);
        }
    }

    /// Sends an RTP packet of our own making.
    fn send_own(&mut self, side: Side, datagram: Option<Vec<u8>>) {
        let party = self.party_mut(side);
        if let (Some(mut datagram), Some(to)) = (datagram, party.rtp_destination())
            && party.protect_rtp(&mut datagram).is_ok()
        {
            self.counters.rtp_made += 1;
            self.outputs
                .push_back(RelayOutput::SendRtp { side, to, datagram });
        }
    }

    fn send_rtcp(&mut self, side: Side, to: SocketAddr, mut datagram: Vec<u8>) {
        if self.party_mut(side).protect_rtcp(&mut datagram).is_err() {
            return;
        }
        self.counters.rtcp_sent += 1;
        let muxed = self.party(side).multiplexes();
        self.outputs.push_back(RelayOutput::SendRtcp {
            side,
            muxed,
            to,
            datagram,
        });
    }

    /// Between half and one and a half of the mean (RFC 3550 §6.2), so that sessions that begin
    /// together do not report together.
    fn report_interval(&mut self) -> Duration {
        let mean_us = REPORT_INTERVAL.as_micros() as u64;
        Duration::from_micros(mean_us / 2 + u64::from(self.rng.next_u32()) % mean_us)
    }

    fn look_for_one_way(&mut self, now: Tick) {
        let talks = |side| {
            let from = self.party(side).media();
            let to = self.party(side.other()).media();
            from.is_some_and(|from| from.sends) && to.is_some_and(|to| to.receives)
        };
        if !talks(Side::Caller) || !talks(Side::Callee) {
            return;
        }
        for side in [Side::Caller, Side::Callee] {
            let other = &self.party(side.other()).sight;
            let fault = self.party(side).sight.missing(now, self.programmed, other);
            if let Some(fault) = fault
                && self.party_mut(side).sight.tell(fault)
            {
                self.counters.one_way += 1;
                self.outputs.push_back(RelayOutput::OneWay { side, fault });
            }
        }
    }

    fn silence_due(&self, side: Side) -> Option<Tick> {
        let party = self.party(side);
        let sends = party.media()?.sends;
        let wanted = self.party(side.other()).media()?.receives;
        if !sends || !wanted || party.silence_reported {
            return None;
        }
        let since = party
            .last_heard
            .map_or(self.programmed, |heard| heard.max(self.programmed));
        Some(since + self.silence)
    }

    const fn party(&self, side: Side) -> &Party {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    /// A side's party, and the other one.
    const fn both(&mut self, side: Side) -> (&mut Party, &mut Party) {
        match side {
            Side::Caller => (&mut self.caller, &mut self.callee),
            Side::Callee => (&mut self.callee, &mut self.caller),
        }
    }

    const fn party_mut(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}
