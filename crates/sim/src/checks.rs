//! The rules that hold in every run: what the contract says of statuses, and what may leave when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maskline_events::{CallStatus, EarlyMedia, LegStatus, SessionStatus};
use maskline_media::{MediaCommand, Side, Tick};
use maskline_phone::Report;
use maskline_switch::sip::SipTimers;
use uuid::Uuid;

use crate::ledger::{Content, Entry, Ledger, SessionLog, gate_of, side_of};
use crate::network::Wire;
use crate::site;
use crate::wire::{Glance, Kind};

/// Longest time that a BYE waits for its commit.
const BYE_GATE: Duration = Duration::from_secs(1);

/// The final status of a leg (contract §2).
///
/// # Errors
/// What is wrong with it.
pub fn sip_code(side: Side, connected: bool, code: u16, error: Option<i32>) -> Result<(), String> {
    let right = match (connected, code) {
        (true, 200) => true,
        // The caller that never acknowledged its 200.
        (true, 408) => side == Side::Caller && error == Some(-2002),
        (true, _) => false,
        (false, code) => (300..700).contains(&code),
    };
    if right {
        return Ok(());
    }
    Err(format!(
        "a leg (connected: {connected}) ended with sipCode {code}, error {error:?}"
    ))
}

/// The table of the session summary (contract §3).
///
/// # Errors
/// The combination that is not in the table.
pub fn outcome(
    a: LegStatus,
    b: Option<LegStatus>,
    session: SessionStatus,
    error: Option<i32>,
) -> Result<(), String> {
    use SessionStatus::{Busy, Canceled, Completed, Error, Failed, NoAnswer};
    let legal = matches!(
        (a, b, session),
        (Completed, Some(Completed) | None, Completed)
            | (Completed, Some(NoAnswer), NoAnswer)
            | (Completed, Some(Busy), Busy)
            | (Completed, Some(Failed), Failed)
            | (Canceled, Some(Canceled) | None, Canceled)
            | (Error, None, Error)
            | (Completed, Some(Error | Completed), Error)
    );
    if !legal {
        return Err(format!(
            "callA {a:?}, callB {b:?}, sessionStatus {session:?} is no case"
        ));
    }
    if (session == Error) != error.is_some() {
        return Err(format!("sessionStatus {session:?} with error {error:?}"));
    }
    Ok(())
}

/// What refuses a request for overload says when to try again, and nothing that tells a session.
pub(crate) fn overload_refusal(text: &str) -> Result<(), String> {
    let glance = Glance::at(text);
    let says_when = text.contains("\r\nRetry-After: ");
    if glance.kind == Kind::Response(503) && says_when && glance.switch_tag().is_none() {
        return Ok(());
    }
    Err(format!("an answer to a request that is too much:\n{text}"))
}

/// B's INVITE that left last for a phone.
#[derive(Debug)]
struct Invited {
    branch: String,
    left: Tick,
    /// Whether any answer came before its transaction's end.
    heard: bool,
}

/// What the watcher at the switch's door remembers.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Which session a tag of ours belongs to.
    sessions: BTreeMap<(u16, u64), Uuid>,
    /// When a leg's CALL_DISCONNECTED was decided.
    ending: BTreeMap<(Uuid, Side), Tick>,
    /// Legs whose CALL_CONNECTED was decided.
    connected: BTreeSet<(Uuid, Side)>,
    /// The callee's tag that the call goes on with: the first that was acknowledged.
    chosen: BTreeMap<Uuid, String>,
    /// The tags of B's INVITEs in the order in which they first left.
    invites: BTreeMap<Uuid, Vec<String>>,
    /// The branches of B's INVITEs that left.
    branches: BTreeSet<String>,
    /// Those whose 18x has arrived.
    progressed: BTreeSet<String>,
    /// Those that were refused, by the number of the request: a 18x behind that is late.
    refused: BTreeSet<(String, u32)>,
    /// What B's phones were asked last.
    invited: BTreeMap<Wire, Invited>,
    /// Sessions that a restarted process ends: it hangs up at once.
    adopted: BTreeSet<Uuid>,
}

impl Watch {
    pub(crate) fn adopted(&mut self, session: Uuid) {
        self.adopted.insert(session);
    }

