//! Requests that arrive: new calls, what gives one up before it is answered, and what is refused.

use std::collections::BTreeMap;

use maskline_events::{CallStatus, LegStatus, Party, SessionStatus};
use maskline_media::{MediaCommand, Side};
use rand::RngCore;

use super::reading::{KEYS_IN_THE_CLEAR, Unfit};
use super::record::Detail;
use super::{Gated, Shard, repeated};
use crate::admission::Refusal;
use crate::attempts::Attempts;
use crate::config::TrunkId;
use crate::dialog::Dialog;
use crate::directory::NumberEntry;
use crate::identity::IdentityRules;
use crate::io::{Action, SessionKey};
use crate::overload::RETRY_AFTER_SECONDS;
use crate::sdp::{self, MediaDescription};
use crate::session::early::Provisionals;
use crate::session::{
    Allows, CallerInvite, Leg, LegSrtp, Media, PartyDialog, Session, SessionTimer, Stage,
};
use crate::sip::{HeaderName, LocalTag, Method, Peer, Request, TxId, compose, extensions, view};

/// The number that was called, and the offer.
type Examined = (std::sync::Arc<NumberEntry>, Option<MediaDescription>);

impl Shard {
    pub(super) fn on_request(&mut self, tx: TxId, request: Request, peer: Peer) {
        let required = extensions::not_understood(&request.headers);
        if !required.is_empty() && request.method != Method::Cancel {
            self.count("bad_extension");
            let unsupported = (HeaderName::Unsupported, required.join(", "));
            self.refuse(tx, &request, 420, &[unsupported]);
            return;
        }
        let in_dialog = view::to_tag(&request.headers).is_some();
        if in_dialog && self.answer_early(tx, &request) {
            return;
        }
        match &request.method {
            Method::Invite if in_dialog => self.on_reinvite(tx, &request),
            Method::Invite => self.on_new_call(tx, &request, peer),
            Method::Cancel => self.on_cancel(tx, &request),
            Method::Bye => self.on_bye(tx, &request),
            Method::Update => self.on_update(tx, &request),
            Method::Options if in_dialog => self.on_options_in_dialog(tx, &request),
            // A carrier that asks by OPTIONS whether to send calls here gets an INVITE's answer.
            Method::Options if self.draining || self.journal_down => {
                let retry = (HeaderName::RetryAfter, RETRY_AFTER_SECONDS.to_owned());
                self.refuse(tx, &request, 503, &[retry]);
            }
            Method::Options => {
                let offer = [
                    (HeaderName::Allow, compose::ALLOW.to_owned()),
                    (HeaderName::Accept, "application/sdp".to_owned()),
                    (HeaderName::Supported, extensions::SUPPORTED.to_owned()),
                ];
                self.refuse(tx, &request, 200, &offer);
            }
            // An ACK makes no transaction.
            Method::Ack => {}
            Method::Prack => self.on_prack(tx, &request),
            Method::Info => self.on_info(tx, &request),
            Method::Refer if in_dialog => self.on_refer_in_dialog(tx, &request),
            Method::Register
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish => {
                self.count("method_not_allowed");
                let allow = (HeaderName::Allow, compose::ALLOW.to_owned());
                self.refuse(tx, &request, 405, &[allow]);
            }
            // `Other`, and whatever a later version of the library may name.
            Method::Other(_) | _ => {
                self.count("method_unknown");
                let allow = (HeaderName::Allow, compose::ALLOW.to_owned());
                self.refuse(tx, &request, 501, &[allow]);
            }
        }
    }

