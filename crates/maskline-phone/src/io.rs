//! What goes into a phone, what comes out of it, and what it tells of its call.

use std::net::SocketAddr;

use bytes::Bytes;
use maskline_switch::sdp::MediaDescription;
use maskline_switch::sip::Peer;

use crate::changing::Change;

/// What happened to a phone.
#[derive(Clone, Debug)]
pub enum PhoneInput {
    /// A datagram, or one whole message that a stream's framing cut out.
    MessageArrived {
        /// Who sent it.
        peer: Peer,
        /// The message.
        bytes: Bytes,
    },
    /// A packet arrived at the media socket.
    RtpArrived {
        /// Who sent it.
        from: SocketAddr,
        /// The packet.
        bytes: Bytes,
    },
    /// A connection could not be made, or broke.
    TransportFailed(Peer),
    /// The user dials. Ignored unless the phone is new and a caller.
    Dial {
        /// Where the INVITE goes.
        peer: Peer,
        /// The Request-URI.
        uri: String,
    },
    /// The user hangs up: CANCEL, a refusal or BYE, whatever fits.
    HangUp,
    /// The user puts the other party on hold (`true`) or takes it back.
    Hold(bool),
    /// The user changes the call in another way, or by another request.
    Change(Change),
    /// The user presses a key: `0`-`9`, `*`, `#`, `A`-`D`.
    Press(char),
    /// The same, told by INFO and not in the audio.
    PressByInfo(char),
    /// Nothing but the time: [`crate::Phone::deadline`] has come.
    DeadlineReached,
}

/// What a phone wants done.
#[derive(Clone, Debug)]
pub enum PhoneAction {
    /// Put these bytes on the signalling wire.
    Send {
        /// To whom.
        peer: Peer,
        /// One whole message.
        bytes: Bytes,
    },
    /// Send this packet from the media socket.
    SendRtp {
        /// To whom.
        to: SocketAddr,
        /// The packet.
        bytes: Bytes,
    },
    /// Something worth showing happened.
    Notice(PhoneEvent),
}

/// What a person beside the phone would see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneEvent {
    /// The INVITE left.
    Dialled,
    /// An INVITE arrived; the display shows this user part of its From.
    Called {
        /// Whom the display shows.
        shows: String,
    },
    /// The far end rings, or this phone does.
    Ringing,
    /// Both sides may speak: the ACK left or arrived.
    Talking,
    /// A key of the other party was heard.
    Digit(char),
    /// The call ended without an answer, with this final status.
    Refused(u16),
    /// The call ended by a BYE.
    HungUp {
        /// Whether this phone's.
        by_us: bool,
    },
    /// The call ended because nothing came back.
    Lost,
}

/// What a phone knows of its call, at any time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The user part of the From of an INVITE that arrived: what the display shows.
    pub shows: Option<String>,
    /// Whether ringing was heard or made.
    pub rang: bool,
    /// Whether both sides could speak.
    pub talked: bool,
    /// The final status of the INVITE, sent or received; the first one.
    pub final_status: Option<u16>,
    /// Requests of the other party that were refused for their credentials.
    pub asked: usize,
    /// Changes among them.
    pub asked_changes: usize,
    /// Two requests of one dialog came with the same number (RFC 3261 §12.2.1.1).
    pub repeated_number: bool,
    /// An ACK came without the credentials of its INVITE (RFC 3261 §13.2.2.4).
    pub bare_ack: bool,
    /// Dialogs that a 2xx made: more than one after a fork.
    pub dialogs: usize,
    /// The user's patience ran out: something that should have come never came.
    pub patience_ran_out: bool,
    /// A 2xx of this phone was never acknowledged.
    pub never_acknowledged: bool,
    /// A re-INVITE of this phone got no final answer, and its dialog ended.
    pub left_unanswered: bool,
    /// The answer to an UPDATE before the answer.
    pub early_update_status: Option<u16>,
    /// Session refreshes sent.
    pub refreshes_sent: u32,
    /// Session refreshes taken.
    pub refreshes_taken: u32,
    /// It ended the call because nobody refreshed the session.
    pub expired: bool,
    /// What a caller was told of media before the answer, the first time.
    pub early: Option<String>,
    /// Whether that came reliably, and was acknowledged by a PRACK.
    pub early_is_answer: bool,
    /// What the 2xx to a caller's INVITE said of media.
    pub answer: Option<String>,
    /// PRACKs sent by a caller, taken by a callee.
    pub pracks: u32,
    /// The other party's keys that came by INFO.
    pub info_digits: String,
    /// Changes of the call that were agreed to.
    pub changed: u32,
    /// The status that refused the last change that was.
    pub refused_change: Option<u16>,
    /// What the far end said of its media last.
    pub remote: Option<MediaDescription>,
    /// RTP packets sent.
    pub packets_sent: u64,
    /// RTP packets received.
    pub packets_received: u64,
    /// The share of the awaited tone in what was last heard, 0.0-1.0.
    pub tone_share: f64,
    /// The other party's keys.
    pub digits: String,
    /// The final statuses of INVITEs that were no new call.
    pub copies: Vec<u16>,
}