    /// A message comes to the switch.
    pub(crate) fn on_arrival(&mut self, now: Tick, wire: Wire, glance: &Glance<'_>) {
        let (Kind::Response(status), "INVITE", Some(tag)) =
            (glance.kind, glance.cseq_method, glance.from_tag)
        else {
            return;
        };
        if let Some(invited) = self.invited.get_mut(&wire)
            && glance.branch == invited.branch
        {
            invited.heard |= now.since(invited.left) < SipTimers::default().timeout();
        }
        let request = (tag.to_owned(), glance.cseq_number);
        match status {
            101..=199 if !self.refused.contains(&request) => {
                self.progressed.insert(request.0);
            }
            300..=699 => {
                self.refused.insert(request);
            }
            _ => {}
        }
    }

    /// Whether nothing of what a phone of B answered to its INVITE came through in time: then nobody
    /// can know that it rings (RFC 3261 §9.1).
    pub(crate) fn never_heard(&self, wire: Wire) -> bool {
        self.invited
            .get(&wire)
            .is_some_and(|invited| !invited.heard)
    }

    fn on_invited(&mut self, now: Tick, wire: Wire, branch: &str) {
        let known = self.invited.get(&wire).map(|invited| &*invited.branch);
        if known != Some(branch) {
            let invited = Invited {
                branch: branch.to_owned(),
                left: now,
                heard: false,
            };
            self.invited.insert(wire, invited);
        }
    }

    /// B's phone rings once: another INVITE leaves only while those before may still be given up,
    /// and four do at most.
    fn on_invite(&mut self, session: Uuid, tag: &str) -> Result<(), String> {
        let invites = self.invites.entry(session).or_default();
        if invites.iter().any(|known| known == tag) {
            return Ok(());
        }
        if invites.iter().any(|tag| self.progressed.contains(tag)) {
            return Err("another INVITE leaves although B may have rung".to_owned());
        }
        if self.connected.contains(&(session, Side::Callee))
            || self.ending.contains_key(&(session, Side::Callee))
        {
            return Err("another INVITE leaves although B's leg is decided".to_owned());
        }
        if invites.len() == 4 {
            return Err("a fifth INVITE leaves".to_owned());
        }
        invites.push(tag.to_owned());
        Ok(())
    }

    /// A shard wants this durable.
    pub(crate) fn on_commit(&mut self, now: Tick, entry: &Entry) {
        if !self
            .sessions
            .values()
            .any(|known| *known == entry.session_id)
            && let Some((shard, key)) = entry.snapshot.as_deref().and_then(owner_of)
        {
            self.sessions.insert((shard, key), entry.session_id);
        }
        for event in &entry.events {
            let Content::Status(payload) = &event.content else {
                continue;
            };
            let leg = (entry.session_id, side_of(payload));
            match gate_of(payload.call_status) {
                Some("CALL_DISCONNECTED") => drop(self.ending.insert(leg, now)),
                Some("CALL_CONNECTED") => drop(self.connected.insert(leg)),
                Some(_) | None => {}
            }
        }
    }

    /// The session that a key of a shard stands for.
    pub(crate) fn session(&self, shard: u16, key: u64) -> Option<Uuid> {
        self.sessions.get(&(shard, key)).copied()
    }

    /// The switch asks the callflow endpoint.
    pub(crate) fn on_ask(&self, ledger: &Ledger, shard: u16, key: u64) -> Result<(), String> {
        match self.session(shard, key) {
            Some(session) if ledger.has(session, Side::Caller, "CALL_RECEIVED") => Ok(()),
            _ => Err("the VCA endpoint was asked before CALL_RECEIVED was durable".to_owned()),
        }
    }

    /// The switch orders something of the relay: A's voice reaches B once both are connected, and
    /// whoever holds does not hear.
    pub(crate) fn on_media(
        &self,
        ledger: &Ledger,
        shard: u16,
        command: &MediaCommand,
    ) -> Result<(), String> {
        let (side, media) = match command {
            MediaCommand::ProgramCaller { media, .. } => (Side::Caller, &media.0),
            MediaCommand::ProgramCallee { media, .. } => (Side::Callee, &media.0),
            MediaCommand::Open { .. }
            | MediaCommand::Resume { .. }
            | MediaCommand::Press { .. }
            | MediaCommand::Play { .. }
            | MediaCommand::StopPlaying { .. }
            | MediaCommand::Close { .. } => return Ok(()),
        };
        let Some(session) = self.session(shard, command.key().id) else {
            return Ok(());
        };
        let connected = ledger.has(session, Side::Caller, "CALL_CONNECTED");
        match (side, connected) {
            (Side::Callee, false) if media.receives => {
                Err("A is heard by B before A's CALL_CONNECTED is durable".to_owned())
            }
            (_, _) if media.holds && media.receives => {
                Err(format!("{side:?} hears the other, whom it holds"))
            }
            (_, _) => Ok(()),
        }
    }

