//! Which message belongs to which session, for the trace: told, not kept.
//!
//! A message is found by our own tag in it. A's INVITE and what comes before our first tag are found
//! by their Call-ID and branch. What is kept of a session is its id and a count.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use maskline_events::Callflow;
use maskline_media::{Side, Tick};
use uuid::Uuid;

use super::{Gated, Shard};
use crate::dispatch::Arrival;
use crate::io::{Action, CallflowAnswer, SessionKey};
use crate::sdp;
use crate::session::{Session, SessionTimer};
use crate::sip::{LocalTag, Peer};
use crate::trace::{Direction, Step, Text, TraceEntry, TraceEvent, TracedMessage};

/// Most sessions that are over and whose last repetitions are still told.
const MOST_GONE: usize = 50_000;
/// Most entries of a call that is not admitted yet.
const MOST_WAITING: usize = 16;

/// What the trace must remember.
#[derive(Debug, Default)]
pub(super) struct Book {
    calls: BTreeMap<SessionKey, Traced>,
    /// A's INVITEs, by [`Marks::opening`].
    invites: BTreeMap<u64, SessionKey>,
    gone: VecDeque<(Tick, SessionKey)>,
    /// A message that belongs to no session yet.
    arrived: Option<(Peer, Bytes, u64)>,
}

#[derive(Debug)]
struct Traced {
    session_id: Uuid,
    invite: Option<u64>,
    messages: u16,
    left_out: u32,
    /// What is told once the call is admitted; a refused one is forgotten.
    waiting: Option<Vec<TraceEntry>>,
}

/// The lines that say whose a message is.
#[derive(Debug, Default)]
struct Marks<'a> {
    is_response: bool,
    from: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
    via: Option<&'a [u8]>,
    call_id: Option<&'a [u8]>,
}

impl<'a> Marks<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut marks = Self {
            is_response: message.starts_with(b"SIP/2.0 "),
            ..Self::default()
        };
        let mut rest = message;
        while let Some((line, after)) = next_line(rest) {
            rest = after;
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|&b| b == b':') else {
                continue;
            };
            let (name, value) = line.split_at(colon);
            let slot = match name.trim_ascii() {
                name if is_named(name, b"from", b"f") => &mut marks.from,
                name if is_named(name, b"to", b"t") => &mut marks.to,
                name if is_named(name, b"via", b"v") => &mut marks.via,
                name if is_named(name, b"call-id", b"i") => &mut marks.call_id,
                _ => continue,
            };
            if slot.is_none() {
                *slot = value.get(1..);
            }
        }
        marks
    }

    /// Our tag: what we send has it on its own end, what we get on the other.
    fn owner(&self, direction: Direction) -> Option<LocalTag> {
        let ours = match (direction, self.is_response) {
            (Direction::Out, true) | (Direction::In, false) => self.to,
            (Direction::Out, false) | (Direction::In, true) => self.from,
        };
        let tag = parameter(ours?, b"tag")?;
        LocalTag::parse(std::str::from_utf8(tag).ok()?)
    }

    /// What an INVITE without our tag has in common with its repetitions, its CANCEL and its 100.
    fn opening(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        self.call_id?.trim_ascii().hash(&mut hasher);
        parameter(self.via?, b"branch")?.hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// The next line of a head with its continuations (RFC 3261 §7.3.1), and what follows it.
fn next_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        let end = at + head.get(at..)?.iter().position(|&b| b == b'\n')?;
        let line = head.get(..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let after = head.get(end + 1..)?;
        match after.first() {
            Some(b' ' | b'\t') if !line.is_empty() => at = end + 1,
            _ => return Some((line, after)),
        }
    }
}

fn is_named(name: &[u8], long: &[u8], short: &[u8]) -> bool {
    name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(short)
}

/// A header parameter of the first value, looked for after its address.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = value.iter().rposition(|&b| b == b'>').unwrap_or(0);
    value.get(start..)?.split(|&b| b == b';').find_map(|part| {
        let equals = part.iter().position(|&b| b == b'=')?;
        let (found, rest) = part.split_at(equals);
        let value = rest.get(1..)?.trim_ascii();
        let end = value
            .iter()
            .position(|&b| matches!(b, b',' | b' ' | b'\t' | b'\r'))
            .unwrap_or(value.len());
        found
            .trim_ascii()
            .eq_ignore_ascii_case(name)
            .then(|| value.get(..end))
            .flatten()
    })
}

