//! The run: one queue of events on a virtual clock, step by step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use maskline_events::{CallStatus, Timestamp};
use maskline_media::{MediaEvent, Side, Tick};
use maskline_phone::{Phone, PhoneAction, PhoneInput, Report};
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::{
    Action, Admission, CallflowAnswer, CommitId, Dispatcher, Input, Now, SessionKey, Shard,
    TrunkId, Verdict,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use uuid::Uuid;

use crate::checks::{self, Watch};
use crate::engine::Engine;
use crate::ladder::{Failure, Trace};
use crate::ledger::{Content, Entry, SessionLog, side_of};
use crate::network::{Network, Way, Wire};
use crate::scenario::{CrashAt, Sabotage, Scenario, VcaAnswer};
use crate::site;
use crate::store::{Attempt, Store};
use crate::wire::{Glance, Kind};

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
    /// What the phones saw, call by call: caller, callee.
    pub phones: Vec<(Report, Report)>,
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
}

enum Event {
    Dial(usize),
    HangUp(Wire),
    Hold(Wire, bool),
    BreakStreams(usize),
    Arrive {
        way: Way,
        wire: Wire,
        transport: Transport,
        generation: u32,
        bytes: Bytes,
    },
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
    phones: BTreeMap<Wire, Phone>,
    wires: BTreeMap<SocketAddr, Wire>,
    calls: BTreeMap<Uuid, usize>,
    network: Network,
    store: Store,
    watch: Watch,
    trace: Trace,
    counts: BTreeMap<&'static str, u64>,
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
            phones: BTreeMap::new(),
            wires: BTreeMap::new(),
            calls: BTreeMap::new(),
            network: Network::new(scenario.network),
            store: Store::new(scenario.store.clone()),
            watch: Watch::default(),
            trace: Trace::new(),
            counts: BTreeMap::new(),
        };
        for (call, plan) in scenario.calls.iter().enumerate() {
            for side in [Side::Caller, Side::Callee] {
                let wire = Wire { call, side };
                let seed = world.rng.next_u64();
                world
                    .phones
                    .insert(wire, Phone::new(site::phone_config(call, side, plan), seed));
                world.wires.insert(site::phone_address(call, side), wire);
            }
            let wire = |side| Wire { call, side };
            world.later(plan.starts, Event::Dial(call));
            if let Some(after) = plan.both_hang_up {
                world.later(plan.starts + after, Event::HangUp(wire(Side::Caller)));
                world.later(plan.starts + after, Event::HangUp(wire(Side::Callee)));
            }
            if let Some((side, from, lasts)) = plan.hold {
                world.later(plan.starts + from, Event::Hold(wire(side), true));
                world.later(plan.starts + from + lasts, Event::Hold(wire(side), false));
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
                let uri = site::dialled_uri(call, plan);
                self.phone(
                    Wire {
                        call,
                        side: Side::Caller,
                    },
                    PhoneInput::Dial { peer, uri },
                )
            }
            Event::HangUp(wire) => self.phone(wire, PhoneInput::HangUp),
            Event::Hold(wire, hold) => self.phone(wire, PhoneInput::Hold(hold)),
            Event::BreakStreams(call) => {
                for side in [Side::Caller, Side::Callee] {
                    self.break_stream(Wire { call, side })?;
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
                if transport == Transport::Tcp && generation != self.network.generation(wire) {
                    return Ok(());
                }
                match way {
                    Way::ToSwitch => self.arrive_at_switch(wire, transport, &bytes),
                    Way::ToPhone => {
                        let peer = site::switch_as_peer(transport);
                        self.phone(wire, PhoneInput::MessageArrived { peer, bytes })
                    }
                }
            }
            Event::StoreAttempt => self.store_attempt(),
            Event::Tell(shard, input) => self.shard(shard, *input),
            Event::Media(event) => {
                let key = event.key();
                let about_open =
                    matches!(event, MediaEvent::Dtmf { .. } | MediaEvent::Silent { .. });
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

    /// A process begins, with what the store kept of the one before.
    fn start(&mut self) -> Checked {
        let trunks = site::trunks(self.scenario);
        let mut shards = Vec::new();
        for shard in 0..self.scenario.shards {
            let mut seed = [0; 32];
            self.rng.fill_bytes(&mut seed);
            shards.push(Shard::new(
                site::switch_config(self.scenario, shard, &trunks),
                seed,
            ));
        }
        self.switch = Some(Switch {
            shards,
            dispatcher: Dispatcher::new(trunks.clone(), self.scenario.shards),
            admission: Admission::new(&trunks),
            engine: Engine::default(),
        });
        self.note(None, "=== the switch starts".to_owned(), &[]);
        for shard in 0..self.scenario.shards {
            let directory = site::directory(self.scenario);
            self.shard(shard, Input::DirectoryChanged(directory))?;
        }
        if let Some((from, lasts)) = self.scenario.drain {
            for shard in 0..self.scenario.shards {
                let from = from.saturating_sub(self.now.since_start());
                self.later_in_process(from, Event::Tell(shard, Box::new(Input::DrainStarted)));
                self.later_in_process(
                    from + lasts,
                    Event::Tell(shard, Box::new(Input::DrainEnded)),
                );
            }
        }
        for (session, snapshot) in self.store.ledger.snapshots.clone() {
            let Some((carried, _)) = checks::owner_of(&snapshot) else {
                return Err(("a snapshot does not read".to_owned(), None));
            };
            self.watch.adopted(session);
            let owner = self
                .switch
                .as_ref()
                .map(|switch| switch.dispatcher.shard(carried));
            if let Some(shard) = owner {
                self.shard(shard, Input::SessionFound(snapshot))?;
            }
        }
        Ok(())
    }

    fn crash(&mut self, last_commit_survives: bool) -> Checked {
        self.note(None, "=== the switch dies".to_owned(), &[]);
        self.process += 1;
        self.switch = None;
        self.store
            .crash(last_commit_survives)
            .map_err(|what| (what, None))?;
        for wire in self.phones.keys().copied().collect::<Vec<_>>() {
            self.break_stream(wire)?;
        }
        Ok(())
    }

    fn transport_of(&self, wire: Wire) -> Transport {
        self.scenario
            .calls
            .get(wire.call)
            .map_or(Transport::Udp, |plan| match wire.side {
                Side::Caller => plan.caller_transport,
                Side::Callee => plan.callee_transport,
            })
    }

    fn break_stream(&mut self, wire: Wire) -> Checked {
        if self.transport_of(wire) != Transport::Tcp {
            return Ok(());
        }
        self.network.break_stream(wire);
        self.note(
            Some(wire.call),
            format!("{:?}'s stream breaks", wire.side),
            &[],
        );
        let of_phone = site::switch_as_peer(Transport::Tcp);
        self.phone(wire, PhoneInput::TransportFailed(of_phone))?;
        let of_switch =
            site::phone_as_peer(site::phone_address(wire.call, wire.side), Transport::Tcp);
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
                    self.note(
                        Some(wire.call),
                        arrow(wire.side, Way::ToSwitch, &label),
                        &bytes,
                    );
                    self.carry(Way::ToSwitch, wire, peer.transport, &bytes);
                }
                PhoneAction::SendRtp { .. } => {}
                PhoneAction::Notice(event) => {
                    let who = who(wire.side);
                    let text = match event {
                        // The number on the display stays out of the ladder.
                        maskline_phone::PhoneEvent::Called { .. } => "Called".to_owned(),
                        event => format!("{event:?}"),
                    };
                    self.note(Some(wire.call), format!("   {who}: {text}"), &[]);
                }
            }
        }
        Ok(())
    }

    fn arrive_at_switch(&mut self, wire: Wire, transport: Transport, bytes: &Bytes) -> Checked {
        let Some(switch) = self.switch.as_ref() else {
            if transport == Transport::Tcp {
                self.network.break_stream(wire);
                let peer = site::switch_as_peer(Transport::Tcp);
                return self.phone(wire, PhoneInput::TransportFailed(peer));
            }
            return Ok(());
        };
        let peer = site::phone_as_peer(site::phone_address(wire.call, wire.side), transport);
        let verdict = match transport {
            Transport::Udp => switch.dispatcher.datagram(peer, bytes),
            Transport::Tcp => switch.dispatcher.frame(peer, bytes.clone()),
        };
        match verdict {
            Verdict::Deliver { shard, arrival } => {
                self.shard(shard, Input::MessageArrived(arrival))
            }
            Verdict::Refuse { response, reason } => {
                self.count(reason);
                self.send(peer, response)
            }
            Verdict::Discard { reason } => {
                self.count(reason);
                Ok(())
            }
        }
    }

    fn count(&mut self, reason: &'static str) {
        *self.counts.entry(reason).or_default() += 1;
    }

    fn shard(&mut self, at: u16, input: Input) -> Checked {
        let wall = i64::try_from(self.now.since_start().as_millis()).unwrap_or(i64::MAX);
        let now = Now {
            tick: self.now,
            wall: Timestamp::from_unix_ms(EPOCH_MS).plus_ms(wall),
        };
        let Some(shard) = self.shard_mut(at) else {
            return Ok(());
        };
        shard.handle(now, input);
        while let Some(action) = self.shard_mut(at).and_then(Shard::poll) {
            self.perform(at, action)?;
        }
        Ok(())
    }

    fn shard_mut(&mut self, at: u16) -> Option<&mut Shard> {
        self.switch.as_mut()?.shards.get_mut(usize::from(at))
    }

    fn perform(&mut self, shard: u16, action: Action) -> Checked {
        match action {
            Action::Send { peer, bytes } => self.send(peer, bytes),
            Action::Commit { id, record } => {
                let entry = Entry::read(record).map_err(|what| (what, None))?;
                self.commit(shard, id, entry)
            }
            Action::AskCallflow { session, body, .. } => self.ask(shard, session, &body),
            Action::Admit {
                session,
                side,
                trunk,
            } => {
                self.admit(shard, session, side, trunk);
                Ok(())
            }
            Action::Release { trunk } => {
                if let Some(switch) = self.switch.as_mut() {
                    if switch.admission.calls(trunk) == 0 {
                        return Err(("a trunk's place was given back twice".to_owned(), None));
                    }
                    switch.admission.release(trunk);
                }
                Ok(())
            }
            Action::Media(command) => {
                let call = self.call_of(shard, command.key().id);
                let plan = call.and_then(|call| self.scenario.calls.get(call));
                let Some(switch) = self.switch.as_mut() else {
                    return Ok(());
                };
                let events = switch.engine.carry_out(&mut self.rng, command, plan);
                for (after, event) in events.map_err(|what| (what, call))? {
                    self.later_in_process(after, Event::Media(event));
                }
                Ok(())
            }
            Action::Count(reason) => {
                self.count(reason);
                Ok(())
            }
            Action::Ended {
                session_id, status, ..
            } => {
                let call = self.calls.get(&session_id).copied();
                self.note(call, format!("   session over: {status:?}"), &[]);
                Ok(())
            }
        }
    }

    fn send(&mut self, peer: Peer, bytes: Bytes) -> Checked {
        let Some(wire) = self.wires.get(&peer.addr).copied() else {
            return Err(("a message to a stranger".to_owned(), None));
        };
        let call = Some(wire.call);
        let mut bytes = bytes;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let glance = Glance::at(&text);
        self.note(
            call,
            arrow(wire.side, Way::ToPhone, &glance.label()),
            &bytes,
        );
        self.watch
            .on_send(self.now, &self.store.ledger, &glance)
            .map_err(|what| (what, call))?;
        let sabotage = self.scenario.sabotage;
        if sabotage == Sabotage::SwallowByes && glance.kind == Kind::Request("BYE") {
            return Ok(());
        }
        if sabotage == Sabotage::LeakCallerName && glance.kind == Kind::Request("INVITE") {
            let name = site::display_name(wire.call);
            bytes = Bytes::from(text.replacen("\r\n", &format!("\r\nSubject: {name}\r\n"), 1));
        }
        let text = String::from_utf8_lossy(&bytes);
        checks::privacy(wire.call, wire.side, &text).map_err(|what| (what, call))?;
        self.carry(Way::ToPhone, wire, peer.transport, &bytes);
        Ok(())
    }

    fn commit(&mut self, shard: u16, id: CommitId, entry: Entry) -> Checked {
        for event in &entry.events {
            if let Content::Status(payload) = &event.content {
                if payload.call_status == CallStatus::CallReceived {
                    let number = payload.destination.as_str();
                    let call = (0..self.scenario.calls.len())
                        .find(|call| site::virtual_number(*call) == number);
                    if let Some(call) = call {
                        self.calls.insert(entry.session_id, call);
                    }
                }
                let leg = who(side_of(payload));
                let call = self.calls.get(&entry.session_id).copied();
                let text = format!(
                    "   decided: {leg} {:?} {}",
                    payload.call_status, payload.sip_code
                );
                self.note(call, text, event.event_id.as_bytes());
            }
        }
        self.watch.on_commit(self.now, &entry);
        if self.scenario.sabotage == Sabotage::ReportCommitsEarly {
            let input = Box::new(Input::Committed(vec![id]));
            self.later_in_process(WITHIN, Event::Tell(shard, input));
        }
        if let Some(after) = self.store.submit(&mut self.rng, shard, id, entry) {
            self.later_in_process(after, Event::StoreAttempt);
        }
        Ok(())
    }

    fn store_attempt(&mut self) -> Checked {
        match self.store.finish(self.now).map_err(|what| (what, None))? {
            Attempt::Failed { first } => {
                if first {
                    self.note(None, "=== the store fails".to_owned(), &[]);
                    self.tell_all(true);
                }
                self.later_in_process(self.store.retry_after(), Event::StoreAttempt);
            }
            Attempt::Durable {
                reported,
                recovered,
            } => {
                if recovered {
                    self.note(None, "=== the store is well again".to_owned(), &[]);
                    self.tell_all(false);
                }
                let mut by_shard: BTreeMap<u16, Vec<CommitId>> = BTreeMap::new();
                for (shard, id) in reported {
                    by_shard.entry(shard).or_default().push(id);
                }
                for (shard, ids) in by_shard {
                    let input = Box::new(Input::Committed(ids));
                    self.later_in_process(WITHIN, Event::Tell(shard, input));
                }
                if let Some(after) = self.store.start(&mut self.rng) {
                    self.later_in_process(after, Event::StoreAttempt);
                }
            }
        }
        Ok(())
    }

    fn tell_all(&mut self, down: bool) {
        for shard in 0..self.scenario.shards {
            let input = Box::new(Input::JournalDown(down));
            self.later_in_process(WITHIN, Event::Tell(shard, input));
        }
    }

    fn call_of(&self, shard: u16, key: SessionKey) -> Option<usize> {
        self.watch
            .session(shard, key)
            .and_then(|session| self.calls.get(&session))
            .copied()
    }

    fn ask(&mut self, shard: u16, session: SessionKey, body: &str) -> Checked {
        let call = self.call_of(shard, session);
        self.note(call, "   switch -> VCA".to_owned(), body.as_bytes());
        self.watch
            .on_ask(&self.store.ledger, shard, session)
            .map_err(|what| (what, call))?;
        let Some((call, plan)) = call.and_then(|call| Some((call, self.scenario.calls.get(call)?)))
        else {
            return Err(("a VCA request of no call".to_owned(), None));
        };
        let answer = match (site::callflow(call, plan.vca), plan.vca) {
            (Some(callflow), _) => CallflowAnswer::Callflow(callflow),
            (None, VcaAnswer::Invalid) => CallflowAnswer::Invalid("$: no callflow".to_owned()),
            (None, _) => CallflowAnswer::Unreachable("connection refused".to_owned()),
        };
        if let Some(after) = plan.vca_after {
            let input = Box::new(Input::CallflowAnswered { session, answer });
            self.later_in_process(after, Event::Tell(shard, input));
        }
        Ok(())
    }

    fn admit(&mut self, shard: u16, session: SessionKey, side: Side, trunk: TrunkId) {
        let now = self.now;
        let Some(switch) = self.switch.as_mut() else {
            return;
        };
        let result = switch.admission.admit(now, trunk);
        let input = Box::new(Input::Admission {
            session,
            side,
            trunk,
            result,
        });
        self.later_in_process(WITHIN, Event::Tell(shard, input));
    }

    /// What is left when nothing more happens, or too much.
    fn unrest(&self) -> String {
        let mut left = Vec::new();
        for (wire, phone) in &self.phones {
            if !phone.is_idle() {
                left.push(format!("{:?}'s phone of call {}", wire.side, wire.call));
            }
        }
        if let Some(switch) = &self.switch {
            for (at, shard) in switch.shards.iter().enumerate() {
                if !shard.is_idle() {
                    left.push(format!("shard {at} with {} sessions", shard.sessions()));
                }
            }
            for trunk in 0..=self.scenario.calls.len() {
                let places =
                    u16::try_from(trunk).map_or(0, |at| switch.admission.calls(TrunkId(at)));
                if places > 0 {
                    left.push(format!("{places} places of trunk {trunk}"));
                }
            }
            if switch.engine.len() > 0 {
                left.push(format!("ports of {} sessions", switch.engine.len()));
            }
        } else {
            left.push("a dead switch".to_owned());
        }
        let open = self.store.ledger.snapshots.len();
        if open > 0 {
            left.push(format!("{open} snapshots in the store"));
        }
        left.join(", ")
    }

    /// Nothing happens any more: nothing may be left, and every session is told to its end.
    fn check_rest(&self) -> Checked {
        let unrest = self.unrest();
        if !unrest.is_empty() {
            return Err((format!("left at the end: {unrest}"), None));
        }
        for (session, log) in &self.store.ledger.sessions {
            let call = self.calls.get(session).copied();
            if log.summary.is_none() {
                return Err(("a session without a summary".to_owned(), call));
            }
            let report = |side| {
                let phone = call.and_then(|call| self.phones.get(&Wire { call, side }));
                phone.map(Phone::report).unwrap_or_default()
            };
            let plan = call.and_then(|call| self.scenario.calls.get(call));
            let streams_break = plan.is_some_and(|plan| plan.stream_breaks.is_some());
            let seen = checks::Seen {
                caller: report(Side::Caller),
                callee: report(Side::Callee),
                cut_off: self.crashes > 0 || streams_break,
            };
            let shows = call.map(site::virtual_number).unwrap_or_default();
            checks::agreement(log, &seen, &shows).map_err(|what| (what, call))?;
        }
        for (wire, phone) in &self.phones {
            let excused = self.scenario.calls.get(wire.call).is_some_and(|plan| {
                let manners = match wire.side {
                    Side::Caller => plan.caller_manners,
                    Side::Callee => plan.callee_manners,
                };
                // What a stream or a process took with it is not sent again.
                manners.ignores_bye || plan.stream_breaks.is_some() || self.crashes > 0
            });
            if phone.report().patience_ran_out && !excused {
                let what = format!("{:?} had to give up a call that was over", wire.side);
                return Err((what, Some(wire.call)));
            }
        }
        Ok(())
    }

    fn outcome(self) -> Outcome {
        let mut sessions: Vec<SessionLog> = self.store.ledger.sessions.into_values().collect();
        sessions.sort_by(|one, other| one.called.cmp(&other.called));
        let report = |call, side| {
            self.phones
                .get(&Wire { call, side })
                .map(Phone::report)
                .unwrap_or_default()
        };
        let phones = (0..self.scenario.calls.len())
            .map(|call| (report(call, Side::Caller), report(call, Side::Callee)))
            .collect();
        Outcome {
            trace_hash: self.trace.hash(),
            steps: self.step,
            rested_at: self.now.since_start(),
            sessions,
            phones,
            counts: self.counts,
            ladder: self.trace.ladder(None),
        }
    }
}

const fn who(side: Side) -> char {
    match side {
        Side::Caller => 'A',
        Side::Callee => 'B',
    }
}

fn arrow(side: Side, way: Way, label: &str) -> String {
    match (side, way) {
        (Side::Caller, Way::ToSwitch) => format!("A --> switch      {label}"),
        (Side::Caller, Way::ToPhone) => format!("A <-- switch      {label}"),
        (Side::Callee, Way::ToPhone) => format!("      switch --> B {label}"),
        (Side::Callee, Way::ToSwitch) => format!("      switch <-- B {label}"),
    }
}

const fn media_word(event: &MediaEvent) -> &'static str {
    match event {
        MediaEvent::Opened { .. } => "opened",
        MediaEvent::Refused { .. } => "refused",
        MediaEvent::Dtmf { .. } => "key",
        MediaEvent::Silent { .. } => "silence",
        MediaEvent::Closed { .. } => "closed",
    }
}
