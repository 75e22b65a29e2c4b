//! One shard: all decisions about its calls, driven by `handle / poll / deadline`.
//!
//! Each file below holds one part of a call's life; this one holds what they share: the tables,
//! timers and gates.

mod adopting;
mod answering;
mod arriving;
mod attempts;
mod calling;
mod challenged;
mod challenging;
mod early_dialogs;
mod early_media;
mod ended;
mod ending;
mod in_dialog;
mod modify;
mod presses;
mod probing;
mod provisional;
mod reading;
mod record;
mod registering;
mod repeated;
mod reviving;
mod session_timer;
mod tracing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maskline_events::Timestamp;
use maskline_media::{MediaEvent, Side, Tick};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::config::{SwitchConfig, TrunkId};
use crate::directory::Directory;
use crate::dispatch::Arrival;
use crate::doorkeeper::Doorkeeper;
use crate::io::{Action, CommitId, Input, Now, SessionKey};
use crate::probing::Prober;
use crate::registration::RegistrationFailure;
use crate::session::{CallerInvite, Media, Session, SessionTimer, Stage};
use crate::sip::compose::SentBy;
use crate::sip::large::Large;
use crate::sip::{
    HeaderName, Message, Method, Peer, Request, Response, Transactions, TxId, Upcall, compose, tag,
};
use crate::targets::{TargetKey, TrunkTargets};
use crate::trace::Step;

use registering::{Registering, RegistrationId};
use reviving::Heard;

/// What one of our requests is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The call to B: which of its attempts.
    Invite(SessionKey, u8),
    /// OPTIONS to a trunk's address: which question.
    Probe(u64),
    /// Ending A's dialog of an adopted call, which A may not know.
    AdoptedBye(SessionKey),
    /// A trunk's registration.
    Register(RegistrationId),
    /// Whether a party of an adopted call is still there.
    StillThere(SessionKey, Side),
    /// A re-INVITE or UPDATE of ours on one side.
    Modify {
        /// Whose.
        session: SessionKey,
        /// On which side.
        side: Side,
        /// Its `CSeq` number.
        cseq: u32,
    },
    /// Ending a dialog, or a CANCEL: no answer changes anything.
    Farewell,
    /// A PRACK or INFO: no answer changes anything, and nothing waits for one.
    Aside,
}

/// What waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gated {
    /// The VCA request.
    AskCallflow,
    /// B's INVITE.
    InviteCallee,
    /// A's 200.
    AnswerCaller,
    /// The BYE to this side.
    Bye(Side),
}

/// One shard of the switch.
pub struct Shard {
    config: SwitchConfig,
    rng: ChaCha12Rng,
    directory: Arc<Directory>,
    /// Where each trunk can be reached.
    targets: Arc<TrunkTargets>,
    /// Addresses that are tried after all others, until when.
    shunned: BTreeMap<TargetKey, Tick>,
    /// Addresses that do not answer OPTIONS.
    down: Arc<BTreeSet<TargetKey>>,
    /// Who asks them; of the first shard only.
    prober: Prober,
    transactions: Transactions<Purpose>,
    /// Boxed: one is taken out for each step and put back.
    sessions: BTreeMap<SessionKey, Box<Session>>,
    /// A's unanswered INVITEs, for their CANCELs.
    invites: BTreeMap<TxId, SessionKey>,
    /// INVITEs of adopted callers that may still wait for an answer.
    adopted: BTreeMap<SessionKey, CallerInvite>,
    ended: ended::EndedDialogs,
    doorkeeper: Doorkeeper,
    registrations: Vec<Registering>,
    taken: repeated::TakenInvites,
    /// BYEs and CANCELs of ours that have no final answer yet.
    farewells: usize,
    timers: BTreeMap<(Tick, u64), (SessionKey, SessionTimer)>,
    gates: BTreeMap<CommitId, Vec<(SessionKey, Gated)>>,
    next_commit: CommitId,
    next_slot: u64,
    journal_down: bool,
    draining: bool,
    actions: VecDeque<Action>,
    now: Now,
    /// The trunk of the message that is being handled.
    arriving_by: TrunkId,
    book: tracing::Book,
}