    /// The switch sends a message: whether it may, now.
    pub(crate) fn on_send(
        &mut self,
        now: Tick,
        wire: Wire,
        ledger: &Ledger,
        glance: &Glance<'_>,
    ) -> Result<(), String> {
        let Some(tag) = glance.switch_tag() else {
            return Ok(());
        };
        let Some(session) = self.session(tag.shard, tag.session) else {
            return match glance.kind {
                // Before its first commit a session may say what makes nothing visible.
                Kind::Response(100..=199 | 300..=699) => Ok(()),
                Kind::Request(_) | Kind::Response(_) | Kind::Noise => {
                    Err(format!("{} of a session without a commit", glance.label()))
                }
            };
        };
        let durable = |side, gate| ledger.has(session, side, gate);
        match (glance.kind, tag.side) {
            (Kind::Request("INVITE"), Side::Callee) if !durable(Side::Callee, "CALL_INITIATED") => {
                return Err("B's INVITE left before CALL_INITIATED was durable".to_owned());
            }
            (Kind::Request("INVITE"), Side::Callee) if glance.to_tag.is_none() => {
                self.on_invited(now, wire, glance.branch);
                self.on_invite(session, glance.from_tag.unwrap_or_default())?;
                if self.branches.insert(glance.branch.to_owned())
                    && !kept(ledger, session, glance.branch)
                {
                    return Err("an INVITE left that a restarted node cannot cancel".to_owned());
                }
            }
            (Kind::Response(200..=299), Side::Caller)
                if glance.cseq_method == "INVITE" && !durable(Side::Caller, "CALL_CONNECTED") =>
            {
                return Err("A's 200 left before its CALL_CONNECTED was durable".to_owned());
            }
            (Kind::Request("ACK"), Side::Callee) => {
                let to_tag = glance.to_tag.unwrap_or_default();
                self.chosen
                    .entry(session)
                    .or_insert_with(|| to_tag.to_owned());
            }
            (Kind::Request("BYE"), side) => {
                let of_the_call = self.connected.contains(&(session, side))
                    && (side == Side::Caller
                        || self.chosen.get(&session).map(String::as_str) == glance.to_tag);
                let waited = self
                    .ending
                    .get(&(session, side))
                    .is_some_and(|decided| now.since(*decided) >= BYE_GATE);
                if of_the_call
                    && !waited
                    && !durable(side, "CALL_DISCONNECTED")
                    && !self.adopted.contains(&session)
                    && !ledger.is_rejected(session)
                {
                    return Err("a BYE left before its CALL_DISCONNECTED was durable".to_owned());
                }
                if side == Side::Callee
                    && !self.connected.contains(&(session, side))
                    && self.chosen.get(&session).map(String::as_str) == glance.to_tag
                {
                    // The answer of an INVITE that was given up.
                    self.chosen.remove(&session);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the phones of a session saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) caller: Report,
    pub(crate) callee: Report,
    /// Whether A acknowledges no reliable provisional.
    pub(crate) never_pracks: bool,
    /// What the number's policy lets A hear before the answer.
    pub(crate) early_media: EarlyMedia,
    /// Whether the switch or a stream died in between: then a phone may know what nobody else
    /// does.
    pub(crate) cut_off: bool,
}

/// What receivers were told is what the phones saw.
pub(crate) fn agreement(log: &SessionLog, seen: &Seen, shows: &str) -> Result<(), String> {
    if let Some(shown) = seen
        .callee
        .shows
        .as_ref()
        .filter(|shown| shown.as_str() != shows)
    {
        return Err(format!("B's display does not show {shows:?} but {shown:?}"));
    }
    let told = |side, status| {
        log.events
            .iter()
            .find(|event| event.side == side && event.status == status)
    };
    let connected = told(Side::Caller, CallStatus::CallConnected).is_some();
    if seen.early_media == EarlyMedia::Ringback && seen.caller.early.is_some() {
        return Err("A was told of media before the answer, against the policy".to_owned());
    }
    if seen.caller.talked && !connected {
        return Err("A talked and nobody was told that it connected".to_owned());
    }
    let answer = seen.caller.answer.as_ref();
    let answered_before = seen
        .caller
        .early
        .as_ref()
        .filter(|_| seen.caller.early_is_answer);
    if let Some((before, answer)) = answered_before.zip(answer)
        && before != answer
    {
        return Err("A's 200 is another answer than its reliable provisional".to_owned());
    }
    if seen.cut_off {
        return Ok(());
    }
    if seen.caller.left_unanswered || seen.callee.left_unanswered {
        return Err("a re-INVITE got no final answer".to_owned());
    }
    // RFC 3262 §3: A's 200 waits for its PRACK to what it was told of media, and never leaves.
    let gone = seen.never_pracks && seen.caller.early.is_some();
    if gone && connected && seen.caller.final_status == Some(500) {
        return Ok(());
    }
    if connected != (seen.caller.final_status == Some(200)) {
        let status = seen.caller.final_status;
        return Err(format!(
            "A heard {status:?}, told as connected: {connected}"
        ));
    }
    if told(Side::Callee, CallStatus::CallConnected).is_some()
        && seen.callee.final_status != Some(200)
    {
        return Err("B is told as connected and never answered".to_owned());
    }
    let end = told(Side::Caller, CallStatus::CallDisconnected).map(|event| event.sip_code);
    if !connected && seen.caller.final_status.is_some() && seen.caller.final_status != end {
        let status = seen.caller.final_status;
        return Err(format!("A heard {status:?} and sipCode says {end:?}"));
    }
    Ok(())
}

/// Whether a session's snapshot has B's INVITE of this branch.
fn kept(ledger: &Ledger, session: Uuid, branch: &str) -> bool {
    let snapshot = ledger.snapshots.get(&session);
    let read = snapshot.and_then(|it| maskline_switch::snapshot::Snapshot::from_bytes(it).ok());
    read.is_some_and(|snapshot| {
        let abandoned = snapshot.abandoned_invites.iter().map(|it| &it.parts);
        let mut all = snapshot.callee_invite.iter().chain(abandoned);
        ledger.is_rejected(session) || all.any(|parts| parts.branch == branch)
    })
}

/// Shard and key of a snapshot.
pub(crate) fn owner_of(snapshot: &[u8]) -> Option<(u16, u64)> {
    let snapshot = maskline_switch::snapshot::Snapshot::from_bytes(snapshot).ok()?;
    Some((snapshot.shard, snapshot.key))
}

/// Whether a snapshot is of a connected call.
pub(crate) fn may_go_on(snapshot: &[u8]) -> bool {
    maskline_switch::snapshot::Snapshot::from_bytes(snapshot)
        .is_ok_and(|snapshot| snapshot.living.is_some())
}

/// No byte towards one party tells anything of the other party of its call.
pub(crate) fn privacy(call: usize, towards: Side, text: &str) -> Result<(), String> {
    let tells = site::sentinels(call, towards.other())
        .into_iter()
        .find(|it| text.contains(it));
    match tells {
        None => Ok(()),
        Some(_) => Err(format!(
            "a message towards {towards:?} tells of the other party:\n{text}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_unheard_until_an_answer_to_its_last_invite_comes_in_time() {
        let answer = |branch: &str| {
            format!(
                "SIP/2.0 100 Trying\r\nVia: SIP/2.0/UDP 198.18.0.1:5060;branch={branch}\r\n\
                 From: <sip:x@y>;tag=1\r\nCSeq: 1 INVITE\r\n\r\n"
            )
        };
        let at = |seconds| Tick::from_start(Duration::from_secs(seconds));
        let wire = Wire::first(0, Side::Callee);
        let mut watch = Watch::default();
        assert!(!watch.never_heard(wire), "it was not even invited");
        for (branch, seconds, unheard) in [
            ("z9hG4bK1", 33, true),
            ("z9hG4bK0", 1, true),
            ("z9hG4bK1", 31, false),
        ] {
            watch.on_invited(at(0), wire, "z9hG4bK1");
            watch.on_arrival(at(seconds), wire, &Glance::at(&answer(branch)));
            assert_eq!(watch.never_heard(wire), unheard, "{branch} {seconds}");
        }
        watch.on_invited(at(40), wire, "z9hG4bK2");
        assert!(watch.never_heard(wire));
    }
}
