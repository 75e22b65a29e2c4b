//! How a phone is set up and how it will behave.

use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::Voice;
use maskline_switch::OutboundAuth;
use maskline_switch::sip::SipTimers;
use maskline_switch::sip::compose::SentBy;

use crate::announcing::Announcement;
use crate::audio::Audio;
use crate::digest::Asks;
use crate::keys::Keys;

/// Everything about a phone.
#[derive(Clone, Debug)]
pub struct PhoneConfig {
    /// Its signalling address, as `Via` and `Contact` say.
    pub sent_by: SentBy,
    /// Where it wants RTP.
    pub media: SocketAddr,
    /// Who it says it is.
    pub identity: Identity,
    /// SIP's base timers.
    pub timers: SipTimers,
    /// What it says and listens for; `None`: it negotiates media and sends none.
    pub audio: Option<Audio>,
    /// Caller or callee.
    pub part: Part,
    /// What it answers when it is asked who it is.
    pub credentials: Option<OutboundAuth>,
    /// What it asks for itself.
    pub asks: Option<Asks>,
    /// Faults.
    pub manners: Manners,
    /// How long its user stays in any state that should not last, before giving the call up.
    pub patience: Duration,
}

/// What a phone tells of itself. Each text is written into the messages, so that a test can look
/// for it where it must not be.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The user part of its From.
    pub user: String,
    /// The display name of its From; may be empty.
    pub display_name: String,
    /// The host part of its From, and of its Call-IDs.
    pub domain: String,
    /// `User-Agent` or `Server`.
    pub user_agent: String,
    /// A word (letters and digits) that starts its Call-IDs, tags and branches, and stands in its
    /// SDP as user and session name.
    pub mark: String,
    /// More headers of its INVITE and of its answers to one.
    pub extra: Vec<(String, String)>,
}

/// Which end of a call a phone is.
#[derive(Clone, Debug)]
pub enum Part {
    /// It dials.
    Caller(Caller),
    /// It is dialled.
    Callee(Callee),
}

/// A caller's user.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Gives up after so long without an answer.
    pub cancel_after: Option<Duration>,
    /// Hangs up after so long a talk; zero: right behind the ACK.
    pub hang_up_after: Option<Duration>,
}

/// A callee's user.
#[derive(Clone, Debug)]
pub struct Callee {
    /// Rings after so long; `None`: without a 180.
    pub ring_after: Option<Duration>,
    /// What comes of it.
    pub outcome: Outcome,
    /// Hangs up after so long a talk; zero: right behind the ACK.
    pub hang_up_after: Option<Duration>,
}

/// What a callee does with a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Answers after so long.
    Answer(Duration),
    /// Refuses.
    Refuse {
        /// After so long.
        after: Duration,
        /// With this status, 300-699.
        status: u16,
        /// And this Q.850 cause in a `Reason`.
        cause: Option<u8>,
    },
    /// Lets it ring until the caller gives up.
    Ignore,
    /// Nothing at all comes back.
    Silence,
}

/// What a phone does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// A caller that never acknowledges a 2xx.
    pub never_acknowledges: bool,
    /// Answers no BYE.
    pub ignores_bye: bool,
    /// A callee that answers 200 when it is cancelled while it rings.
    pub answers_when_cancelled: bool,
    /// A callee whose INVITE was forked: two 2xx with different To tags.
    pub forks: bool,
    /// Speaks RFC 3262: a caller supports 100rel, a callee rings reliably where the caller does.
    pub reliable: bool,
    /// A callee that describes its media in its reliable 180, and not again in its 200.
    pub answers_early: bool,
    /// A callee that describes its media in a 183.
    pub announces: Option<Announcement>,
    /// Knows this codec for voice, and no other.
    pub only: Option<Voice>,
    /// Knows no telephone-event.
    pub lacks_events: bool,
    /// A callee whose media are protected, by these keys; `None`: they are plain.
    pub keys: Option<Keys>,
    /// A callee whose `Allow` does not name INFO.
    pub lacks_info: bool,
    /// A callee that asks by UPDATE in its early dialog whether the caller is there.
    pub updates_early: bool,
    /// A caller that requires 100rel.
    pub requires_reliable: bool,
    /// A caller that says it knows 100rel, and sends no PRACK.
    pub never_pracks: bool,
    /// A caller that dials without an offer, and answers the one in the 200.
    pub dials_without_offer: bool,
    /// Refuses each re-INVITE, and UPDATE with an offer, with this status.
    pub refuses_changes: Option<u16>,
    /// Says nothing to re-INVITE and UPDATE.
    pub ignores_changes: bool,
    /// Its ACK brings no answer to an offer in a 2xx.
    pub answers_no_offer: bool,
    /// Its session timer; `None`: it knows none.
    pub timer: Option<TimerPlan>,
    /// Sends noise before each message.
    pub sends_noise: bool,
    /// A caller whose INVITE also arrives by another way (RFC 3261 §8.2.2.2).
    pub merges: bool,
    /// A caller's carrier that also sends an INVITE that looks like one of the switch.
    pub echoes: bool,
    /// Hears nothing until so long after the first message that it was sent.
    pub deaf_for: Duration,
    /// Is gone, and says nothing more, so long after the first message.
    pub dies_after: Option<Duration>,
}

/// What a phone wants of a session timer (RFC 4028).
#[derive(Clone, Copy, Debug)]
pub struct TimerPlan {
    /// A caller asks for this interval, a callee takes no longer one.
    pub seconds: u64,
    /// `uac` or `uas`, where the far end leaves the choice.
    pub refresher: Option<&'static str>,
    /// Whether it refreshes when it has to.
    pub refreshes: bool,
}