impl Shard {
    /// An idle shard. `seed` feeds every tag, branch and id that it makes; in production it comes
    /// from the operating system and is never used twice.
    #[must_use]
    pub fn new(config: SwitchConfig, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let registrations = Self::registrations_of(&config, &mut rng);
        let mut transactions = Transactions::new(config.timers, config.max_transactions);
        transactions.set_large(Large::new(&config.listeners));
        Self {
            transactions,
            rng,
            doorkeeper: Doorkeeper::new(nonce_key),
            registrations,
            targets: Arc::new(TrunkTargets::configured(&config.trunks)),
            shunned: BTreeMap::new(),
            down: Arc::default(),
            prober: Prober::default(),
            config,
            directory: Arc::default(),
            sessions: BTreeMap::new(),
            invites: BTreeMap::new(),
            adopted: BTreeMap::new(),
            ended: ended::EndedDialogs::default(),
            taken: repeated::TakenInvites::default(),
            farewells: 0,
            timers: BTreeMap::new(),
            gates: BTreeMap::new(),
            next_commit: 0,
            next_slot: 0,
            journal_down: false,
            draining: false,
            actions: VecDeque::new(),
            now: Now {
                tick: Tick::ZERO,
                wall: Timestamp::from_unix_ms(0),
            },
            arriving_by: TrunkId(0),
            book: tracing::Book::default(),
        }
    }

