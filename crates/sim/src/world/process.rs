//! The switch's process in the run: its start and its death, and what its shards want done.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use maskline_events::{CallStatus, Timestamp};
use maskline_media::{CalleeMedia, CallerMedia, MediaCommand, Side};
use maskline_phone::PhoneInput;
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::trace::{Direction, TraceEvent};
use maskline_switch::{
    Action, Admission, Arrival, CallflowAnswer, CommitId, Dispatcher, Input, Now, SessionKey,
    Shard, TrunkId, Verdict,
};
use rand::RngCore;

use super::{Checked, EPOCH_MS, Event, Switch, WITHIN, World, arrow, who};
use crate::engine::{Engine, in_reach};
use crate::ledger::{Content, Entry, side_of};
use crate::network::{Way, Wire};
use crate::queue::{Offered, Queues};
use crate::scenario::{Sabotage, VcaAnswer};
use crate::store::Attempt;
use crate::wire::{Glance, Kind};
use crate::{checks, numbering, parameters, site};

impl World<'_> {
    /// A process begins, with what the store kept of the one before.
    pub(super) fn start(&mut self) -> Checked {
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
        let mut dispatcher = Dispatcher::new(trunks.clone(), self.scenario.shards);
        dispatcher.set_targets(site::targets(self.scenario, &trunks));
        self.switch = Some(Switch {
            shards,
            dispatcher,
            admission: Admission::new(&trunks),
            engine: Engine::default(),
            queues: self
                .scenario
                .queue
                .map(|plan| Queues::new(plan, self.scenario.shards)),
        });
        self.note(None, "=== the switch starts".to_owned(), &[]);
        for shard in 0..self.scenario.shards {
            let targets = site::targets(self.scenario, &trunks);
            self.shard(shard, Input::TrunkTargets(targets))?;
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
            let away = Some(self.now.since(self.died));
            if !checks::may_go_on(&snapshot) || away > Some(self.scenario.adopt_within) {
                self.watch.adopted(session);
            }
            let owner = self
                .switch
                .as_ref()
                .map(|switch| switch.dispatcher.shard(carried));
            if let Some(shard) = owner {
                self.shard(shard, Input::SessionFound { snapshot, away })?;
            }
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, last_commit_survives: bool) -> Checked {
        self.note(None, "=== the switch dies".to_owned(), &[]);
        self.process += 1;
        self.died = self.now;
        self.switch = None;
        self.store
            .crash(last_commit_survives)
            .map_err(|what| (what, None))?;
        for wire in self.phones.keys().copied().collect::<Vec<_>>() {
            self.break_stream(wire)?;
        }
        Ok(())
    }

    pub(super) fn arrive_at_switch(
        &mut self,
        wire: Wire,
        transport: Transport,
        bytes: &Bytes,
    ) -> Checked {
        if self.switch.is_none() {
            if transport.is_stream() {
                self.network.break_stream(wire);
                let peer = site::switch_as_peer(transport);
                return self.phone(wire, PhoneInput::TransportFailed(peer));
            }
            return Ok(());
        }
        let Some(switch) = self.switch.as_ref() else {
            return Ok(());
        };
        let peer = site::phone_as_peer(site::wire_address(wire), transport);
        let verdict = match transport {
            Transport::Udp => switch.dispatcher.datagram(peer, bytes),
            Transport::Tcp | Transport::Tls => switch.dispatcher.frame(peer, None, bytes.clone()),
        };
        match verdict {
            Verdict::Deliver { shard, arrival } => self.deliver(wire, shard, arrival),
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

    fn deliver(&mut self, wire: Wire, shard: u16, arrival: Box<Arrival>) -> Checked {
        let peer = arrival.peer;
        let Some(queues) = self.switch.as_mut().and_then(|it| it.queues.as_mut()) else {
            return self.hand_over(wire, shard, arrival);
        };
        match queues.offer(shard, wire, arrival) {
            Offered::Waits { begins } => {
                let service = queues.service();
                if begins {
                    self.later_in_process(service, Event::Serve(shard));
                }
                Ok(())
            }
            Offered::Refused { response, reason } => {
                self.count(reason);
                checks::overload_refusal(&String::from_utf8_lossy(&response))
                    .map_err(|what| (what, Some(wire.call)))?;
                self.refused.insert((self.process, wire.call));
                self.send(peer, response)
            }
            Offered::Lost => {
                self.count("queue_overflow");
                Ok(())
            }
        }
    }

    pub(super) fn serve(&mut self, shard: u16) -> Checked {
        let Some(queues) = self.switch.as_mut().and_then(|it| it.queues.as_mut()) else {
            return Ok(());
        };
        let service = queues.service();
        match queues.serve(shard) {
            Some(((wire, arrival), goes_on)) => {
                if goes_on {
                    self.later_in_process(service, Event::Serve(shard));
                }
                self.hand_over(wire, shard, arrival)
            }
            None => Ok(()),
        }
    }

    fn hand_over(&mut self, wire: Wire, shard: u16, arrival: Box<Arrival>) -> Checked {
        let text = String::from_utf8_lossy(&arrival.raw);
        self.watch.on_arrival(self.now, wire, &Glance::at(&text));
        self.traces
            .on_wire(self.now, wire.call, Direction::In, wire.side, &arrival.raw);
        self.shard(shard, Input::MessageArrived(arrival))
    }

    pub(super) fn shard(&mut self, at: u16, input: Input) -> Checked {
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

    pub(super) fn shard_mut(&mut self, at: u16) -> Option<&mut Shard> {
        self.switch.as_mut()?.shards.get_mut(usize::from(at))
    }

    pub(super) fn perform(&mut self, shard: u16, action: Action) -> Checked {
        match action {
            Action::Send { peer, bytes } => self.send(peer, bytes),
            Action::Commit { id, record } => {
                let record = parameters::sabotaged(record, self.scenario.sabotage);
                let bodies = numbering::bodies(&record);
                let entry = Entry::read(record).map_err(|what| (what, None))?;
                self.commit(shard, id, entry, &bodies)
            }
            Action::AskCallflow { session, body, .. } => {
                parameters::check_request(&body).map_err(|what| (what, None))?;
                self.ask(shard, session, &body)
            }
            Action::Admit {
                session,
                side,
                trunk,
                source,
            } => {
                self.admit(shard, session, side, trunk, source);
                Ok(())
            }
            Action::Occupy { trunk } => {
                if let Some(switch) = self.switch.as_mut() {
                    switch.admission.occupy(trunk);
                }
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
            Action::TargetsDown(down) => {
                for shard in 0..self.scenario.shards {
                    let input = Box::new(Input::TargetsDown(std::sync::Arc::clone(&down)));
                    self.later_in_process(WITHIN, Event::Tell(shard, input));
                }
                Ok(())
            }
            Action::Media(command) => {
                let call = self.call_of(shard, command.key().id);
                let plan = call.and_then(|call| self.scenario.calls.get(call));
                if let Some(order) = media_order(&command) {
                    self.note(call, order, &[]);
                }
                in_reach(&command, self.scenario.both_families).map_err(|what| (what, call))?;
                self.watch
                    .on_media(&self.store.ledger, shard, &command)
                    .map_err(|what| (what, call))?;
                let Some(switch) = self.switch.as_mut() else {
                    return Ok(());
                };
                let events = switch
                    .engine
                    .carry_out(&mut self.rng, self.now, command, plan);
                for (side, digit) in switch.engine.take_passed() {
                    let order = format!("   relay: {digit} of {} reaches the other", who(side));
                    self.note(call, order, &[]);
                }
                for (after, event) in events.map_err(|what| (what, call))? {
                    self.later_in_process(after, Event::Media(event));
                }
                Ok(())
            }
            Action::TrunkRegistered { state, .. } => {
                self.note(None, format!("   registration: {state:?}"), &[]);
                Ok(())
            }
            Action::Count(reason) => {
                self.count(reason);
                Ok(())
            }
            Action::Trace(entry) => {
                let lost = self.scenario.sabotage == Sabotage::LoseTrace;
                let of_callee = |it: &TraceEvent| matches!(it, TraceEvent::Message(it) if it.side == Side::Callee);
                if !(lost && of_callee(&entry.what)) {
                    self.traces.on_entry(*entry);
                }
                Ok(())
            }
            Action::Warn { session_id, text } => {
                let call = self.calls.get(&session_id).copied();
                self.note(call, format!("   warning: {text}"), &[]);
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

    pub(super) fn send(&mut self, peer: Peer, bytes: Bytes) -> Checked {
        let Some(wire) = self.wires.get(&peer.addr).copied() else {
            return Err(("a message to a stranger".to_owned(), None));
        };
        let call = Some(wire.call);
        let mut bytes = bytes;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let glance = Glance::at(&text);
        self.note(call, arrow(wire, Way::ToPhone, &glance.label()), &bytes);
        self.traces
            .on_wire(self.now, wire.call, Direction::Out, wire.side, &bytes);
        self.watch
            .on_send(self.now, wire, &self.store.ledger, &glance)
            .map_err(|what| (what, call))?;
        let sabotage = self.scenario.sabotage;
        if sabotage == Sabotage::SwallowByes && glance.kind == Kind::Request("BYE") {
            return Ok(());
        }
        if sabotage == Sabotage::LeakCallerName && glance.kind == Kind::Request("INVITE") {
            let name = site::display_name(wire.call);
            bytes = Bytes::from(text.replacen("\r\n", &format!("\r\nSubject: {name}\r\n"), 1));
        }
        if wire.call >= site::REGISTRARS {
            self.carry(Way::ToPhone, wire, peer.transport, &bytes);
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        checks::privacy(wire.call, wire.side, &text).map_err(|what| (what, call))?;
        self.carry(Way::ToPhone, wire, peer.transport, &bytes);
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        shard: u16,
        id: CommitId,
        entry: Entry,
        bodies: &[u8],
    ) -> Checked {
        for event in &entry.events {
            if let Content::Status(payload) = &event.content {
                if payload.call_status == CallStatus::CallReceived {
                    let number = payload.destination.as_str();
                    let call = (0..self.scenario.calls.len())
                        .find(|call| site::virtual_number(*call) == number);
                    if let Some(call) = call {
                        self.calls.insert(entry.session_id, call);
                        self.begun.insert((self.process, call));
                    }
                }
                let leg = who(side_of(payload));
                let call = self.calls.get(&entry.session_id).copied();
                let plan = call.and_then(|call| self.scenario.calls.get(call));
                if let (Some(call), Some(plan), 'A') = (call, plan, leg) {
                    numbering::told_of_caller(call, plan, &payload.source, bodies)
                        .and_then(|()| match &entry.snapshot {
                            Some(snapshot) => numbering::kept(call, plan, snapshot),
                            None => Ok(()),
                        })
                        .map_err(|what| (what, Some(call)))?;
                }
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

    pub(super) fn store_attempt(&mut self) -> Checked {
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
                rejected,
                recovered,
            } => {
                if let Some((shard, id)) = rejected {
                    self.note(None, "=== the store rejects a commit".to_owned(), &[]);
                    let input = Box::new(Input::CommitsRejected(vec![id]));
                    self.later_in_process(WITHIN, Event::Tell(shard, input));
                }
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

    pub(super) fn tell_all(&mut self, down: bool) {
        for shard in 0..self.scenario.shards {
            let input = Box::new(Input::JournalDown(down));
            self.later_in_process(WITHIN, Event::Tell(shard, input));
        }
    }

    pub(super) fn ask(&mut self, shard: u16, session: SessionKey, body: &str) -> Checked {
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

    pub(super) fn admit(
        &mut self,
        shard: u16,
        session: SessionKey,
        side: Side,
        trunk: TrunkId,
        source: Option<IpAddr>,
    ) {
        let now = self.now;
        let Some(switch) = self.switch.as_mut() else {
            return;
        };
        let result = switch.admission.admit(now, trunk, side, source);
        let input = Box::new(Input::Admission {
            session,
            side,
            trunk,
            result,
        });
        self.later_in_process(WITHIN, Event::Tell(shard, input));
    }
}

/// What the relay is told of a party.
fn media_order(command: &MediaCommand) -> Option<String> {
    let (who, media) = match command {
        MediaCommand::ProgramCaller {
            media: CallerMedia(media),
            ..
        } => ('A', media),
        MediaCommand::ProgramCallee {
            media: CalleeMedia(media),
            ..
        } => ('B', media),
        MediaCommand::Press {
            side, digit, play, ..
        } => {
            let who = match side {
                Side::Caller => 'A',
                Side::Callee => 'B',
            };
            let how = if *play { "is played" } else { "came by INFO" };
            return Some(format!("   relay: {digit} of {who} {how}"));
        }
        MediaCommand::Open { .. }
        | MediaCommand::Resume { .. }
        | MediaCommand::Play { .. }
        | MediaCommand::StopPlaying { .. }
        | MediaCommand::Close { .. } => return None,
    };
    let hears = if media.receives {
        "hears"
    } else {
        "does not hear"
    };
    let holds = if media.holds { " and holds" } else { "" };
    Some(format!("   relay: {who} at {} {hears}{holds}", media.rtp))
}
