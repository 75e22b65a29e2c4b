//! The phone itself: what all parts of its call share. Each file beside this one holds one part.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use maskline_media::Tick;
use maskline_switch::sdp::{Direction, MediaDescription};
use maskline_switch::sip::{
    HeaderName, Message, Method, Peer, Request, Response, Transactions, Transport, TxId, Upcall,
    compose, view, wire,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::audio::{Listener, PACKET_INTERVAL, Speaker};
use crate::changing::{Stance, What};
use crate::dialog::{Dialog, Standing};
use crate::digest::Asked;
use crate::early::{Early, Unpracked};
use crate::io::{PhoneAction, PhoneEvent, PhoneInput, Report};
use crate::plan::{Outcome, Part, PhoneConfig};
use crate::speech::Named;
use crate::timer::Running;

/// Most transactions of one phone.
const MAX_TRANSACTIONS: usize = 64;

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Invite,
    Cancel,
    /// In this dialog.
    Change(usize),
    /// Of this dialog.
    Bye(usize),
    /// A refresh of the session.
    Refresh,
    /// An UPDATE before the answer.
    EarlyUpdate,
    /// A PRACK or INFO, whose answer changes nothing.
    Aside,
    /// An INVITE that is no new call.
    Copy,
}

/// Where the call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Nothing happened yet.
    New,
    /// Our INVITE is out.
    Calling(Calling),
    /// An INVITE waits for our decision.
    Called(TxId),
    /// A 2xx was given or taken.
    Talking,
    /// Nothing more will come of it.
    Over,
}

/// A caller's INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calling {
    pub(crate) tx: TxId,
    /// Whether any 1xx came.
    pub(crate) provisional: bool,
    /// Whether the user gave up.
    pub(crate) given_up: bool,
    /// Whether the CANCEL is out.
    pub(crate) cancelled: bool,
}

/// What a phone waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    Ring,
    Decide,
    /// A 2xx of this dialog is sent again.
    Resend(usize),
    /// Media is described before the answer.
    Announce,
    /// A reliable provisional is sent again.
    Provisional,
    /// The session is to be refreshed.
    Refresh,
    /// Nobody refreshed the session.
    Expire,
    HangUp,
    Patience,
    /// No final answer came to a cancelled INVITE.
    Abandon,
    /// This dialog is over, and its re-INVITE has no final answer.
    Unanswered(usize),
    /// A change met one of the far end.
    AskAgain(usize),
    /// The user thinks better of a change.
    CancelChange(usize),
    /// The next 20 ms of audio.
    Packet,
}

/// A SIP phone; see the crate's documentation.
#[derive(Debug)]
pub struct Phone {
    pub(crate) config: PhoneConfig,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) transactions: Transactions<Purpose>,
    pub(crate) call: Call,
    /// The INVITE, sent or received, while its transaction lives.
    pub(crate) invite: Option<TxId>,
    /// The `CSeq` number of the INVITE that we sent last.
    pub(crate) invite_cseq: u32,
    pub(crate) asked: Asked,
    pub(crate) dialogs: Vec<Dialog>,
    /// The branch of each request within a dialog that is up, by both tags and its number.
    numbers: BTreeMap<(String, String, u32), String>,
    pub(crate) early: Vec<Early>,
    pub(crate) unpracked: Option<Unpracked>,
    pub(crate) timer: Option<Running>,
    /// Whether our reliable 180 carried our description.
    pub(crate) answered_early: bool,
    /// Whether a 183 carried our description, and no 2xx came after it.
    pub(crate) announced: bool,
    pub(crate) picks_up_when_pracked: bool,
    /// The user hung up before the ACK came.
    pub(crate) leaves_when_acknowledged: bool,
    /// What it says of its media.
    pub(crate) stance: Stance,
    /// Its last description.
    pub(crate) said: String,
    pub(crate) sdp_version: u32,
    pub(crate) remote: Option<MediaDescription>,
    pub(crate) report: Report,
    pub(crate) now: Tick,
    /// When the first message came, heard or not.
    first_message: Option<Tick>,
    alarms: BTreeMap<(Tick, u64), Alarm>,
    next_alarm: u64,
    speaker: Option<Speaker>,
    listener: Listener,
    actions: VecDeque<PhoneAction>,
}

