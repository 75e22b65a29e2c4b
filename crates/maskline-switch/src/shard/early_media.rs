//! Early media: what B's side sends before it answers reaches A, where the number's policy says so.
//!
//! A provisional answer of ours brings A a description of our own, and the relay is programmed. It
//! carries B's media to A and nothing to B, so that nobody talks through a call that is never
//! answered. No event tells of it: the legs are connected by the answer alone. What B's early dialogs
//! are is in [`super::early_dialogs`], how our provisionals travel in [`super::provisional`].

use maskline_events::EarlyMedia;
use maskline_media::{CalleeMedia, CallerMedia, MediaCommand, RemoteMedia, Side};

use super::Shard;
use super::answering::answer_to;
use crate::io::Action;
use crate::sdp::{self, Local, MediaDescription, Negotiated};
use crate::session::Session;
use crate::session::early::{HeardEarly, Provisional};
use crate::sip::{Response, view};

impl Shard {
    /// B has said something on its way to an answer: what A hears of it.
    pub(super) fn on_progress(&mut self, s: &mut Session, response: &Response) {
        let sdp = match s.number.early_media {
            // A local ringing tone: nothing of what B sends is passed on.
            EarlyMedia::Ringback => None,
            EarlyMedia::PassThrough => self.hear_early(s, response),
        };
        let rings = response.status.code() == 180 && self.on_ringing(s);
        if rings || sdp.is_some() {
            let status = if rings { 180 } else { 183 };
            self.send_provisional(s, Provisional { status, sdp });
        }
    }

    /// Lets A hear what a provisional answer of B describes. `None`: there is nothing to tell A.
    fn hear_early(&mut self, s: &mut Session, response: &Response) -> Option<String> {
        // 199 ends an early dialog (RFC 6228).
        if !(101..=198).contains(&response.status.code()) || response.body().is_empty() {
            return None;
        }
        let remote_tag = view::to_tag(&response.headers)?;
        let early = s.outbound.as_ref()?.early.with_tag(&remote_tag)?;
        let described = early.described.as_ref()?.media().clone();
        // Without an offer of A there is nothing that a provisional could answer.
        let offer = s.caller.described.clone()?;
        let port = s.port_towards(Side::Caller)?;
        if !described.direction.sends() {
            return None;
        }
        let Some(negotiated) = self.negotiated_first(s, &offer, &described) else {
            self.count("early_media_unusable");
            return None;
        };
        let write = |local: &Local| answer_to(local, &offer, &described, &negotiated);
        match &s.provisionals.heard {
            Some(heard) if heard.remote_tag != remote_tag => {
                self.count("early_media_of_another_fork");
                None
            }
            Some(heard) if heard.sdp != write(&self.local(s, Side::Caller, port)) => {
                self.count("early_media_changed");
                None
            }
            Some(_) => {
                // B's announcement comes from another place, which A does not see.
                self.program_early(s, &offer, &described, &negotiated);
                None
            }
            None => {
                let sdp = self.describe(s, Side::Caller, port, write);
                s.provisionals.heard = Some(HeardEarly {
                    remote_tag,
                    sdp: sdp.clone(),
                    is_answer: false,
                });
                self.count("early_media");
                self.program_early(s, &offer, &described, &negotiated);
                Some(sdp)
            }
        }
    }

    fn program_early(
        &mut self,
        s: &Session,
        offer: &MediaDescription,
        described: &MediaDescription,
        negotiated: &Negotiated,
    ) {
        let key = s.media_key(self.config.shard);
        let (caller_payloads, callee_payloads) = sdp::media_payloads(negotiated);
        let callee = CalleeMedia(RemoteMedia {
            receives: false,
            ..self.remote(s, Side::Callee, described, callee_payloads)
        });
        let caller = CallerMedia(self.remote(s, Side::Caller, offer, caller_payloads));
        self.actions
            .push_back(Action::Media(MediaCommand::ProgramCallee {
                key,
                media: callee,
            }));
        self.actions
            .push_back(Action::Media(MediaCommand::ProgramCaller {
                key,
                media: caller,
            }));
    }

    /// B has answered, which may be with other media than A was told of: the version of our
    /// description counts up before the snapshot is written.
    pub(super) fn settle_early_media(&self, s: &mut Session) {
        if s.provisionals.heard.is_some() {
            let _in_last_sdp = self.answer_sdp(s);
        }
    }

    /// What A's 200 has to say in place of `sdp`: the answer that a reliable provisional gave before.
    pub(super) fn answered_early(&self, s: &Session, sdp: &str) -> Option<String> {
        let heard = s.provisionals.heard.as_ref()?;
        (heard.is_answer && heard.sdp != sdp).then(|| heard.sdp.clone())
    }
}
