//! Taking over what an earlier run of this node left open. A connected call goes on after a short
//! restart ([`super::reviving`]). Any other is finished: both dialogs are ended, the events that
//! nobody saw are made up with -2001, and the summary follows.

use std::collections::BTreeMap;
use std::time::Duration;

use maskline_events::{ErrorCode, ErrorDetails, LegStatus, SessionStatus};
use maskline_media::Side;

use super::reviving::rebuilt;
use super::{Purpose, Shard};
use crate::attempts::Attempts;
use crate::dialog::Dialog;
use crate::io::SessionKey;
use crate::session::early::{EarlyDialogs, Provisionals};
use crate::session::{
    Callee, CalleeInvite, CallerInvite, Media, OwedBye, PartyDialog, Session, Stage,
};
use crate::snapshot::Snapshot;

impl Shard {
    /// Takes over a session by its last snapshot.
    pub(super) fn adopt(&mut self, snapshot: &[u8], away: Option<Duration>) {
        let mut snapshot = match Snapshot::from_bytes(snapshot) {
            Ok(snapshot) => snapshot,
            Err(_) => {
                // It stays in the store for a version that can read it.
                self.count("snapshot_unreadable");
                return;
            }
        };
        if self.sessions.contains_key(&snapshot.key) {
            self.count("snapshot_repeated");
            return;
        }
        self.count("session_adopted");
        snapshot.take_sockets(&self.config);
        let key = snapshot.key;
        let cancelling = snapshot.callee_cancelling;
        let living = snapshot.living.take();
        let expiries = (snapshot.caller_expiry, snapshot.callee_expiry);
        let session = restore(snapshot);
        self.trace_adopted(&session);
        self.remember_adopted(&session);
        self.sessions.insert(key, Box::new(session));
        self.with(key, |shard, s| {
            let going_on = living.and_then(|living| {
                let placed = shard.place_again(s, &living, away)?;
                Some((living, placed))
            });
            match going_on {
                Some((living, placed)) => shard.revive(s, living, &placed, expiries),
                None => {
                    shard.trace_legs(s);
                    shard.finish_adopted(s, cancelling);
                }
            }
        });
    }

    /// `cancelling`: B's INVITE was given up before the restart, and its end was not seen.
    fn finish_adopted(&mut self, s: &mut Session, cancelling: bool) {
        let error = ErrorDetails::with_reason(
            ErrorCode::Internal,
            "the platform restarted during the call",
        );
        let a_live = s.is_live(Side::Caller);
        let b_live = s.is_live(Side::Callee);
        let connected = s.a.connected.is_some();
        // What the phones hear: they have waited long enough, so nothing here waits for a commit.
        if a_live && !connected {
            self.refuse_adopted(&s.caller_invite);
        }
        for side in [Side::Caller, Side::Callee] {
            let owed = s.party(side).owed_bye.is_some();
            let live = s.is_live(side) && connected;
            if owed || live {
                let purpose = match side {
                    // Whether A's 200 left before the restart is not known: if A does not know the
                    // dialog, its INVITE is refused.
                    Side::Caller => {
                        self.adopted.insert(s.key, s.caller_invite.clone());
                        Purpose::AdoptedBye(s.key)
                    }
                    Side::Callee => Purpose::Farewell,
                };
                self.send_bye_for(s, side, purpose);
            }
        }
        if cancelling || (b_live && !connected) {
            self.cancel_adopted(s);
        }
        self.cancel_adopted_attempts(s);
        if s.stage == Stage::Summarised {
            return;
        }
        if a_live || b_live {
            if connected || !a_live {
                s.status = Some(SessionStatus::Error);
                s.error = Some(error.clone());
                self.end_leg(
                    s,
                    Side::Caller,
                    200,
                    LegStatus::Completed,
                    Some(error.clone()),
                );
                self.end_leg(s, Side::Callee, 200, LegStatus::Completed, Some(error));
            } else {
                let a_status = if b_live {
                    LegStatus::Completed
                } else {
                    LegStatus::Error
                };
                s.status = Some(SessionStatus::Error);
                s.error = Some(error.clone());
                self.end_leg(s, Side::Callee, 487, LegStatus::Error, Some(error.clone()));
                self.end_leg(s, Side::Caller, 500, a_status, Some(error));
            }
        }
        self.summarise(s);
    }