impl Phone {
    /// A new phone. `seed` feeds every tag, branch and Call-ID that it makes.
    #[must_use]
    pub fn new(config: PhoneConfig, seed: u64) -> Self {
        Self {
            transactions: Transactions::new(config.timers, MAX_TRANSACTIONS),
            stance: Stance {
                media: config.media,
                names: Named::of(&config.manners),
                direction: Direction::SendRecv,
            },
            config,
            rng: ChaCha12Rng::seed_from_u64(seed),
            call: Call::New,
            invite: None,
            invite_cseq: 1,
            asked: Asked::default(),
            dialogs: Vec::new(),
            numbers: BTreeMap::new(),
            early: Vec::new(),
            unpracked: None,
            timer: None,
            answered_early: false,
            announced: false,
            picks_up_when_pracked: false,
            leaves_when_acknowledged: false,
            said: String::new(),
            sdp_version: 1,
            remote: None,
            report: Report::default(),
            now: Tick::ZERO,
            first_message: None,
            alarms: BTreeMap::new(),
            next_alarm: 0,
            speaker: None,
            listener: Listener::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes one input; infallible, bounded work. Drain [`Self::poll`] after it.
    pub fn handle(&mut self, now: Tick, input: PhoneInput) {
        self.now = now;
        if matches!(input, PhoneInput::MessageArrived { .. }) {
            self.first_message.get_or_insert(now);
        }
        if self.is_dead() {
            self.transactions = Transactions::new(self.config.timers, MAX_TRANSACTIONS);
            self.dialogs.clear();
            self.call = Call::Over;
            self.alarms.clear();
            return;
        }
        match input {
            PhoneInput::MessageArrived { peer, bytes } => self.on_message(peer, bytes),
            PhoneInput::RtpArrived { bytes, .. } => self.on_rtp(&bytes),
            PhoneInput::TransportFailed(peer) => {
                self.transactions.on_transport_failed(now, peer);
            }
            PhoneInput::Dial { peer, uri } => self.dial(peer, &uri),
            PhoneInput::HangUp => self.hang_up(),
            PhoneInput::Hold(true) => self.change(What::Hold.by_invite()),
            PhoneInput::Hold(false) => self.change(What::Resume.by_invite()),
            PhoneInput::Change(change) => self.change(change),
            PhoneInput::Press(key) => {
                if let Some(speaker) = self.speaker.as_mut() {
                    speaker.press(key);
                }
            }
            PhoneInput::PressByInfo(key) => self.press_by_info(key),
            PhoneInput::DeadlineReached => {}
        }
        self.transactions.on_deadline(now);
        self.run_alarms();
        self.hear_transactions();
        if self.call == Call::Talking
            && self
                .dialogs
                .iter()
                .all(|dialog| dialog.standing == Standing::Over)
        {
            self.finish();
        }
    }

    /// The next thing to do; `None` when everything was said.
    pub fn poll(&mut self) -> Option<PhoneAction> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle`] with [`PhoneInput::DeadlineReached`], unless something else
    /// comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let alarm = self.alarms.keys().next().map(|(at, _)| *at);
        match (alarm, self.transactions.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    /// What came of the call so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        if let Some(audio) = self.config.audio {
            report.tone_share = self.listener.share_of(audio.hears_hz);
        }
        report
    }

    /// Whether the call is over, as far as its user sees.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.call == Call::Over
    }

    /// Whether both sides may speak now.
    #[must_use]
    pub fn is_talking(&self) -> bool {
        self.dialogs
            .iter()
            .any(|dialog| dialog.standing == Standing::Confirmed)
    }

    /// Whether nothing at all is left: no dialog, no transaction, no alarm.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.call, Call::New | Call::Over)
            && self
                .dialogs
                .iter()
                .all(|dialog| dialog.standing == Standing::Over)
            && self.transactions.is_empty()
            && self.alarms.is_empty()
    }

    fn on_message(&mut self, peer: Peer, bytes: Bytes) {
        let read = match peer.transport {
            Transport::Udp => wire::read_datagram(&bytes, peer),
            Transport::Tcp | Transport::Tls => wire::read_frame(bytes, peer),
        };
        let message = match read {
            Ok(message) => message,
            Err(unreadable) => {
                if let Some(bytes) = unreadable.refusal {
                    self.actions.push_back(PhoneAction::Send { peer, bytes });
                }
                return;
            }
        };
        if let Message::Request(request) = &message
            && self.pretends_not_to_hear(request)
        {
            return;
        }
        self.transactions.receive(self.now, peer, message, false);
    }

    fn is_dead(&self) -> bool {
        self.config.manners.dies_after.is_some_and(|after| {
            self.first_message
                .is_some_and(|first| self.now.since(first) >= after)
        })
    }

    fn pretends_not_to_hear(&self, request: &Request) -> bool {
        let silent = match &self.config.part {
            Part::Callee(callee) => matches!(callee.outcome, Outcome::Silence),
            Part::Caller(_) => false,
        };
        let deaf = self
            .first_message
            .is_some_and(|first| self.now.since(first) < self.config.manners.deaf_for);
        let manners = self.config.manners;
        let changes = matches!(request.method, Method::Invite | Method::Update)
            && view::to_tag(&request.headers).is_some();
        silent
            || deaf
            || (manners.ignores_bye && request.method == Method::Bye)
            || (manners.ignores_changes && changes)
    }

    fn hear_transactions(&mut self) {
        while let Some(upcall) = self.transactions.poll_upcall() {
            match upcall {
                Upcall::Request { tx, request, peer } => self.on_request(tx, &request, peer),
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
                Upcall::Stray(response) => self.on_repeated_success(&response),
                Upcall::Unanswered { owner, .. } => match owner {
                    Purpose::Invite if matches!(self.call, Call::Calling(_)) => {
                        self.notice(PhoneEvent::Lost);
                        self.finish();
                    }
                    Purpose::Bye(at) => self.set_over(at),
                    Purpose::Change(at) => self.on_change_unanswered(at),
                    Purpose::Invite
                    | Purpose::Cancel
                    | Purpose::Copy
                    | Purpose::Refresh
                    | Purpose::EarlyUpdate
                    | Purpose::Aside => {}
                },
            }
        }
        while let Some((peer, bytes)) = self.transactions.poll_outgoing() {
            if self.config.manners.sends_noise {
                let bytes = self.noise();
                self.actions.push_back(PhoneAction::Send { peer, bytes });
            }
            self.actions.push_back(PhoneAction::Send { peer, bytes });
        }
    }

    /// Each new request of a dialog has a number of its own.
    fn look_at_number(&mut self, request: &Request) {
        let headers = &request.headers;
        let mut dialogs = self.dialogs.iter();
        if !dialogs.any(|it| it.owns(request)) {
            return;
        }
        let (Some(to), Some(branch)) = (view::to_tag(headers), view::top_branch(headers)) else {
            return;
        };
        if let (Some((cseq, _)), false) = (view::cseq(headers), request.method == Method::Cancel) {
            let from = view::from_tag(headers).unwrap_or_default();
            let first = self
                .numbers
                .entry((from, to, cseq))
                .or_insert_with(|| branch.clone());
            self.report.repeated_number |= *first != branch;
        }
    }

    fn on_request(&mut self, tx: TxId, request: &Request, peer: Peer) {
        self.look_at_number(request);
        if self.asks(tx, request) {
            return;
        }
        let in_dialog = view::to_tag(&request.headers).is_some();
        match &request.method {
            Method::Invite if in_dialog => self.on_reinvite(tx, request),
            Method::Invite => self.on_invite(tx, request, peer),
            Method::Cancel => self.on_cancel(tx, request),
            Method::Bye => self.on_bye(tx, request),
            Method::Update => self.on_update(tx, request),
            Method::Options if in_dialog && !self.knows(request) => {
                self.answer(tx, request, 481, &[], None);
            }
            Method::Options => self.answer(tx, request, 200, &[], None),
            // An ACK makes no transaction.
            Method::Ack => {}
            Method::Prack => self.on_prack(tx, request),
            Method::Info => self.on_info(tx, request),
            Method::Register
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish
            | Method::Other(_)
            | _ => self.answer(tx, request, 405, &[], None),
        }
    }

    fn on_response(&mut self, owner: Purpose, response: &Response) {
        match owner {
            Purpose::Invite => self.on_invite_response(response),
            Purpose::Copy => self.on_copy_response(response),
            Purpose::Change(at) => self.on_change_response(at, response),
            Purpose::Bye(at) if response.status.code() >= 200 => self.set_over(at),
            Purpose::EarlyUpdate => {
                self.report.early_update_status = Some(response.status.code());
            }
            Purpose::Refresh if response.status.is_success() => self.hear_timer(response),
            Purpose::Bye(_) | Purpose::Cancel | Purpose::Refresh | Purpose::Aside => {}
        }
    }

    pub(crate) fn answer(
        &mut self,
        tx: TxId,
        request: &Request,
        status: u16,
        extra: &[(HeaderName, String)],
        sdp: Option<&str>,
    ) {
        let tag = self.new_word("t");
        if let Some(response) = compose::response(request, status, Some(&tag), extra, sdp) {
            self.transactions.respond(self.now, tx, response);
        }
    }

    /// Both sides may speak.
    pub(crate) fn start_talking(&mut self, hang_up_after: Option<Duration>) {
        self.report.talked = true;
        self.notice(PhoneEvent::Talking);
        self.set_alarm(Alarm::Patience, self.config.patience);
        if let Some(after) = hang_up_after {
            self.set_alarm(Alarm::HangUp, after);
        }
        let ssrc = self.rng.next_u32();
        let speaker = match (self.config.audio, &self.remote) {
            (Some(audio), Some(remote)) => Speaker::new(audio, remote, ssrc),
            _ => None,
        };
        if speaker.is_some() {
            self.speaker = speaker;
            self.set_alarm(Alarm::Packet, Duration::ZERO);
        }
    }

    fn hang_up(&mut self) {
        match self.call {
            Call::New | Call::Over => {}
            Call::Calling(_) => self.give_up(),
            Call::Called(tx) => self.refuse(tx, 603, None),
            Call::Talking => self.leave(),
        }
    }

    /// The call is over; transactions and dialogs that are still ending go on by themselves.
    pub(crate) fn finish(&mut self) {
        self.call = Call::Over;
        self.speaker = None;
        self.alarms
            .retain(|_, alarm| matches!(alarm, Alarm::Resend(_) | Alarm::Unanswered(_)));
    }

    fn on_rtp(&mut self, datagram: &[u8]) {
        let Some(key) = self.listener.hear(datagram) else {
            return;
        };
        self.report.packets_received += 1;
        if let Some(key) = key {
            self.report.digits.push(key);
            self.notice(PhoneEvent::Digit(key));
        }
    }

    fn speak(&mut self) {
        let Some(speaker) = self.speaker.as_mut() else {
            return;
        };
        if let Some((to, bytes)) = speaker.next_packet() {
            self.report.packets_sent += 1;
            self.actions.push_back(PhoneAction::SendRtp { to, bytes });
        }
        self.set_alarm(Alarm::Packet, PACKET_INTERVAL);
    }

    pub(crate) fn hush(&mut self, silent: bool) {
        if let Some(speaker) = self.speaker.as_mut() {
            speaker.silent = silent;
        }
    }

    fn run_alarms(&mut self) {
        while let Some(entry) = self.alarms.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Alarm::Ring => self.ring(),
                Alarm::Decide => self.decide(),
                Alarm::Resend(at) => self.resend(at),
                Alarm::Announce => self.announce(),
                Alarm::Provisional => self.resend_provisional(),
                Alarm::Refresh => self.refresh_session(),
                Alarm::Expire => self.expire(),
                Alarm::HangUp => self.hang_up(),
                Alarm::Patience => {
                    self.report.patience_ran_out = true;
                    self.hang_up();
                }
                Alarm::Abandon => self.abandon(),
                Alarm::Unanswered(at) => self.on_change_forgotten(at),
                Alarm::AskAgain(at) => self.ask(at),
                Alarm::CancelChange(at) => self.cancel_change(at),
                Alarm::Packet => self.speak(),
            }
        }
    }

    pub(crate) fn set_alarm(&mut self, alarm: Alarm, after: Duration) {
        self.clear_alarm(alarm);
        self.next_alarm += 1;
        self.alarms
            .insert((self.now + after, self.next_alarm), alarm);
    }

    pub(crate) fn clear_alarm(&mut self, alarm: Alarm) {
        self.alarms.retain(|_, set| *set != alarm);
    }

    pub(crate) fn act(&mut self, action: PhoneAction) {
        self.actions.push_back(action);
    }

    pub(crate) fn notice(&mut self, event: PhoneEvent) {
        self.actions.push_back(PhoneAction::Notice(event));
    }

    /// A new identifier that starts with the phone's mark.
    pub(crate) fn new_word(&mut self, kind: &str) -> String {
        format!(
            "{}{kind}{:016x}",
            self.config.identity.mark,
            self.rng.next_u64()
        )
    }

    pub(crate) fn new_branch(&mut self) -> String {
        format!("z9hG4bK{}", self.new_word("b"))
    }

    /// `User-Agent` or `Server`, and the identity's own headers.
    pub(crate) fn device_headers(&self, agent: &'static [u8]) -> Vec<(HeaderName, String)> {
        let name = |bytes: Bytes| HeaderName::parse(&bytes);
        let identity = &self.config.identity;
        let own = identity
            .extra
            .iter()
            .map(|(key, value)| (name(Bytes::copy_from_slice(key.as_bytes())), value.clone()));
        let agent = (name(Bytes::from_static(agent)), identity.user_agent.clone());
        std::iter::once(agent)
            .filter(|(_, value)| !value.is_empty())
            .chain(own)
            .collect()
    }

    /// What no SIP element should stumble over.
    fn noise(&mut self) -> Bytes {
        let dice = self.rng.next_u32();
        match dice % 4 {
            0 => Bytes::from_static(b"\r\n\r\n"),
            1 => {
                let mut random = vec![0; (dice >> 8) as usize % 600];
                self.rng.fill_bytes(&mut random);
                Bytes::from(random)
            }
            2 => Bytes::from(format!(
                "INVITE sip:{dice}@nowhere SIP/2.0\r\nVia: SIP/2.0/UDP "
            )),
            _ => {
                let branch = self.new_branch();
                let at = &self.config.sent_by.host_port;
                Bytes::from(format!(
                    "INVITE sip:;;;@@ SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch={branch}\r\n\
                     From: <sip:x@y>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: {branch}\r\nCSeq: 1 INVITE\r\n\
                     Max-Forwards: 70\r\n\r\n"
                ))
            }
        }
    }
}
