//! The run: one queue of events on a virtual clock, step by step.

mod process;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use maskline_media::{MediaEvent, Side, Tick};
use maskline_phone::{Change, Phone, PhoneAction, PhoneEvent, PhoneInput, Report};
use maskline_switch::sip::Transport;
use maskline_switch::{Admission, Dispatcher, Input, SessionKey, Shard};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use uuid::Uuid;

use crate::checks::Watch;
use crate::engine::Engine;
use crate::ladder::{Failure, Trace};
use crate::ledger::SessionLog;
use crate::network::{Network, Way, Wire};
use crate::queue::Queues;
use crate::registrar::{RegistrarLog, Registrars};
use crate::scenario::{CallPlan, CrashAt, Scenario};
use crate::store::Store;
use crate::traces::Traces;
use crate::wire::Glance;
use crate::{site, supervision};

/// The wall clock at the start of every run: 2026-01-06T00:00:00Z.
const EPOCH_MS: i64 = 1_767_657_600_000;
/// By then everything has come to rest.
const HORIZON: Duration = Duration::from_secs(900);
/// More steps than any run takes that comes to rest.
const MAX_STEPS: u64 = 50_000;
/// How long a message within the process takes.
const WITHIN: Duration = Duration::from_micros(50);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Of every step with everything in it.
    pub trace_hash: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// When everything had come to rest.
    pub rested_at: Duration,
    /// What receivers were told, in the order of the virtual numbers.
    pub sessions: Vec<SessionLog>,
    /// What the phones saw, call by call: caller, callee (the one that answered, else the first).
    pub phones: Vec<(Report, Report)>,
    /// What the registrars saw.
    pub registrar: RegistrarLog,
    /// What each of B's phones saw, call by call.
    pub lines: Vec<Vec<Report>>,
    /// The switch's counters.
    pub counts: BTreeMap<&'static str, u64>,
    /// The whole ladder.
    pub ladder: String,
}

/// Plays a scenario to its end.
///
/// # Errors
/// The first invariant that did not hold.
pub fn run(scenario: &Scenario) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(scenario);
    let result = world.play();
    result.map_err(|(what, call)| {
        Box::new(Failure {
            seed: scenario.seed,
            step: world.step,
            at: world.now.since_start(),
            what,
            ladder: world.trace.ladder(call),
        })
    })?;
    Ok(world.outcome())
}

/// What did not hold, and in which call.
type Broken = (String, Option<usize>);
type Checked = Result<(), Broken>;

/// The process.
struct Switch {
    shards: Vec<Shard>,
    dispatcher: Dispatcher,
    admission: Admission,
    engine: Engine,
    /// Unless shards take no time.
    queues: Option<Queues>,
}

enum Event {
    Dial(usize),
    HangUp(Wire),
    Hold(Wire, bool),
    PressByInfo(Wire, char),
    Change(Wire, Change),
    BreakStreams(usize),
    Arrive {
        way: Way,
        wire: Wire,
        transport: Transport,
        generation: u32,
        bytes: Bytes,
    },
    /// A shard is done with waiting for its next message.
    Serve(u16),
    StoreAttempt,
    Tell(u16, Box<Input>),
    Media(MediaEvent),
    Restart,
}