    fn on_new_call(&mut self, tx: TxId, invite: &Request, peer: Peer) {
        // Before overload: the copy of a call that was taken is no call that may be tried again.
        let merged = self.taken.holds(invite);
        if merged || repeated::comes_back(invite, &self.config.listeners) {
            self.count(if merged { "merged_request" } else { "loop" });
            self.refuse(tx, invite, 482, &[]);
            return;
        }
        if self.draining || self.journal_down || self.sessions.len() >= self.config.max_sessions {
            self.count(if self.draining {
                "draining"
            } else if self.journal_down {
                "journal_down"
            } else {
                "sessions_full"
            });
            let retry = (HeaderName::RetryAfter, RETRY_AFTER_SECONDS.to_owned());
            self.refuse(tx, invite, 503, &[retry]);
            return;
        }
        if !self.admits(tx, invite, peer) {
            return;
        }
        if self.refuses_interval(tx, invite) {
            return;
        }
        let srtp = self.srtp_of(self.arriving_by, peer.transport);
        let examined = match srtp {
            Some(srtp) => self.examine(tx, invite, &srtp).map(|found| (found, srtp)),
            None => Err(KEYS_IN_THE_CLEAR),
        };
        let ((number, offer), srtp) = match examined {
            Ok(found) => found,
            Err(unfit) => {
                self.count(unfit.reason);
                let extra = self.refusal_headers(tx, unfit);
                self.refuse(tx, invite, unfit.status, &extra);
                return;
            }
        };
        let key = self.rng.next_u64().max(1);
        let local_tag = LocalTag {
            shard: self.config.shard,
            side: Side::Caller,
            session: key,
            secret: self.rng.next_u64(),
        }
        .to_string();
        let answers_to = self.transactions.peer(tx).unwrap_or(peer);
        let (Some(dialog), Some(caller_invite)) = (
            Dialog::of_caller(invite, &local_tag, peer),
            caller_invite(invite, &local_tag, answers_to),
        ) else {
            self.count("no_dialog");
            self.refuse(tx, invite, 400, &[]);
            return;
        };
        if self.sessions.contains_key(&key) {
            // One chance in 2^64 per session: the caller may try again.
            self.refuse(tx, invite, 500, &[]);
            return;
        }
        let caller = self.rules_of_arrival().caller(invite);
        // A virtual number never calls a virtual number: a carrier sent our own call back.
        if let Some(number) = caller.shown.number().or(caller.withheld.as_ref())
            && self.directory.number(number).is_some()
        {
            self.count("loop_of_number");
            self.refuse(tx, invite, 482, &[]);
            return;
        }
        self.taken
            .remember(invite, self.now.tick + self.config.timers.timeout());
        let invite_cseq = view::cseq(&invite.headers).map_or(0, |(number, _)| number);
        let session_id = self.new_uuid();
        let call_id = self.new_uuid();
        let session = Session {
            key,
            id: session_id,
            stage: Stage::Admitting,
            ordinal: 0,
            a: Leg {
                call_id,
                source: caller.shown,
                destination: Party::Number(number.msisdn.clone()),
                reference_id: number.reference_id.clone(),
                initiated: self.now.wall,
                connected: None,
                connected_tick: None,
                ringing: false,
                end: None,
            },
            b: None,
            withheld: caller.withheld,
            number,
            caller: PartyDialog {
                dialog: Some(dialog),
                described: offer,
                srtp,
                allows: Allows::of(&invite.headers),
                ..PartyDialog::default()
            },
            invite: Some(tx),
            caller_invite,
            provisionals: Provisionals::new(extensions::takes_reliable(invite), invite_cseq),
            final_sent: false,
            callee: PartyDialog::default(),
            outbound: None,
            attempts: Attempts::default(),
            negotiated: None,
            media: Media::None,
            media_address: None,
            last_action: None,
            status: None,
            error: None,
            places: Vec::new(),
            timers: BTreeMap::new(),
            gates: 0,
            snapshot_kept: false,
            unsaved: Vec::new(),
            quality: (None, None),
        };
        self.trace_begin(&session);
        self.respond(tx, invite, 100, None, &[]);
        self.invites.insert(tx, key);
        self.sessions.insert(key, Box::new(session));
        self.actions.push_back(Action::Admit {
            session: key,
            side: Side::Caller,
            trunk: self.arriving_by,
            source: Some(peer.addr.ip()),
        });
    }