    /// A's answer to the BYE of an adopted call, or that there was none.
    pub(super) fn on_adopted_bye(&mut self, key: SessionKey, status: Option<u16>) {
        if let Some(invite) = self.adopted.remove(&key)
            && status.is_none_or(|status| status >= 300)
        {
            self.refuse_adopted(&invite);
        }
    }

    /// A's INVITE never got its final answer, and its transaction died with the process: it is taken
    /// up, so that the refusal is sent again until it is acknowledged.
    fn refuse_adopted(&mut self, invite: &CallerInvite) {
        let Some(request) = rebuilt(invite, &[]) else {
            return;
        };
        let tag = invite.to.rsplit_once(";tag=").map(|(_, tag)| tag);
        let resumed = self
            .transactions
            .resume_request(self.now.tick, invite.peer, request.clone());
        if let Some(tx) = resumed {
            self.respond(tx, &request, 500, tag, &[]);
        }
    }

    /// Copies of A's INVITE may still come by other ways.
    fn remember_adopted(&mut self, s: &Session) {
        let lingers = self.config.timers.timeout();
        let age = self
            .now
            .wall
            .unix_ms()
            .saturating_sub(s.a.initiated.unix_ms());
        if u128::try_from(age).is_ok_and(|age| age < lingers.as_millis())
            && let Some(invite) = rebuilt(&s.caller_invite, &[])
        {
            self.taken.remember(&invite, self.now.tick + lingers);
        }
    }

    /// B may still ring: its INVITE is taken up and cancelled, so that whatever still comes of it is
    /// dealt with like any other cancelled one.
    fn cancel_adopted(&mut self, s: &mut Session) {
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        let peer = callee.parts.peer;
        let resumed = self.compose_invite(callee, None).and_then(|invite| {
            let owner = Purpose::Invite(s.key, s.attempts.current);
            self.transactions
                .resume_invite(self.now.tick, peer, invite, owner)
        });
        if let Some(tx) = resumed {
            callee.invite = CalleeInvite::Cancelling { tx, sent: false };
            self.send_cancel(s);
        }
    }
}

fn restore(snapshot: Snapshot) -> Session {
    let number = snapshot.number();
    let party = |dialog: Option<Dialog>, owed: bool| PartyDialog {
        dialog: dialog.map(|mut dialog| {
            dialog.adopt();
            dialog
        }),
        owed_bye: owed.then_some(OwedBye::Gated),
        ..PartyDialog::default()
    };
    let stage = if snapshot.summarised {
        Stage::Summarised
    } else {
        Stage::Closing
    };
    Session {
        key: snapshot.key,
        id: snapshot.session_id,
        number,
        stage,
        ordinal: snapshot.ordinal,
        a: snapshot.a,
        b: snapshot.b,
        withheld: snapshot.withheld,
        caller: party(snapshot.caller, snapshot.caller_owed_bye),
        invite: None,
        caller_invite: snapshot.caller_invite,
        provisionals: Provisionals::new(false, 0),
        final_sent: true,
        callee: party(snapshot.callee, snapshot.callee_owed_bye),
        outbound: snapshot.callee_invite.map(|parts| Callee {
            parts,
            invite: CalleeInvite::Ended,
            early: EarlyDialogs::lost(),
            tries: 0,
            credentials: Vec::new(),
        }),
        attempts: Attempts::restored(snapshot.abandoned_invites),
        negotiated: None,
        media: Media::None,
        media_address: None,
        last_action: snapshot.last_action,
        status: snapshot.status,
        error: snapshot.error,
        places: Vec::new(),
        timers: BTreeMap::new(),
        gates: 0,
        snapshot_kept: true,
        unsaved: Vec::new(),
        quality: (None, None),
    }
}