struct World<'a> {
    scenario: &'a Scenario,
    rng: ChaCha12Rng,
    now: Tick,
    step: u64,
    /// The second part keeps the order of what happens at the same time; the process's number is
    /// part of an event that dies with it.
    queue: BTreeMap<(Tick, u64), (Option<u32>, Event)>,
    next_event: u64,
    process: u32,
    crashes: usize,
    switch: Option<Switch>,
    died: Tick,
    phones: BTreeMap<Wire, Phone>,
    wires: BTreeMap<SocketAddr, Wire>,
    calls: BTreeMap<Uuid, usize>,
    network: Network,
    registrars: Registrars,
    store: Store,
    watch: Watch,
    traces: Traces,
    trace: Trace,
    counts: BTreeMap<&'static str, u64>,
    /// Calls of which a process refused an INVITE for overload, by process.
    refused: BTreeSet<(u32, usize)>,
    /// Calls of which a process made a session, by process.
    begun: BTreeSet<(u32, usize)>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            rng: ChaCha12Rng::seed_from_u64(scenario.seed ^ 0x5eed_0f4e_7a11_0001),
            now: Tick::ZERO,
            step: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            process: 0,
            crashes: 0,
            switch: None,
            died: Tick::ZERO,
            phones: BTreeMap::new(),
            wires: BTreeMap::new(),
            calls: BTreeMap::new(),
            network: Network::new(scenario.network),
            registrars: Registrars::new(scenario.registrar.clone()),
            store: Store::new(scenario.store.clone()),
            watch: Watch::default(),
            traces: Traces::default(),
            trace: Trace::new(),
            counts: BTreeMap::new(),
            refused: BTreeSet::new(),
            begun: BTreeSet::new(),
        };
        for registrar in 0..scenario.registrar.as_ref().map_or(0, |plan| plan.count) {
            let call = site::REGISTRARS + registrar;
            let side = Side::Callee;
            let address = site::phone_address(call, side);
            world.wires.insert(address, Wire::first(call, side));
        }
        for (call, plan) in scenario.calls.iter().enumerate() {
            for wire in wires_of(call, plan) {
                let seed = world.rng.next_u64();
                let config = site::phone_config(wire, plan, scenario.numbering);
                world.phones.insert(wire, Phone::new(config, seed));
                world.wires.insert(site::wire_address(wire), wire);
            }
            let wire = |side| Wire::first(call, side);
            world.later(plan.starts, Event::Dial(call));
            if let Some(after) = plan.both_hang_up {
                world.later(plan.starts + after, Event::HangUp(wire(Side::Caller)));
                world.later(plan.starts + after, Event::HangUp(wire(Side::Callee)));
            }
            if let Some((side, from, lasts)) = plan.hold {
                world.later(plan.starts + from, Event::Hold(wire(side), true));
                world.later(plan.starts + from + lasts, Event::Hold(wire(side), false));
            }
            for (after, side, key) in &plan.info_keys {
                world.later(plan.starts + *after, Event::PressByInfo(wire(*side), *key));
            }
            for (side, at, change) in plan.changes.clone() {
                world.later(plan.starts + at, Event::Change(wire(side), change));
            }
            if let Some(after) = plan.stream_breaks {
                world.later(plan.starts + after, Event::BreakStreams(call));
            }
        }
        world
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.queue
            .insert((self.now + after, self.next_event), (None, event));
    }

    /// As [`Self::later`], unless the process dies before.
    fn later_in_process(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.queue.insert(
            (self.now + after, self.next_event),
            (Some(self.process), event),
        );
    }

    fn note(&mut self, call: Option<usize>, text: String, bytes: &[u8]) {
        self.trace.line(self.now, call, text, bytes);
    }

    fn play(&mut self) -> Checked {
        self.start()?;
        while let Some(at) = self.next_time() {
            self.now = at.max(self.now);
            if self.now > Tick::from_start(HORIZON) || self.step > MAX_STEPS {
                return Err((
                    format!("the run does not come to rest: {}", self.unrest()),
                    None,
                ));
            }
            self.step += 1;
            self.advance()?;
            let crash = self.scenario.crashes.get(self.crashes).copied();
            if let Some(crash) = crash.filter(|crash| self.is_due(crash.at))
                && self.switch.is_some()
            {
                self.crashes += 1;
                self.crash(crash.last_commit_survives)?;
                self.later(crash.down_for, Event::Restart);
            }
        }
        self.check_rest()
    }

    fn is_due(&self, at: CrashAt) -> bool {
        match at {
            CrashAt::Step(step) => self.step >= step,
            CrashAt::Time(time) => self.now >= Tick::from_start(time),
        }
    }

    fn next_time(&self) -> Option<Tick> {
        let event = self.queue.keys().next().map(|(at, _)| *at);
        let phones = self.phones.values().filter_map(Phone::deadline);
        let shards = self.switch.iter().flat_map(|switch| &switch.shards);
        event
            .into_iter()
            .chain(phones)
            .chain(shards.filter_map(Shard::deadline))
            .min()
    }

    /// One thing happens.
    fn advance(&mut self) -> Checked {
        if self
            .queue
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= self.now)
            && let Some((_, (process, event))) = self.queue.pop_first()
        {
            if process.is_some_and(|process| process != self.process) {
                return Ok(());
            }
            return self.happen(event);
        }
        let due = |deadline: Option<Tick>| deadline.is_some_and(|at| at <= self.now);
        let wire = self
            .phones
            .iter()
            .find(|(_, phone)| due(phone.deadline()))
            .map(|(wire, _)| *wire);
        if let Some(wire) = wire {
            return self.phone(wire, PhoneInput::DeadlineReached);
        }
        let shard = self
            .switch
            .as_ref()
            .and_then(|switch| switch.shards.iter().position(|shard| due(shard.deadline())));
        match shard.and_then(|shard| u16::try_from(shard).ok()) {
            Some(shard) => self.shard(shard, Input::DeadlineReached),
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Dial(call) => {
                let Some(plan) = self.scenario.calls.get(call) else {
                    return Ok(());
                };
                let peer = site::switch_as_peer(plan.caller_transport);
                let uri = site::dialled_uri(call, plan, self.scenario.numbering);
                let caller = Wire::first(call, Side::Caller);
                self.phone(caller, PhoneInput::Dial { peer, uri })
            }
            Event::HangUp(wire) => self.phone(wire, PhoneInput::HangUp),
            Event::Hold(wire, hold) => self.phone(wire, PhoneInput::Hold(hold)),
            Event::PressByInfo(wire, key) => self.phone(wire, PhoneInput::PressByInfo(key)),
            Event::Change(wire, change) => self.phone(wire, PhoneInput::Change(change)),
            Event::BreakStreams(call) => {
                let plan = self.scenario.calls.get(call);
                for wire in plan.map_or_else(Vec::new, |plan| wires_of(call, plan)) {
                    self.break_stream(wire)?;
                }
                Ok(())
            }
            Event::Arrive {
                way,
                wire,
                transport,
                generation,
                bytes,
            } => {
                if transport.is_stream() && generation != self.network.generation(wire) {
                    return Ok(());
                }
                match way {
                    Way::ToSwitch => self.arrive_at_switch(wire, transport, &bytes),
                    Way::ToPhone if wire.call >= site::REGISTRARS => self.registrar(wire, &bytes),
                    Way::ToPhone if supervision::is_question(&bytes) => {
                        self.supervised(wire, transport, &bytes)
                    }
                    Way::ToPhone => {
                        let peer = site::switch_as_peer(transport);
                        self.phone(wire, PhoneInput::MessageArrived { peer, bytes })
                    }
                }
            }
            Event::Serve(shard) => self.serve(shard),
            Event::StoreAttempt => self.store_attempt(),
            Event::Tell(shard, input) => self.shard(shard, *input),
            Event::Media(event) => {
                let key = event.key();
                let about_open = matches!(
                    event,
                    MediaEvent::Dtmf { .. }
                        | MediaEvent::NotInRtp { .. }
                        | MediaEvent::Silent { .. }
                );
                let open = self
                    .switch
                    .as_ref()
                    .is_some_and(|switch| switch.engine.is_open(key));
                if about_open && !open {
                    return Ok(());
                }
                let call = self.call_of(key.shard, key.id);
                self.note(call, format!("   media: {}", media_word(&event)), &[]);
                self.shard(key.shard, Input::Media(event))
            }
            Event::Restart => self.start(),
        }
    }

    fn transport_of(&self, wire: Wire) -> Transport {
        self.scenario
            .calls
            .get(wire.call)
            .map_or(Transport::Udp, |plan| site::transport_of(plan, wire))
    }

    fn break_stream(&mut self, wire: Wire) -> Checked {
        let transport = self.transport_of(wire);
        if !transport.is_stream() {
            return Ok(());
        }
        self.network.break_stream(wire);
        self.note(
            Some(wire.call),
            format!("{:?}'s stream breaks", wire.side),
            &[],
        );
        let of_phone = site::switch_as_peer(transport);
        self.phone(wire, PhoneInput::TransportFailed(of_phone))?;
        let of_switch = site::phone_as_peer(site::wire_address(wire), transport);
        for shard in 0..self.scenario.shards {
            if self.switch.is_some() {
                self.shard(shard, Input::TransportFailed(of_switch))?;
            }
        }
        Ok(())
    }

    fn carry(&mut self, way: Way, wire: Wire, transport: Transport, bytes: &Bytes) {
        let generation = self.network.generation(wire);
        let arrivals = self
            .network
            .carry(self.now, &mut self.rng, transport, wire, way);
        for at in arrivals {
            let after = at.since(self.now);
            let bytes = bytes.clone();
            self.later(
                after,
                Event::Arrive {
                    way,
                    wire,
                    transport,
                    generation,
                    bytes,
                },
            );
        }
    }

    fn registrar(&mut self, wire: Wire, bytes: &Bytes) -> Checked {
        let at = wire.call - site::REGISTRARS;
        let peer = site::switch_as_peer(Transport::Udp);
        let heard = self
            .registrars
            .hear(self.now, self.process, at, peer, bytes);
        if let Some(answer) = heard.map_err(|what| (what, None))? {
            let text = String::from_utf8_lossy(&answer);
            let label = Glance::at(&text).label();
            self.note(None, arrow(wire, Way::ToSwitch, &label), &answer);
            self.carry(Way::ToSwitch, wire, Transport::Udp, &answer);
        }
        Ok(())
    }

    fn supervised(&mut self, wire: Wire, transport: Transport, bytes: &Bytes) -> Checked {
        let peer = site::switch_as_peer(transport);
        let plan = self.scenario.supervision.as_ref();
        let answer = supervision::answer(plan, self.now, wire, peer, bytes);
        if let Some(answer) = answer.map_err(|what| (what, Some(wire.call)))? {
            let text = String::from_utf8_lossy(&answer);
            let label = Glance::at(&text).label();
            self.note(Some(wire.call), arrow(wire, Way::ToSwitch, &label), &answer);
            self.carry(Way::ToSwitch, wire, transport, &answer);
        }
        Ok(())
    }

    fn phone(&mut self, wire: Wire, input: PhoneInput) -> Checked {
        let Some(phone) = self.phones.get_mut(&wire) else {
            return Ok(());
        };
        phone.handle(self.now, input);
        while let Some(action) = self.phones.get_mut(&wire).and_then(Phone::poll) {
            match action {
                PhoneAction::Send { peer, bytes } => {
                    let text = String::from_utf8_lossy(&bytes);
                    let label = Glance::at(&text).label();
                    self.note(Some(wire.call), arrow(wire, Way::ToSwitch, &label), &bytes);
                    self.carry(Way::ToSwitch, wire, peer.transport, &bytes);
                }
                PhoneAction::SendRtp { .. } => {}
                PhoneAction::Notice(event) => {
                    let who = who(wire.side);
                    // The number on the display stays out of the ladder.
                    let text = if matches!(event, PhoneEvent::Called { .. }) {
                        "Called".to_owned()
                    } else {
                        format!("{event:?}")
                    };
                    self.note(Some(wire.call), format!("   {who}: {text}"), &[]);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, reason: &'static str) {
        *self.counts.entry(reason).or_default() += 1;
    }

    fn call_of(&self, shard: u16, key: SessionKey) -> Option<usize> {
        self.watch
            .session(shard, key)
            .and_then(|session| self.calls.get(&session))
            .copied()
    }
}

const fn who(side: Side) -> char {
    match side {
        Side::Caller => 'A',
        Side::Callee => 'B',
    }
}

fn arrow(wire: Wire, way: Way, label: &str) -> String {
    let line = match wire.line {
        0 => String::new(),
        line => (line + 1).to_string(),
    };
    match (wire.side, way) {
        (Side::Caller, Way::ToSwitch) => format!("A --> switch      {label}"),
        (Side::Caller, Way::ToPhone) => format!("A <-- switch      {label}"),
        (Side::Callee, Way::ToPhone) => format!("      switch --> B{line} {label}"),
        (Side::Callee, Way::ToSwitch) => format!("      switch <-- B{line} {label}"),
    }
}

/// Every phone of a call.
fn wires_of(call: usize, plan: &CallPlan) -> Vec<Wire> {
    let side = Side::Callee;
    let callees = (0..=plan.others.len()).map(|line| Wire { call, side, line });
    std::iter::once(Wire::first(call, Side::Caller))
        .chain(callees)
        .collect()
}

const fn media_word(event: &MediaEvent) -> &'static str {
    match event {
        MediaEvent::Opened { .. } => "opened",
        MediaEvent::Refused { .. } => "refused",
        MediaEvent::Dtmf { .. } => "key",
        MediaEvent::NotInRtp { .. } => "key not in RTP",
        MediaEvent::Played { .. } => "prompt over",
        MediaEvent::Silent { .. } => "silence",
        MediaEvent::OneWay { .. } => "one way",
        MediaEvent::Closed { .. } => "closed",
    }
}