impl Shard {
    /// A message arrived and was not looked at yet.
    pub(super) fn trace_arrival(&mut self, arrival: &Arrival) {
        self.book.arrived = None;
        if !self.config.trace.enabled {
            return;
        }
        let marks = Marks::of(&arrival.raw);
        let owner = self.owner_of(&marks, Direction::In);
        let opening = marks.opening();
        match (owner, opening) {
            (Some((key, side)), _) => {
                self.trace_message(key, Direction::In, side, arrival.peer, arrival.raw.clone());
            }
            (None, Some(opening)) => {
                self.book.arrived = Some((arrival.peer, arrival.raw.clone(), opening));
            }
            (None, None) => {}
        }
    }

    /// A message is about to leave.
    pub(super) fn trace_sending(&mut self, peer: Peer, bytes: &Bytes) {
        if !self.config.trace.enabled || self.book.calls.is_empty() {
            return;
        }
        let marks = Marks::of(bytes);
        if let Some((key, side)) = self.owner_of(&marks, Direction::Out) {
            self.trace_message(key, Direction::Out, side, peer, bytes.clone());
        }
    }

    fn owner_of(&self, marks: &Marks<'_>, direction: Direction) -> Option<(SessionKey, Side)> {
        let tagged = marks.owner(direction).map(|tag| (tag.session, tag.side));
        let found = tagged.or_else(|| {
            let key = self.book.invites.get(&marks.opening()?)?;
            Some((*key, Side::Caller))
        });
        found.filter(|(key, _)| self.book.calls.contains_key(key))
    }

    /// A session began with the message that is being handled.
    pub(super) fn trace_begin(&mut self, s: &Session) {
        if !self.config.trace.enabled {
            return;
        }
        let arrived = self.book.arrived.take();
        let opening = arrived.as_ref().map(|(_, _, opening)| *opening);
        self.trace_open(s, opening, Some(Vec::new()));
        if let Some((peer, raw, _)) = arrived {
            self.trace_message(s.key, Direction::In, Side::Caller, peer, raw);
        }
    }

    /// The call is admitted: what was told of it so far may leave.
    pub(super) fn trace_admitted(&mut self, s: &Session) {
        let traced = self.book.calls.get_mut(&s.key);
        let Some(waiting) = traced.and_then(|traced| traced.waiting.take()) else {
            return;
        };
        let entries = waiting.into_iter().map(|it| Action::Trace(Box::new(it)));
        self.actions.extend(entries);
    }

    /// A session of an earlier run goes on.
    pub(super) fn trace_adopted(&mut self, s: &Session) {
        if self.config.trace.enabled {
            let via = s.caller_invite.vias.first();
            let marks = Marks {
                via: via.map(String::as_bytes),
                call_id: Some(s.caller_invite.call_id.as_bytes()),
                ..Marks::default()
            };
            self.trace_open(s, marks.opening(), None);
            self.trace_step(s, Step::Adopted);
        }
    }

    fn trace_open(&mut self, s: &Session, invite: Option<u64>, waiting: Option<Vec<TraceEntry>>) {
        if let Some(invite) = invite {
            self.book.invites.insert(invite, s.key);
        }
        let traced = Traced {
            session_id: s.id,
            invite,
            messages: 0,
            left_out: 0,
            waiting,
        };
        self.book.calls.insert(s.key, traced);
    }

    /// Something happened in a session.
    pub(super) fn trace_step(&mut self, s: &Session, step: Step) {
        self.trace_event(s.key, TraceEvent::Step(step));
    }

    /// As [`Self::trace_step`], for a plain remark.
    pub(super) fn trace_note(&mut self, s: &Session, text: impl Into<Text>) {
        if self.config.trace.enabled {
            self.trace_step(s, Step::Note { text: text.into() });
        }
    }

    /// A leg's first event was decided on.
    pub(super) fn trace_leg(&mut self, s: &Session, side: Side) {
        let Some(leg) = s.leg(side).filter(|_| self.config.trace.enabled) else {
            return;
        };
        let trunk = s.places.iter().find(|(held, _)| *held == side);
        let trunk = trunk.and_then(|(_, trunk)| self.config.trunk(*trunk));
        let step = Step::Leg {
            side: side.into(),
            call_id: leg.call_id,
            source: leg.source.clone(),
            destination: leg.destination.clone(),
            trunk: trunk.map(|trunk| trunk.name.clone().into()),
            sub_account_id: s.number.sub_account_id.clone(),
        };
        self.trace_step(s, step);
    }