    /// What a new call needs before anything is kept of it.
    fn examine(&self, tx: TxId, invite: &Request, srtp: &LegSrtp) -> Result<Examined, Unfit> {
        if view::max_forwards(&invite.headers) == 0 {
            return Err(Unfit::new(483, "too_many_hops"));
        }
        let number = self
            .rules_of_arrival()
            .called(invite, |called| self.directory.number(called).cloned())
            .ok_or(Unfit::new(404, "unassigned_number"))?;
        // RFC 3261 §13.2.1: our 200 will bring the offer.
        let Some(offer) = self.offer_in(tx, invite, srtp)? else {
            return Ok((number, None));
        };
        if !sdp::towards_callee(&offer, self.config.transcoding)
            .iter()
            .any(|codec| codec.name.is_voice())
        {
            return Err(Unfit::new(488, "no_common_codec"));
        }
        Ok((number, Some(offer)))
    }

    /// How the trunk of the message that is being handled writes numbers.
    fn rules_of_arrival(&self) -> IdentityRules {
        self.config
            .trunk(self.arriving_by)
            .map(|trunk| trunk.identity.clone())
            .unwrap_or_default()
    }

    pub(super) fn on_admission(
        &mut self,
        key: SessionKey,
        side: Side,
        trunk: TrunkId,
        result: Result<(), Refusal>,
    ) {
        let wanted = self.sessions.get(&key).is_some_and(|s| match side {
            Side::Caller => s.stage == Stage::Admitting,
            Side::Callee => {
                matches!(s.stage, Stage::Preparing(_) | Stage::Calling)
                    && s.attempts
                        .admitting
                        .is_some_and(|asked| asked.trunk == trunk)
            }
        });
        if !wanted {
            // The caller gave up in the meantime: the place goes back.
            if result.is_ok() {
                self.actions.push_back(Action::Release { trunk });
            }
            return;
        }
        self.with(key, |shard, s| match (result, side) {
            (Ok(()), Side::Caller) => {
                s.places.push((side, trunk));
                shard.receive_call(s);
            }
            (Ok(()), Side::Callee) => {
                s.places.push((side, trunk));
                if s.stage == Stage::Calling {
                    shard.on_next_place(s);
                } else {
                    s.attempts.admitting = None;
                    shard.open_media(s);
                }
            }
            (Err(refusal), _) => {
                let (reason, told) = match refusal {
                    Refusal::Calls => ("trunk_calls", "the trunk has no free place"),
                    Refusal::Rate => ("trunk_rate", "the trunk takes no more calls this second"),
                    Refusal::SourceRate => (
                        "source_rate",
                        "the caller's address may bring no more calls this second",
                    ),
                };
                shard.count(reason);
                shard.trace_note(s, told);
                match side {
                    Side::Caller => shard.refuse_unadmitted(s),
                    Side::Callee => {
                        s.attempts.admitting = None;
                        shard.try_next(s);
                    }
                }
            }
        });
    }

    /// A call above its trunk's limits: nothing was recorded of it.
    fn refuse_unadmitted(&mut self, s: &mut Session) {
        let cause = (HeaderName::Reason, "Q.850;cause=34".to_owned());
        self.refuse_caller(s, 480, &[cause]);
        // Without an event there is nothing to summarise.
        s.stage = Stage::Summarised;
    }

    /// The call is accepted for handling: its first event.
    fn receive_call(&mut self, s: &mut Session) {
        s.stage = Stage::Journaling;
        self.trace_admitted(s);
        self.record(s, Side::Caller, CallStatus::CallReceived, Detail::default());
        let commit = self.save(s);
        self.gate(s, commit, Gated::AskCallflow);
    }

