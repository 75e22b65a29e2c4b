//! The REGISTERs of trunks: shard 0 sends them, and tells everybody what came of them.

use maskline_media::Tick;
use rand::RngCore;

use super::{Purpose, Shard};
use crate::config::{SwitchConfig, TrunkId};
use crate::credentials::Answers;
use crate::io::Action;
use crate::registration::{Ask, Registration, RegistrationFailure, RegistrationState};
use crate::sip::compose::{self, RequestParts};
use crate::sip::digest::Protected;
use crate::sip::{Challenged, HeaderName, Method, Response, tag};

/// Index of a registration of this shard.
pub(super) type RegistrationId = u16;

/// One trunk's registration and what its messages have in common.
#[derive(Debug)]
pub(super) struct Registering {
    machine: Registration,
    trunk: TrunkId,
    /// The same in every REGISTER of this run (RFC 3261 §10.2.4).
    call_id: String,
    local_tag: String,
    /// The Contact's URI, as last sent.
    contact: String,
    answers: Answers,
    tries: u8,
    told: Option<RegistrationState>,
}

impl Shard {
    /// Every trunk's registration, on the one shard that looks after them.
    pub(super) fn registrations_of(
        config: &SwitchConfig,
        rng: &mut dyn RngCore,
    ) -> Vec<Registering> {
        if config.shard != 0 {
            return Vec::new();
        }
        let trunks = (0..=u16::MAX).zip(config.trunks.iter());
        trunks
            .filter_map(|(at, trunk)| {
                Some(Registering {
                    machine: Registration::new(trunk.registration.clone()?),
                    trunk: TrunkId(at),
                    call_id: tag::new_call_id(rng),
                    local_tag: format!("r{:016x}", rng.next_u64()),
                    contact: String::new(),
                    answers: Answers::default(),
                    tries: 0,
                    told: None,
                })
            })
            .collect()
    }

    pub(super) fn registrations_deadline(&self) -> Option<Tick> {
        let machines = self.registrations.iter().map(|it| &it.machine);
        machines.filter_map(Registration::deadline).min()
    }

    /// Registrations that are being removed.
    pub(super) fn registrations_leaving(&self) -> usize {
        let machines = self.registrations.iter().map(|it| &it.machine);
        machines.filter(|machine| machine.is_leaving()).count()
    }

    /// Whether nothing is left to do for any registration.
    pub(super) fn registrations_over(&self) -> bool {
        self.registrations.iter().all(|it| it.machine.is_over())
    }

    /// Sends what is due, and tells what has changed.
    pub(super) fn run_registrations(&mut self) {
        let tick = self.now.tick;
        for at in 0..=u16::MAX {
            // A registrar that no socket reaches makes the next one due: bounded by their number.
            loop {
                let Some(registering) = self.registrations.get_mut(usize::from(at)) else {
                    return;
                };
                let Some(ask) = registering.machine.on_deadline(tick) else {
                    break;
                };
                registering.tries = 0;
                if self.send_register(at, ask).is_none() {
                    self.on_register_unanswered(at, RegistrationFailure::NoSocket);
                }
            }
            self.tell_registration(at);
        }
    }

    /// Removes every binding.
    pub(super) fn leave_registrars(&mut self) {
        for registering in &mut self.registrations {
            registering.machine.leave(self.now.tick);
        }
    }

    fn tell_registration(&mut self, at: RegistrationId) {
        let Some(registering) = self.registrations.get_mut(usize::from(at)) else {
            return;
        };
        let state = registering.machine.state();
        if registering.told.replace(state) != Some(state) {
            let trunk = registering.trunk;
            self.actions
                .push_back(Action::TrunkRegistered { trunk, state });
        }
    }

    fn send_register(&mut self, at: RegistrationId, ask: Ask) -> Option<()> {
        let branch = self.branch();
        let cnonce = self.cnonce();
        let registering = self.registrations.get_mut(usize::from(at))?;
        let trunk = self.config.trunk(registering.trunk)?;
        let peer = self.config.peer_at(trunk.transport, ask.target)?;
        let sent_by = self.config.sent_by(peer)?;
        let plan = registering.machine.plan();
        registering.contact = sent_by.uri_of(&plan.contact_user);
        let mut extra = vec![
            (HeaderName::Contact, format!("<{}>", registering.contact)),
            (HeaderName::Expires, ask.expires_seconds.to_string()),
        ];
        if let Some(outbound) = &trunk.auth.outbound {
            let protected = Protected {
                method: "REGISTER",
                uri: &plan.registrar,
                body: b"",
            };
            let headers = registering.answers.headers(outbound, &protected, &cnonce);
            extra.extend(headers);
        }
        let register = compose::request(&RequestParts {
            method: Method::Register,
            uri: &plan.registrar,
            routes: &[],
            sent_by,
            branch: &branch,
            from: &format!("<{}>;tag={}", plan.address_of_record, registering.local_tag),
            to: &format!("<{}>", plan.address_of_record),
            call_id: &registering.call_id,
            cseq: ask.cseq,
            sdp: None,
            extra: &extra,
        })?;
        let tries = registering.tries;
        self.transactions
            .send_again(self.now.tick, peer, register, Purpose::Register(at), tries)
            .map(drop)
    }

    /// A final answer; the binding's length is the registrar's to decide.
    pub(super) fn on_register_response(&mut self, at: RegistrationId, response: &Response) {
        let (tick, status) = (self.now.tick, response.status.code());
        let rng = &mut self.rng;
        if let Some(registering) = self.registrations.get_mut(usize::from(at)) {
            let Registering {
                machine, contact, ..
            } = registering;
            if response.status.is_success() {
                machine.on_success(tick, rng, &response.headers, contact);
            } else {
                machine.on_refusal(tick, rng, status, &response.headers);
                self.count("registration_refused");
            }
        }
        self.run_registrations();
    }

    pub(super) fn on_register_unanswered(
        &mut self,
        at: RegistrationId,
        failure: RegistrationFailure,
    ) {
        if let Some(registering) = self.registrations.get_mut(usize::from(at)) {
            // A nonce may be one registrar's own.
            registering.answers = Answers::default();
            registering
                .machine
                .on_unanswered(self.now.tick, &mut self.rng, failure);
        }
    }

    /// The registrar asks for credentials. `false`: it can't be answered.
    pub(super) fn register_again(
        &mut self,
        at: RegistrationId,
        response: &Response,
        challenged: &Challenged,
    ) -> bool {
        let trunk = self.registrations.get(usize::from(at)).map(|it| it.trunk);
        let trunk = trunk.and_then(|trunk| self.config.trunk(trunk));
        let outbound = trunk.and_then(|trunk| trunk.auth.outbound.clone());
        let Some(answers) = self.take_challenges(outbound.as_ref(), response, challenged) else {
            return false;
        };
        let Some(registering) = self.registrations.get_mut(usize::from(at)) else {
            return false;
        };
        registering.answers = answers;
        registering.tries = challenged.tries.saturating_add(1);
        let ask = registering.machine.ask();
        ask.and_then(|ask| self.send_register(at, ask)).is_some()
    }
}