    /// Tells the legs of an adopted session again: what the earlier run told last may be lost, and
    /// numbers that are not known can't be hidden.
    pub(super) fn trace_legs(&mut self, s: &Session) {
        for side in [Side::Caller, Side::Callee] {
            self.trace_leg(s, side);
        }
    }

    /// The VCA endpoint answered.
    pub(super) fn trace_answer(&mut self, s: &Session, answer: &CallflowAnswer) {
        if !self.config.trace.enabled {
            return;
        }
        let (outcome, usable) = match answer {
            CallflowAnswer::Callflow(flow) => (told(flow), true),
            CallflowAnswer::Unreachable(reason) | CallflowAnswer::Invalid(reason) => {
                (reason.clone().into(), false)
            }
        };
        self.trace_step(s, Step::Answered { outcome, usable });
    }

    fn trace_message(
        &mut self,
        key: SessionKey,
        direction: Direction,
        side: Side,
        peer: Peer,
        bytes: Bytes,
    ) {
        let limits = self.config.trace;
        let Some(traced) = self.book.calls.get_mut(&key) else {
            return;
        };
        if traced.messages >= limits.messages {
            traced.left_out = traced.left_out.saturating_add(1);
            self.count("trace_messages_left_out");
            return;
        }
        traced.messages += 1;
        let bytes = sdp::without_keys(&bytes).map_or(bytes, Bytes::from);
        let length = bytes.len();
        let bytes = if length > limits.message_bytes {
            // A copy: a slice would keep the whole.
            Bytes::copy_from_slice(bytes.get(..limits.message_bytes).unwrap_or_default())
        } else {
            bytes
        };
        let message = TracedMessage {
            direction,
            side,
            peer,
            bytes,
            length,
        };
        self.trace_event(key, TraceEvent::Message(message));
    }

    fn trace_event(&mut self, key: SessionKey, what: TraceEvent) {
        let at = self.now;
        let Some(traced) = self.book.calls.get_mut(&key) else {
            return;
        };
        let entry = TraceEntry {
            session_id: traced.session_id,
            at,
            what,
        };
        match &mut traced.waiting {
            Some(waiting) if waiting.len() < MOST_WAITING => waiting.push(entry),
            Some(_) => {}
            None => self.actions.push_back(Action::Trace(Box::new(entry))),
        }
    }

    /// A session is over; what its peers still send is told until `until`.
    pub(super) fn trace_gone(&mut self, key: SessionKey, until: Tick) {
        let Some(traced) = self.book.calls.get(&key) else {
            return;
        };
        if traced.waiting.is_some() {
            // It was never admitted: a flood of such calls leaves nothing behind.
            self.trace_forget(key);
            return;
        }
        self.book.gone.push_back((until, key));
        if self.book.gone.len() > MOST_GONE {
            self.trace_close_oldest();
        }
    }

    /// Forgets the sessions whose time is over.
    pub(super) fn trace_expire(&mut self) {
        let now = self.now.tick;
        while self
            .book
            .gone
            .front()
            .is_some_and(|(until, _)| *until <= now)
        {
            self.trace_close_oldest();
        }
    }

    fn trace_close_oldest(&mut self) {
        let Some((_, key)) = self.book.gone.pop_front() else {
            return;
        };
        let left_out = self.book.calls.get(&key).map_or(0, |it| it.left_out);
        if left_out > 0 {
            let step = Step::LeftOut { messages: left_out };
            self.trace_event(key, TraceEvent::Step(step));
        }
        self.trace_forget(key);
    }

    fn trace_forget(&mut self, key: SessionKey) {
        if let Some(traced) = self.book.calls.remove(&key)
            && let Some(invite) = traced.invite
            && self.book.invites.get(&invite) == Some(&key)
        {
            self.book.invites.remove(&invite);
        }
    }
}

/// A callflow in a few words.
fn told(flow: &Callflow) -> Text {
    use maskline_events::Action as Flow;
    match flow.actions.first() {
        None => Text::Borrowed("an empty callflow"),
        Some(Flow::MakeCall { .. }) => Text::Borrowed("makeCall"),
        Some(Flow::Hangup) => Text::Borrowed("hangup"),
        Some(Flow::Say { .. }) => Text::Borrowed("say"),
        Some(Flow::PlayFile { .. }) => Text::Borrowed("playFile"),
        Some(Flow::SayAndCapture(_)) => Text::Borrowed("sayAndCapture"),
    }
}

