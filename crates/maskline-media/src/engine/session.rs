//! One session in its worker: four sockets, or four of each family, and the relay between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::command::{CalleeMedia, CallerMedia, MediaEvent, MediaKey, Side};
use crate::counters::{DropReason, RelayCounters};
use crate::engine::outlet::Outlet;
use crate::engine::ports::PortPair;
use crate::engine::reports::Reports;
use crate::engine::socket::{MediaSocket, MediaSockets};
use crate::prompt::Prompt;
use crate::relay::{Figures, Relay, RelayOutput, Verdict};
use crate::rtp::MAX_PACKET_BYTES;
use crate::tick::Tick;

/// A session that holds its ports.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: MediaKey,
    relay: Relay,
    caller: PortPair,
    callee: PortPair,
    /// For when the worker's timer of it is set.
    pub(super) timer: Option<Tick>,
}

/// Which of a side's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Rtp,
    Rtcp,
}

/// One socket of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) side: Side,
    pub(super) flow: Flow,
    /// Whether it is on the second of our addresses.
    pub(super) second: bool,
}

/// What the sessions of a worker share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) outlet: Outlet,
    pub(super) reports: Arc<Reports>,
    /// One byte more than is accepted, so that a longer datagram can be told.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Counted since these were last taken.
    pub(super) counted: RelayCounters,
    pub(super) send_failures: u64,
}

impl Surroundings {
    pub(super) fn new(outlet: Outlet, reports: Arc<Reports>) -> Self {
        Self {
            outlet,
            reports,
            incoming: vec![0; MAX_PACKET_BYTES + 1],
            outgoing: Vec::with_capacity(MAX_PACKET_BYTES),
            counted: RelayCounters::default(),
            send_failures: 0,
        }
    }
}

impl Session {
    const FLOWS: [(Side, Flow); 4] = [
        (Side::Caller, Flow::Rtp),
        (Side::Callee, Flow::Rtp),
        (Side::Caller, Flow::Rtcp),
        (Side::Callee, Flow::Rtcp),
    ];

    pub(super) const fn new(
        key: MediaKey,
        relay: Relay,
        caller: PortPair,
        callee: PortPair,
    ) -> Self {
        Self {
            key,
            relay,
            caller,
            callee,
            timer: None,
        }
    }

    pub(super) const fn opened(&self) -> MediaEvent {
        MediaEvent::Opened {
            key: self.key,
            caller_port: self.caller.port(),
            callee_port: self.callee.port(),
            address: None,
        }
    }

