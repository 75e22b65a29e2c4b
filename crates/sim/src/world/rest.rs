//! The end of a run: nothing may be left, and every session is told to its end.

use maskline_events::EarlyMedia;
use maskline_media::Side;
use maskline_phone::Report;
use maskline_switch::TrunkId;

use super::{Checked, Outcome, World};
use crate::ledger::SessionLog;
use crate::{checks, site};

impl World<'_> {
    /// What is left when nothing more happens, or too much.
    pub(super) fn unrest(&self) -> String {
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
            for trunk in 0..site::trunks(self.scenario).len() {
                let places =
                    u16::try_from(trunk).map_or(0, |at| switch.admission.calls(TrunkId(at)));
                if places > 0 {
                    left.push(format!("{places} places of trunk {trunk}"));
                }
            }
            let waiting = switch.queues.as_ref().map_or(0, |queues| queues.len());
            if waiting > 0 {
                left.push(format!("{waiting} messages in queues"));
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
    pub(super) fn check_rest(&self) -> Checked {
        let unrest = self.unrest();
        if !unrest.is_empty() {
            return Err((format!("left at the end: {unrest}"), None));
        }
        // A process knows nothing of what the one before it refused, and may take its repetition.
        if let Some((_, call)) = self.refused.intersection(&self.begun).next() {
            let what = "a call that was refused for overload is in the journal".to_owned();
            return Err((what, Some(*call)));
        }
        for (session, log) in &self.store.ledger.sessions {
            let call = self.calls.get(session).copied();
            if self.store.ledger.is_rejected(*session) {
                continue;
            }
            if log.summary.is_none() {
                return Err(("a session without a summary".to_owned(), call));
            }
            let report = |side| call.map(|call| self.report(call, side)).unwrap_or_default();
            let plan = call.and_then(|call| self.scenario.calls.get(call));
            let streams_break = plan.is_some_and(|plan| plan.stream_breaks.is_some());
            let seen = checks::Seen {
                caller: report(Side::Caller),
                callee: report(Side::Callee),
                never_pracks: plan.is_some_and(|plan| plan.caller_manners.never_pracks),
                early_media: plan.map_or_else(EarlyMedia::default, |plan| plan.early_media),
                cut_off: self.crashes > 0 || streams_break,
            };
            let number = call.map(site::virtual_number).unwrap_or_default();
            let shows = self.scenario.numbering.shows(&number);
            checks::agreement(log, &seen, &shows).map_err(|what| (what, call))?;
        }
        for (wire, phone) in &self.phones {
            let excused = self.scenario.calls.get(wire.call).is_some_and(|plan| {
                let numbering = self.scenario.numbering;
                let manners = site::phone_config(*wire, plan, numbering).manners;
                // What a stream or a process took with it is not sent again.
                manners.ignores_bye || plan.stream_breaks.is_some() || self.crashes > 0
            });
            if let Some(status) = phone.report().copies.iter().find(|it| **it != 482) {
                let what = format!("an INVITE that is no new call was answered {status}");
                return Err((what, Some(wire.call)));
            }
            // One that crashed twice begins twice from the same snapshot.
            if phone.report().repeated_number && self.crashes == 0 {
                let what = "two requests of a dialog have the same number".to_owned();
                return Err((what, Some(wire.call)));
            }
            // A restarted node does not know what the one before it proved.
            if phone.report().bare_ack && self.crashes == 0 {
                let what = "an ACK lacks the credentials of its INVITE".to_owned();
                return Err((what, Some(wire.call)));
            }
            let excused = excused || self.watch.never_heard(*wire);
            if phone.report().patience_ran_out && !excused {
                let what = format!("{:?} had to give up a call that was over", wire.side);
                return Err((what, Some(wire.call)));
            }
        }
        self.traces.check(&self.calls, self.crashes == 0)
    }

    /// What a side's phone saw: of B's the one that answered, else the first.
    fn report(&self, call: usize, side: Side) -> Report {
        let lines = self.reports(call, side);
        let answered = lines.iter().find(|line| line.final_status == Some(200));
        answered.or(lines.first()).cloned().unwrap_or_default()
    }

    fn reports(&self, call: usize, side: Side) -> Vec<Report> {
        self.phones
            .iter()
            .filter(|(wire, _)| wire.call == call && wire.side == side)
            .map(|(_, phone)| phone.report())
            .collect()
    }

    pub(super) fn outcome(self) -> Outcome {
        let calls = 0..self.scenario.calls.len();
        let phones = calls
            .clone()
            .map(|call| {
                let report = |side| self.report(call, side);
                (report(Side::Caller), report(Side::Callee))
            })
            .collect();
        let lines = calls.map(|call| self.reports(call, Side::Callee)).collect();
        let mut sessions: Vec<SessionLog> = self.store.ledger.sessions.into_values().collect();
        sessions.sort_by(|one, other| one.called.cmp(&other.called));
        Outcome {
            trace_hash: self.trace.hash(),
            steps: self.step,
            rested_at: self.now.since_start(),
            sessions,
            phones,
            registrar: self.registrars.log(self.now),
            lines,
            counts: self.counts,
            ladder: self.trace.ladder(None),
        }
    }
}