/// What waits for a commit, for a person.
pub(super) const fn gate_name(gated: Gated) -> &'static str {
    match gated {
        Gated::AskCallflow => "VCA request",
        Gated::InviteCallee => "INVITE to B",
        Gated::AnswerCaller => "200 to A",
        Gated::Bye(Side::Caller) => "BYE to A",
        Gated::Bye(Side::Callee) => "BYE to B",
    }
}

/// A timer, for a person.
pub(super) const fn timer_name(timer: SessionTimer) -> &'static str {
    match timer {
        SessionTimer::CallflowGuard => "no callflow came",
        SessionTimer::MediaGuard => "no media port came",
        SessionTimer::NoAnswer => "B rang for too long",
        SessionTimer::MaxDuration => "the longest duration was reached",
        SessionTimer::Resend(Side::Caller) => "A's ACK is late",
        SessionTimer::Resend(Side::Callee) => "B's ACK is late",
        SessionTimer::Modify(Side::Caller) => {
            "our re-INVITE or UPDATE to A is tried again or given up"
        }
        SessionTimer::Modify(Side::Callee) => {
            "our re-INVITE or UPDATE to B is tried again or given up"
        }
        SessionTimer::ResendProvisional => "A's PRACK is late",
        SessionTimer::Refresh(Side::Caller) => "A's session is to be refreshed",
        SessionTimer::Refresh(Side::Callee) => "B's session is to be refreshed",
        SessionTimer::Expiry(Side::Caller) => "A's session was not refreshed",
        SessionTimer::Expiry(Side::Callee) => "B's session was not refreshed",
        SessionTimer::ByeGate => "a BYE waited long enough for its commit",
        SessionTimer::CancelGuard | SessionTimer::AbandonGuard(_) => {
            "no final answer came to a cancelled INVITE"
        }
        SessionTimer::TrunkSilence => "nothing came back from the trunk",
        SessionTimer::SummaryGuard => "no media figures came",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OURS: &str = "m0.b.0000000000000007.0000000000000001";

    #[test]
    fn a_message_is_found_by_our_tag_on_our_end_only() {
        let with = |first: &str, from: &str, to: &str| {
            format!(
                "{first}\r\nv: SIP/2.0/UDP h;branch=z9hG4bKx;rport\r\nf: \"a;tag=x>\" <sip:a@b;tag=no>{from}\r\n\
                 To:\r\n <sip:c@d>{to}\r\ni: 1@x\r\n\r\nTo: <x>;tag=body\r\n"
            )
        };
        let tag = format!(";x=y;Tag={OURS} ;z");
        for (first, from, to, direction, found) in [
            ("BYE sip:x SIP/2.0", ";tag=9", &*tag, Direction::In, true),
            ("BYE sip:x SIP/2.0", &tag, ";tag=9", Direction::In, false),
            ("BYE sip:x SIP/2.0", &tag, ";tag=9", Direction::Out, true),
            ("SIP/2.0 200 OK", ";tag=9", &tag, Direction::Out, true),
            ("SIP/2.0 200 OK", &tag, "", Direction::In, true),
            ("SIP/2.0 200 OK", "", &tag, Direction::In, false),
        ] {
            let text = with(first, from, to);
            let marks = Marks::of(text.as_bytes());
            let owner = marks.owner(direction);
            assert_eq!(owner.is_some(), found, "{first} {from} {to} {direction:?}");
            assert!(owner.is_none_or(|tag| tag.session == 7));
        }
    }

    #[test]
    fn an_invite_its_cancel_and_its_100_are_found_by_branch_and_call_id() {
        let opening = |text: &str| Marks::of(text.as_bytes()).opening();
        let invite = opening(
            "INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;rport;branch=z1\r\nCall-ID: c\r\n\r\n",
        );
        assert!(invite.is_some());
        let trying =
            "SIP/2.0 100 T\r\nVIA: SIP/2.0/UDP h;branch=z1;received=1.2.3.4\r\nCall-ID:c\r\n\r\n";
        assert_eq!(opening(trying), invite);
        let cancel = "CANCEL sip:x SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z1\r\ni:  c \r\n\r\n";
        assert_eq!(opening(cancel), invite);
        let other = "CANCEL sip:x SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z2\r\ni: c\r\n\r\n";
        assert_ne!(opening(other), invite);
        for noise in ["", "\r\n", "SIP/2.0", "INVITE x\r\nVia", "x\r\n y\r\n z"] {
            assert_eq!(opening(noise), None, "{noise:?}");
        }
    }
}