    fn open_media(&mut self, s: &mut Session) {
        s.media = Media::Opening;
        let seed = self.rng.next_u64();
        self.actions.push_back(Action::Media(MediaCommand::Open {
            key: s.media_key(self.config.shard),
            seed,
        }));
        self.set_timer(
            s,
            SessionTimer::MediaGuard,
            std::time::Duration::from_secs(5),
        );
    }

    fn on_cancel(&mut self, tx: TxId, cancel: &Request) {
        let Some(invite) = self.transactions.invite_of(cancel) else {
            self.count("cancel_of_nothing");
            self.refuse(tx, cancel, 481, &[]);
            return;
        };
        let Some(key) = self.invites.get(&invite).copied() else {
            // Answered already: the CANCEL changes nothing (RFC 3261 §9.2).
            self.refuse(tx, cancel, 200, &[]);
            return;
        };
        self.with(key, |shard, s| {
            let tag = s.caller.dialog.as_ref().map(|d| d.local_tag.clone());
            shard.respond(tx, cancel, 200, tag.as_deref(), &[]);
            if s.invite == Some(invite) {
                shard.caller_gave_up(s);
            } else {
                shard.cancel_asked(s, invite);
            }
        });
    }

    /// A's CANCEL, or its BYE on the early dialog: decides only while A was not answered.
    pub(super) fn caller_gave_up(&mut self, s: &mut Session) {
        match &s.stage {
            Stage::Admitting => {
                self.refuse_caller(s, 487, &[]);
                s.stage = Stage::Summarised;
            }
            Stage::Journaling | Stage::Asking | Stage::Preparing(_) | Stage::Calling => {
                s.status = Some(SessionStatus::Canceled);
                if matches!(s.stage, Stage::Preparing(_)) {
                    // B was decided on and nobody was told of it: there never was a B.
                    self.release_places(s, Side::Callee);
                    s.b = None;
                }
                self.refuse_caller(s, 487, &[]);
                self.end_leg(s, Side::Caller, 487, LegStatus::Canceled, None);
                if s.b.is_some() {
                    self.cancel_callee(s);
                    self.end_leg(s, Side::Callee, 487, LegStatus::Canceled, None);
                }
                self.save(s);
                self.close(s);
            }
            Stage::Answering | Stage::Connected | Stage::Closing | Stage::Summarised => {}
        }
    }

    /// A's final refusal.
    pub(super) fn refuse_caller(
        &mut self,
        s: &mut Session,
        status: u16,
        extra: &[(HeaderName, String)],
    ) {
        if s.final_sent {
            return;
        }
        s.final_sent = true;
        self.stop_provisionals(s);
        let Some(tx) = s.invite.take() else {
            return;
        };
        self.invites.remove(&tx);
        let tag = s.caller.dialog.as_ref().map(|d| d.local_tag.clone());
        let response = self
            .transactions
            .request(tx)
            .and_then(|invite| compose::response(invite, status, tag.as_deref(), extra, None));
        if let Some(response) = response {
            self.transactions.respond(self.now.tick, tx, response);
        }
    }
}

fn caller_invite(invite: &Request, local_tag: &str, peer: Peer) -> Option<CallerInvite> {
    let headers = &invite.headers;
    let to = view::text(headers, &HeaderName::To)?;
    Some(CallerInvite {
        vias: headers
            .get_all(&HeaderName::Via)
            .map(|via| String::from_utf8_lossy(&via.value()).into_owned())
            .collect(),
        from: view::text(headers, &HeaderName::From)?,
        to: format!("{to};tag={local_tag}"),
        call_id: view::call_id(headers)?,
        cseq: view::text(headers, &HeaderName::CSeq)?,
        terms: [
            HeaderName::Supported,
            HeaderName::Require,
            HeaderName::SessionExpires,
            HeaderName::MinSe,
        ]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .map(|header| {
            let value = String::from_utf8_lossy(&header.value()).into_owned();
            (header.name().to_string(), value)
        })
        .collect(),
        peer,
    })
}