    /// Takes one input; infallible, bounded work. Drain [`Self::poll`] after it.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::MessageArrived(arrival) => self.on_arrival(*arrival),
            Input::TransportFailed(peer) => {
                self.transactions.on_transport_failed(now.tick, peer);
            }
            Input::Committed(ids) => self.on_committed(&ids),
            Input::CommitsRejected(ids) => self.on_rejected(&ids),
            Input::JournalDown(down) => self.journal_down = down,
            Input::CallflowAnswered { session, answer } => {
                self.with(session, |shard, s| shard.on_callflow(s, answer));
            }
            Input::Admission {
                session,
                side,
                trunk,
                result,
            } => self.on_admission(session, side, trunk, result),
            Input::Media(event) => self.on_media(event),
            Input::DirectoryChanged(directory) => self.directory = directory,
            Input::TrunkTargets(targets) => {
                self.targets = targets;
                self.supervise_targets();
            }
            // The first shard is where it comes from.
            Input::TargetsDown(_) if self.config.shard == 0 => {}
            Input::TargetsDown(down) => self.down = down,
            Input::SessionFound { snapshot, away } => self.adopt(&snapshot, away),
            Input::DrainStarted => self.draining = true,
            Input::DrainEnded => {
                self.end_all();
                self.leave_registrars();
                self.stop_probing();
            }
            Input::DeadlineReached => {}
        }
        self.run_timers();
        self.hear_transactions();
    }

    /// The next thing to do; `None` when everything was said.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle`] with [`Input::DeadlineReached`], unless something else comes
    /// first.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let session = self.timers.keys().next().map(|(at, _)| *at);
        let deadlines = [
            session,
            self.transactions.deadline(),
            self.ended.deadline(),
            self.registrations_deadline(),
            self.taken.deadline(),
            self.prober.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What is not over, for the drain and the gauges: sessions, those that are summarised while
    /// their SIP is being finished among them, and BYEs and CANCELs that are not answered yet.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len() + self.farewells + self.registrations_leaving()
    }

    /// Whether nothing at all is left: no session, no transaction, no timer, no gate.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.transactions.is_empty()
            && self.timers.is_empty()
            && self.gates.is_empty()
            && self.invites.is_empty()
            && self.adopted.is_empty()
            && self.ended.is_empty()
            && self.registrations_over()
            && self.taken.is_empty()
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        self.arriving_by = arrival.trunk;
        self.trace_arrival(&arrival);
        if self.is_silenced(&arrival) {
            self.count("auth_silenced");
            return;
        }
        let of_call = match &arrival.message {
            Message::Request(request) => self.is_of_call(request),
            Message::Response(_) => false,
        };
        if !self
            .transactions
            .receive(self.now.tick, arrival.peer, arrival.message, of_call)
        {
            self.count("transactions_full");
        }
    }

    /// Whether a request is within a dialog that is up, or gives up a call that is not answered yet.
    fn is_of_call(&self, request: &Request) -> bool {
        if request.method == Method::Cancel {
            let invite = self.transactions.invite_of(request);
            return invite.is_some_and(|invite| self.invites.contains_key(&invite));
        }
        self.dialog_of(request).is_some()
    }

    /// Handles what the transactions have to say and puts their messages into the actions.
    fn hear_transactions(&mut self) {
        while let Some(upcall) = self.transactions.poll_upcall() {
            match upcall {
                Upcall::Request { tx, request, peer } => self.on_request(tx, request, peer),
                Upcall::Ack(ack) => self.on_ack(&ack),
                Upcall::Response { owner, response } => self.on_response(owner, &response),
                Upcall::Challenged {
                    owner,
                    response,
                    challenged,
                } => {
                    if !self.answer_challenge(owner, &response, &challenged) {
                        self.on_response(owner, &response);
                    }
                }
                Upcall::Stray(response) => self.on_stray(&response),
                Upcall::Unanswered { owner, failed } => match owner {
                    Purpose::StillThere(key, side) => {
                        let heard = if failed {
                            Heard::Nowhere
                        } else {
                            Heard::Nothing
                        };
                        self.with(key, |shard, s| shard.on_probed(s, side, heard));
                    }
                    Purpose::Invite(key, attempt) => {
                        self.with(key, |shard, s| shard.on_attempt_unanswered(s, attempt));
                    }
                    Purpose::Modify {
                        session,
                        side,
                        cseq,
                    } => self.with(session, |shard, s| {
                        shard.on_own_unanswered(s, side, cseq, failed);
                    }),
                    Purpose::Probe(question) => self.on_probe_answered(question, None),
                    Purpose::AdoptedBye(key) => {
                        self.farewells -= 1;
                        self.on_adopted_bye(key, None);
                    }
                    Purpose::Register(at) => {
                        self.count("registration_unanswered");
                        self.on_register_unanswered(at, RegistrationFailure::Unanswered);
                        self.run_registrations();
                    }
                    Purpose::Farewell => {
                        self.farewells -= 1;
                        self.count("farewell_unanswered");
                    }
                    Purpose::Aside => self.count("aside_unanswered"),
                },
            }
        }
        while let Some((peer, bytes)) = self.transactions.poll_outgoing() {
            self.put_on_wire(peer, bytes);
        }
    }

    fn put_on_wire(&mut self, peer: Peer, bytes: Bytes) {
        self.trace_sending(peer, &bytes);
        self.actions.push_back(Action::Send { peer, bytes });
    }

    fn on_response(&mut self, owner: Purpose, response: &Response) {
        let status = response.status.code();
        match owner {
            Purpose::Invite(key, attempt) => {
                self.with(key, |shard, s| {
                    shard.on_attempt_response(s, attempt, response)
                });
            }
            Purpose::Modify {
                session,
                side,
                cseq,
            } => self.with(session, |shard, s| {
                shard.on_own_response(s, side, cseq, response);
            }),
            Purpose::Probe(_)
            | Purpose::AdoptedBye(_)
            | Purpose::Register(_)
            | Purpose::StillThere(..)
            | Purpose::Farewell
                if status < 200 => {}
            Purpose::Probe(question) => self.on_probe_answered(question, Some(status)),
            Purpose::StillThere(key, side) => {
                let heard = Heard::Status(status);
                self.with(key, |shard, s| shard.on_probed(s, side, heard));
            }
            Purpose::Register(at) => self.on_register_response(at, response),
            Purpose::Aside if status < 300 => {}
            Purpose::Aside => self.count("aside_refused"),
            Purpose::AdoptedBye(key) => {
                self.farewells -= 1;
                self.on_adopted_bye(key, Some(status));
            }
            Purpose::Farewell => self.farewells -= 1,
        }
    }

    fn on_committed(&mut self, ids: &[CommitId]) {
        for id in ids {
            for (key, gated) in self.gates.remove(id).unwrap_or_default() {
                self.with(key, |shard, s| {
                    s.gates -= 1;
                    let what = tracing::gate_name(gated).into();
                    shard.trace_step(s, Step::Goes { what });
                    match gated {
                        Gated::AskCallflow => shard.ask_callflow(s),
                        Gated::InviteCallee => shard.send_invite(s),
                        Gated::AnswerCaller => shard.answer_caller(s),
                        Gated::Bye(side) => shard.open_bye_gate(s, side),
                    }
                });
            }
        }
    }

    /// A session whose story can't be written down does not go on.
    fn on_rejected(&mut self, ids: &[CommitId]) {
        for id in ids {
            self.count("commit_rejected");
            for (key, gated) in self.gates.remove(id).unwrap_or_default() {
                self.with(key, |shard, s| {
                    s.gates -= 1;
                    shard.trace_note(s, "the journal refused an event");
                    match gated {
                        Gated::AskCallflow | Gated::InviteCallee => {
                            shard.end_now(s, "an event could not be stored");
                        }
                        Gated::AnswerCaller => {
                            shard.end_now(s, "an event could not be stored");
                            // A's 200 never leaves, so there is no dialog to end.
                            s.caller.owed_bye = None;
                            shard.refuse_caller(s, 500, &[]);
                        }
                        Gated::Bye(side) => shard.open_bye_gate(s, side),
                    }
                });
            }
        }
    }

    /// The id of the session that this is the key of.
    #[must_use]
    pub fn session_id(&self, key: SessionKey) -> Option<uuid::Uuid> {
        self.sessions.get(&key).map(|session| session.id)
    }

    fn on_media(&mut self, event: MediaEvent) {
        let key = event.key().id;
        match event {
            MediaEvent::Opened {
                key: media,
                caller_port,
                callee_port,
                address,
            } => {
                if self.sessions.contains_key(&key) {
                    self.with(key, |shard, s| {
                        s.media_address = address;
                        shard.on_media_opened(s, caller_port, callee_port);
                    });
                } else {
                    self.close_media(media);
                }
            }
            MediaEvent::Refused { .. } => self.with(key, |shard, s| match s.media {
                Media::Resuming { .. } => shard.on_resume_refused(s),
                Media::None | Media::Opening | Media::Open { .. } | Media::Closing => {
                    shard.on_media_refused(s);
                }
            }),
            MediaEvent::Dtmf { side, digit, .. } => {
                self.with(key, |shard, s| shard.on_dtmf(s, side, digit));
            }
            MediaEvent::NotInRtp { side, digit, .. } => {
                self.with(key, |shard, s| shard.pass_on_press(s, side, digit));
            }
            // No action that plays anything is carried out as yet.
            MediaEvent::Played { .. } => {}
            MediaEvent::Silent { side, .. } => {
                self.with(key, |shard, s| shard.on_silence(s, side));
            }
            MediaEvent::OneWay { side, fault, .. } => {
                self.with(key, |shard, s| shard.on_one_way(s, side, fault));
            }
            MediaEvent::Closed { caller, callee, .. } => self.with(key, |shard, s| {
                s.quality = (caller, callee);
                if s.stage == Stage::Closing {
                    shard.summarise(s);
                }
            }),
        }
    }

    /// Runs a step on a session, and forgets the session when nothing of it is left.
    fn with(&mut self, key: SessionKey, step: impl FnOnce(&mut Self, &mut Session)) {
        let Some(mut session) = self.sessions.remove(&key) else {
            return;
        };
        step(self, &mut session);
        if session.stage == Stage::Summarised && !session.owes_sip() {
            self.forget(session);
        } else {
            self.sessions.insert(key, session);
        }
    }

    fn run_timers(&mut self) {
        let tick = self.now.tick;
        self.transactions.on_deadline(tick);
        self.ended.on_deadline(tick);
        self.run_registrations();
        self.taken.on_deadline(tick);
        self.probe();
        self.trace_expire();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > tick {
                return;
            }
            let (key, timer) = entry.remove();
            self.with(key, |shard, s| {
                s.timers.remove(&timer);
                let name = tracing::timer_name(timer).into();
                shard.trace_step(s, Step::Timer { timer: name });
                match timer {
                    SessionTimer::CallflowGuard => shard.on_callflow_lost(s),
                    SessionTimer::MediaGuard => shard.on_media_refused(s),
                    SessionTimer::NoAnswer => shard.on_no_answer(s),
                    SessionTimer::MaxDuration => shard.on_max_duration(s),
                    SessionTimer::Resend(side) => shard.on_resend(s, side),
                    SessionTimer::Modify(side) => shard.on_modify_timer(s, side),
                    SessionTimer::Refresh(side) => shard.on_refresh_due(s, side),
                    SessionTimer::Expiry(side) => shard.on_session_expired(s, side),
                    SessionTimer::ResendProvisional => shard.on_resend_provisional(s),
                    SessionTimer::ByeGate => {
                        shard.open_bye_gate(s, Side::Caller);
                        shard.open_bye_gate(s, Side::Callee);
                    }
                    SessionTimer::CancelGuard => shard.on_cancel_guard(s),
                    SessionTimer::TrunkSilence => shard.on_trunk_silence(s),
                    SessionTimer::AbandonGuard(attempt) => shard.on_abandon_guard(s, attempt),
                    SessionTimer::SummaryGuard => shard.summarise(s),
                }
            });
        }
    }

    fn set_timer(&mut self, s: &mut Session, timer: SessionTimer, after: Duration) {
        self.clear_timer(s, timer);
        self.next_slot += 1;
        let slot = (self.now.tick + after, self.next_slot);
        self.timers.insert(slot, (s.key, timer));
        s.timers.insert(timer, slot);
    }

    fn clear_timer(&mut self, s: &mut Session, timer: SessionTimer) {
        if let Some(slot) = s.timers.remove(&timer) {
            self.timers.remove(&slot);
        }
    }

    fn gate(&mut self, s: &mut Session, commit: CommitId, gated: Gated) {
        s.gates += 1;
        let what = tracing::gate_name(gated).into();
        self.trace_step(s, Step::Waits { what });
        self.gates.entry(commit).or_default().push((s.key, gated));
    }

    /// Sends a BYE or CANCEL; until its final answer the shard is not idle.
    fn say_farewell(&mut self, peer: Peer, request: Request, purpose: Purpose) -> Option<TxId> {
        let sent = self
            .transactions
            .send_request(self.now.tick, peer, request, purpose);
        self.farewells += usize::from(sent.is_some());
        sent
    }

    fn respond(
        &mut self,
        tx: TxId,
        request: &Request,
        status: u16,
        local_tag: Option<&str>,
        extra: &[(HeaderName, String)],
    ) {
        if let Some(response) = compose::response(request, status, local_tag, extra, None) {
            self.transactions.respond(self.now.tick, tx, response);
        }
    }

    /// Refuses a request that belongs to no session, with a tag that is nobody's.
    fn refuse(&mut self, tx: TxId, request: &Request, status: u16, extra: &[(HeaderName, String)]) {
        let tag = format!("{:016x}", self.rng.next_u64());
        self.respond(tx, request, status, Some(&tag), extra);
    }

    fn sent_by(&self, peer: Peer) -> SentBy {
        self.config
            .sent_by(peer)
            .cloned()
            .unwrap_or_else(|| SentBy {
                host_port: "invalid.invalid".to_owned(),
                transport: peer.transport,
            })
    }

    fn branch(&mut self) -> String {
        tag::new_branch(self.config.shard, &mut self.rng)
    }

    fn count(&mut self, reason: &'static str) {
        self.actions.push_back(Action::Count(reason));
    }

    fn close_media(&mut self, key: maskline_media::MediaKey) {
        self.actions
            .push_back(Action::Media(maskline_media::MediaCommand::Close { key }));
    }

    /// Drops a session's last traces.
    fn forget(&mut self, s: Box<Session>) {
        for slot in s.timers.values() {
            self.timers.remove(slot);
        }
        if s.snapshot_kept {
            self.save_as_over(&s);
        }
        let lingers = self.config.timers.timeout();
        self.ended.remember(&s, self.now.tick + lingers);
        self.trace_gone(s.key, self.now.tick + lingers);
        if let Some(tx) = s.invite {
            self.invites.remove(&tx);
        }
        for (_, trunk) in s.places {
            self.actions.push_back(Action::Release { trunk });
        }
        if matches!(s.media, Media::Open { .. }) {
            self.close_media(maskline_media::MediaKey {
                shard: self.config.shard,
                id: s.key,
            });
        }
    }
}