    /// All sockets with their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (Place, &MediaSocket)> {
        let both = [false, true];
        let places = Self::FLOWS
            .into_iter()
            .flat_map(move |(side, flow)| both.map(|second| Place { side, flow, second }));
        places.filter_map(|place| Some((place, self.socket(place)?)))
    }

    const fn socket(&self, place: Place) -> Option<&MediaSocket> {
        self.sockets(place.side, place.flow).at(place.second)
    }

    const fn sockets(&self, side: Side, flow: Flow) -> &MediaSockets {
        let pair = match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        };
        match flow {
            Flow::Rtp => &pair.rtp,
            Flow::Rtcp => &pair.rtcp,
        }
    }

    const fn sockets_mut(&mut self, side: Side, flow: Flow) -> &mut MediaSockets {
        let pair = match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        };
        match flow {
            Flow::Rtp => &mut pair.rtp,
            Flow::Rtcp => &mut pair.rtcp,
        }
    }

    pub(super) fn program(
        &mut self,
        now: Tick,
        caller: Option<CallerMedia>,
        callee: Option<CalleeMedia>,
        around: &mut Surroundings,
    ) {
        if let Some(media) = caller {
            self.relay.program_caller(now, media);
        }
        if let Some(media) = callee {
            self.relay.program_callee(now, media);
        }
        for (side, flow) in Self::FLOWS {
            self.settle(side, flow);
        }
        self.drain(around);
    }

    /// Takes keys that came by signalling, and whether they are to be played.
    pub(super) fn press(
        &mut self,
        now: Tick,
        presses: Vec<(Side, char, bool)>,
        around: &mut Surroundings,
    ) {
        for (side, digit, play) in presses {
            self.relay.press(now, side, digit, play);
        }
        self.drain(around);
    }

    /// Takes what the parties are to be played, or nothing any more.
    pub(super) fn prompt(
        &mut self,
        now: Tick,
        prompts: BTreeMap<Side, Option<Prompt>>,
        around: &mut Surroundings,
    ) {
        for (side, prompt) in prompts {
            match prompt {
                Some(prompt) => self.relay.play_prompt(now, side, prompt),
                None => self.relay.stop_prompt(side),
            }
        }
        self.drain(around);
    }

    /// Takes one datagram from a socket that holds one.
    pub(super) fn receive(&mut self, now: Tick, place: Place, around: &mut Surroundings) {
        let received = self
            .socket(place)
            .and_then(|socket| socket.receive(&mut around.incoming));
        let Some((length, from)) = received else {
            return;
        };
        let Place { side, flow, .. } = place;
        if self.caller.is_at(from) || self.callee.is_at(from) {
            match flow {
                Flow::Rtp => around.counted.rtp_received += 1,
                Flow::Rtcp => around.counted.rtcp_received += 1,
            }
            around.counted.drops.add(DropReason::Looped, 1);
            return;
        }
        let datagram = around.incoming.get(..length).unwrap_or_default();
        match flow {
            Flow::Rtp => {
                let verdict = self
                    .relay
                    .on_rtp(now, side, from, datagram, &mut around.outgoing);
                if let Verdict::Forward { to } = verdict
                    && !self
                        .sockets(side.other(), Flow::Rtp)
                        .send(&around.outgoing, to)
                {
                    around.send_failures += 1;
                }
            }
            Flow::Rtcp => self.relay.on_rtcp(now, side, from, datagram),
        }
        self.settle(side, flow);
        self.drain(around);
    }

    /// When [`Self::on_deadline`] is to be called.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.relay.deadline().map(|(at, _)| at)
    }

    pub(super) fn on_deadline(&mut self, now: Tick, around: &mut Surroundings) {
        self.relay.on_deadline(now);
        self.drain(around);
    }

    /// Says goodbye to both parties.
    pub(super) fn close(&mut self, now: Tick, around: &mut Surroundings) -> Figures {
        let figures = self.relay.close(now);
        self.drain(around);
        figures
    }

    /// Keeps a port for the one address that may still be heard on it.
    fn settle(&mut self, side: Side, flow: Flow) {
        let only: Option<SocketAddr> = match flow {
            Flow::Rtp => self.relay.only_rtp_source(side),
            Flow::Rtcp => self.relay.only_rtcp_source(side),
        };
        self.sockets_mut(side, flow).keep_for(only);
    }

    /// Does what the relay wants done, and adds up what it counted.
    fn drain(&mut self, around: &mut Surroundings) {
        let key = self.key;
        while let Some(output) = self.relay.poll() {
            match output {
                RelayOutput::SendRtcp {
                    side,
                    muxed,
                    to,
                    datagram,
                } => {
                    let flow = if muxed { Flow::Rtp } else { Flow::Rtcp };
                    if !self.sockets(side, flow).send(&datagram, to) {
                        around.send_failures += 1;
                    }
                }
                RelayOutput::SendRtp { side, to, datagram } => {
                    if !self.sockets(side, Flow::Rtp).send(&datagram, to) {
                        around.send_failures += 1;
                    }
                }
                RelayOutput::Dtmf { side, digit } => {
                    around.outlet.push(MediaEvent::Dtmf { key, side, digit });
                }
                RelayOutput::NotInRtp { side, digit } => {
                    let event = MediaEvent::NotInRtp { key, side, digit };
                    around.outlet.push(event);
                }
                RelayOutput::Played { side, id, whole } => {
                    let event = MediaEvent::Played {
                        key,
                        side,
                        id,
                        whole,
                    };
                    around.outlet.push(event);
                }
                RelayOutput::Report(report) => around.reports.put(key, *report),
                RelayOutput::OneWay { side, fault } => {
                    around.outlet.push(MediaEvent::OneWay { key, side, fault });
                }
                RelayOutput::Silent { side } => {
                    around.outlet.push(MediaEvent::Silent { key, side });
                }
            }
        }
        around.counted += self.relay.take_counters();
    }
}
