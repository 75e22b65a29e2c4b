//! What the switch tells of its calls for later, against what was on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use maskline_media::{Side, Tick};
use maskline_switch::TraceEntry;
use maskline_switch::sdp::without_keys;
use maskline_switch::trace::{Direction, Step, TraceEvent};
use uuid::Uuid;

use crate::wire::Glance;

/// How long what comes after the end is still told: 64·T1.
const AFTER: Duration = Duration::from_secs(32);

type Line = (Tick, Direction, Side, Bytes);

/// Both, as they came.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    wire: BTreeMap<usize, Vec<Line>>,
    told: BTreeMap<Uuid, Told>,
}

#[derive(Debug, Default)]
struct Told {
    messages: Vec<Line>,
    steps: Vec<Step>,
    ended: Option<Tick>,
}

impl Traces {
    /// A message of a call was on the wire.
    pub(crate) fn on_wire(
        &mut self,
        at: Tick,
        call: usize,
        direction: Direction,
        side: Side,
        bytes: &Bytes,
    ) {
        // No key is ever in a trace.
        let shown = without_keys(bytes).map_or_else(|| bytes.clone(), Bytes::from);
        let line = (at, direction, side, shown);
        self.wire.entry(call).or_default().push(line);
    }

    /// The switch tells something.
    pub(crate) fn on_entry(&mut self, entry: TraceEntry) {
        let told = self.told.entry(entry.session_id).or_default();
        match entry.what {
            TraceEvent::Message(it) => {
                let line = (entry.at.tick, it.direction, it.side, it.bytes);
                told.messages.push(line);
            }
            TraceEvent::Step(step) => {
                if matches!(step, Step::Ended { .. }) {
                    told.ended = Some(entry.at.tick);
                }
                told.steps.push(step);
            }
        }
    }

    /// Each call's trace has each message of its wire in order and none of another's; what a phone
    /// sends in no dialog of the call's is noise. Where a process died, it may have taken some with it.
    pub(crate) fn check(
        &self,
        calls: &BTreeMap<Uuid, usize>,
        whole: bool,
    ) -> Result<(), (String, Option<usize>)> {
        let none = Vec::new();
        for (session, told) in &self.told {
            let Some(call) = calls.get(session).copied() else {
                continue;
            };
            let broken = |what: &str| Err((what.to_owned(), Some(call)));
            let wire = self.wire.get(&call).unwrap_or(&none);
            if let Some(stranger) = told.messages.iter().find(|line| !wire.contains(line)) {
                return broken(&format!(
                    "the trace has what was not on the call's wire: {}",
                    String::from_utf8_lossy(&stranger.3)
                ));
            }
            // What was told before the process died may be lost.
            let adopted = |step: &Step| matches!(step, Step::Adopted);
            if let Some(at) = told.steps.iter().rposition(adopted)
                && !told
                    .steps
                    .iter()
                    .skip(at)
                    .any(|it| matches!(it, Step::Leg { .. }))
            {
                return broken("the trace of an adopted call does not tell its legs");
            }
            if !whole {
                continue;
            }
            let own: BTreeSet<String> = wire
                .iter()
                .filter(|(_, direction, _, bytes)| {
                    *direction == Direction::Out && has_tag_of_switch(bytes)
                })
                .map(|line| call_id(&line.3))
                .collect();
            let in_time = |line: &&Line| told.ended.is_none_or(|end| line.0 < end + AFTER);
            let of_call = wire.iter().filter(in_time);
            let of_call =
                of_call.filter(|line| own.contains(&call_id(&line.3)) && !is_of_copy(&line.3));
            // An INVITE that was only asked for credentials belongs to no session.
            let asked: BTreeSet<_> = wire
                .iter()
                .filter(|line| line.3.starts_with(b"SIP/2.0 401"))
                .filter_map(callers_invite)
                .collect();
            let of_call = of_call
                .filter(|line| callers_invite(line).is_none_or(|invite| !asked.contains(&invite)));
            let mut traced = told.messages.iter().filter(in_time);
            if let Some(missed) = of_call.into_iter().find(|line| traced.next() != Some(line)) {
                return broken(&format!(
                    "the trace misses a message of the call's wire: {}\nthe trace: {}",
                    String::from_utf8_lossy(&missed.3),
                    told.messages.iter().map(first_line).collect::<String>()
                ));
            }
            let ends = told.steps.iter();
            if ends.filter(|it| matches!(it, Step::Ended { .. })).count() != 1 {
                return broken("the trace does not end once");
            }
        }
        let untold = calls.iter().find(|(id, _)| !self.told.contains_key(id));
        match untold.filter(|_| whole) {
            Some((_, call)) => Err(("a session without a trace".to_owned(), Some(*call))),
            None => Ok(()),
        }
    }
}

/// Whether the switch put the tag of a session of its own into a message.
fn has_tag_of_switch(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    Glance::at(&text).switch_tag().is_some()
}

fn call_id(message: &[u8]) -> String {
    value_of(message, &["call-id", "i"])
}

/// What an INVITE of the caller, its answers and its ACK have in common.
fn callers_invite((_, direction, side, message): &Line) -> Option<(String, String)> {
    let is_response = message.starts_with(b"SIP/2.0 ");
    let by_caller = *side == Side::Caller && is_response == (*direction == Direction::Out);
    let cseq = value_of(message, &["cseq"]);
    let (number, method) = cseq.split_once(' ')?;
    (by_caller && matches!(method.trim(), "INVITE" | "ACK"))
        .then(|| (call_id(message), number.to_owned()))
}

fn value_of(message: &[u8], names: &[&str]) -> String {
    let text = String::from_utf8_lossy(message);
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = names.contains(&name.trim().to_ascii_lowercase().as_str());
        is_it.then(|| value.trim().to_owned())
    });
    value.unwrap_or_default()
}

/// Whether a message is of an INVITE that is no new call: the phone marks its branch.
fn is_of_copy(message: &[u8]) -> bool {
    String::from_utf8_lossy(message).contains("markcopy")
}

fn first_line((at, direction, side, bytes): &Line) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    format!("\n  {:?} {direction:?} {side:?} {line}", at.since_start())
}
