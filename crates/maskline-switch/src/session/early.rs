//! What a call needs before its answer: our provisional answers to A, the early dialogs with B
//! (RFC 3261 §12.1, RFC 3262).

use std::collections::VecDeque;
use std::time::Duration;

use maskline_media::Tick;

use crate::dialog::Dialog;
use crate::sdp::MediaDescription;
use crate::sip::extensions::{Numbering, Sequence};
use crate::sip::{Headers, Response};

/// Most early dialogs of one INVITE that are kept: a carrier that forks to more is served too, but
/// their provisional answers are not acknowledged.
const MOST_EARLY_DIALOGS: usize = 8;

/// Our provisional answers to A's INVITE.
#[derive(Clone, Debug)]
pub struct Provisionals {
    /// Whether they are sent reliably: A supports or requires that.
    pub reliable: bool,
    /// The `CSeq` number of A's INVITE.
    pub invite_cseq: u32,
    /// Their `RSeq` numbers, once there is one.
    pub numbering: Option<Numbering>,
    /// The one that waits for its PRACK.
    pub unacknowledged: Option<PendingProvisional>,
    /// Those that wait for that one.
    pub waiting: VecDeque<Provisional>,
    /// Whether A's 200 waits for a PRACK.
    pub holds_answer: bool,
    /// What A was told of B's media before the answer.
    pub heard: Option<HeardEarly>,
}

impl Provisionals {
    /// For an INVITE of which none was answered yet.
    #[must_use]
    pub const fn new(reliable: bool, invite_cseq: u32) -> Self {
        Self {
            reliable,
            invite_cseq,
            numbering: None,
            unacknowledged: None,
            waiting: VecDeque::new(),
            holds_answer: false,
            heard: None,
        }
    }
}

/// Media of B that A hears before the answer.
#[derive(Clone, PartialEq, Eq)]
pub struct HeardEarly {
    /// The To tag of the early dialog of B that it belongs to: the first that described any.
    pub remote_tag: String,
    /// Our description of it to A.
    pub sdp: String,
    /// Whether that left in a reliable provisional: then it is the answer to A's offer, and no 2xx
    /// can bring another one (RFC 3261 §13.2.1, RFC 3262 §5).
    pub is_answer: bool,
}

/// A provisional answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Provisional {
    /// Its status, 101-199.
    pub status: u16,
    /// Its SDP.
    pub sdp: Option<String>,
}

/// A provisional answer that is sent again until its PRACK comes (RFC 3262 §3).
#[derive(Clone, Debug)]
pub struct PendingProvisional {
    /// The response.
    pub response: Response,
    /// Whether it carries SDP: then a 2xx has to wait for the PRACK.
    pub has_sdp: bool,
    /// The time to the next one.
    pub interval: Duration,
    /// When to give up.
    pub gives_up: Tick,
}

/// The early dialogs of B's INVITE, one for each To tag.
#[derive(Clone, Debug, Default)]
pub struct EarlyDialogs {
    dialogs: Vec<EarlyDialog>,
    /// Whether an earlier run of this node may have had some.
    lost: bool,
}

/// One early dialog.
#[derive(Clone, Debug)]
pub struct EarlyDialog {
    /// The dialog, with the `CSeq` numbers that were used in it.
    pub dialog: Dialog,
    /// Its reliable provisional answers so far.
    pub sequence: Sequence,
    /// How many were acknowledged.
    pub acknowledged: u32,
    /// What they said of B's media.
    pub described: Option<EarlyDescription>,
}

/// B's description of its media before the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EarlyDescription {
    /// In an unreliable provisional: what the 2xx is going to say, most often (RFC 3261 §13.2.1).
    Preview(MediaDescription),
    /// In a reliable one: the answer to our offer. The 2xx need not repeat it, and can't change it
    /// (RFC 3262 §5).
    Answer(MediaDescription),
}

impl EarlyDescription {
    /// The description.
    #[must_use]
    pub const fn media(&self) -> &MediaDescription {
        match self {
            Self::Preview(media) | Self::Answer(media) => media,
        }
    }
}

impl EarlyDialog {
    /// Takes what a provisional answer says of B's media. Behind an answer nothing counts.
    pub fn describe(&mut self, media: MediaDescription, reliable: bool) {
        match (&self.described, reliable) {
            (Some(EarlyDescription::Answer(_)), _) => {}
            (Some(EarlyDescription::Preview(_)) | None, true) => {
                self.described = Some(EarlyDescription::Answer(media));
            }
            (Some(EarlyDescription::Preview(_)) | None, false) => {
                self.described = Some(EarlyDescription::Preview(media));
            }
        }
    }
}

impl EarlyDialogs {
    /// Those of an earlier run, of which nothing is known.
    #[must_use]
    pub const fn lost() -> Self {
        Self {
            dialogs: Vec::new(),
            lost: true,
        }
    }

    /// The dialog of this To tag.
    #[must_use]
    pub fn with_tag(&self, remote_tag: &str) -> Option<&EarlyDialog> {
        self.dialogs
            .iter()
            .find(|early| early.dialog.remote_tag == remote_tag)
    }

    /// The dialog of this To tag.
    pub fn with_tag_mut(&mut self, remote_tag: &str) -> Option<&mut EarlyDialog> {
        self.dialogs
            .iter_mut()
            .find(|early| early.dialog.remote_tag == remote_tag)
    }

    /// The dialog that a message of the peer belongs to.
    pub fn owner_of(&mut self, headers: &Headers) -> Option<&mut EarlyDialog> {
        self.dialogs
            .iter_mut()
            .find(|early| early.dialog.owns(headers))
    }

    /// Keeps a new one; `false`: there are too many.
    pub fn insert(&mut self, dialog: Dialog) -> bool {
        let room = self.dialogs.len() < MOST_EARLY_DIALOGS;
        if room {
            self.dialogs.push(EarlyDialog {
                dialog,
                sequence: Sequence::default(),
                acknowledged: 0,
                described: None,
            });
        }
        room
    }

    /// Goes on with the numbers of the early dialog that this one was (RFC 3261 §13.2.2.4).
    pub fn confirm(&self, dialog: &mut Dialog) {
        if let Some(early) = self.with_tag(&dialog.remote_tag) {
            dialog.local_cseq = dialog.local_cseq.max(early.dialog.local_cseq);
            dialog.remote_cseq = early.dialog.remote_cseq;
        } else if self.lost {
            dialog.adopt();
        }
    }
}
