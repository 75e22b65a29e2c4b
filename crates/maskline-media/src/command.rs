//! The language between the switch, which decides, and a media engine, which carries packets.
//!
//! One trait's worth of words, so that another engine can stand behind the same switch. Every
//! command is carried out in order; [`MediaCommand::Open`] and [`MediaCommand::Close`] are each
//! answered by exactly one event.

use std::net::{IpAddr, SocketAddr};

use crate::codec::Voice;
use crate::emodel::VoiceCodec;
use crate::one_way::OneWay;
use crate::prompt::Prompt;
use crate::srtp::SrtpKeys;

/// One session's media: the shard that owns the call and a number that this shard never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaKey {
    /// The shard that gets the events.
    pub shard: u16,
    /// Unique within the shard.
    pub id: u64,
}

/// The two sides of a masked call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// A, who called the virtual number.
    Caller,
    /// B, who is called from the virtual number.
    Callee,
}

impl Side {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// One codec as it is called on both sides of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadMap {
    /// The RTP payload type (0-127) by which *this* side's party sends and wants to receive it.
    pub here: u8,
    /// The payload type by which the other side's party knows the same codec;
    /// [`PayloadMap::NOT_PASSED`] if it does not: telephone-events are still reported then.
    pub there: u8,
    /// RTP clock rate in Hz (RFC 3551), for jitter and RTCP.
    pub clock_rate: u32,
    /// Whether this is `telephone-event` (RFC 4733): passed on, and each press reported.
    pub telephone_event: bool,
    /// The voice codec, by which the score is reckoned; `None`: no voice.
    pub codec: Option<VoiceCodec>,
    /// What becomes of a payload on its way to the other side.
    pub carriage: Carriage,
}

/// What becomes of a payload between two parties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carriage {
    /// Nothing: both parties know the codec.
    #[default]
    AsIs,
    /// It is turned from one voice codec into another.
    Transcoded {
        /// What this side's party sends.
        from: Voice,
        /// What the other side's party knows by `there`.
        to: Voice,
    },
    /// It is a telephone-event, and the other side's party knows none, or of another clock rate
    /// only: each press is played to it anew, meanwhile in place of voice. As telephone-events if it
    /// has any, else as tones in its voice codec.
    Anew,
}

impl PayloadMap {
    /// In `there`: the other side's party did not negotiate this codec, nothing of it is passed on.
    pub const NOT_PASSED: u8 = u8::MAX;
}

/// What one side's party negotiated: where its packets go and where they may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Where to send RTP until a packet from the party latched another port.
    pub rtp: SocketAddr,
    /// Where to send RTCP (RFC 3605 `a=rtcp`, else the next port); `None`: none is sent.
    pub rtcp: Option<SocketAddr>,
    /// Whether the party's RTP and RTCP share a port (RFC 5761): RTCP goes to where RTP goes, from
    /// our RTP port, and is told from RTP there by its packet type.
    pub rtcp_mux: bool,
    /// The addresses from which a first packet may latch: the negotiated one, and what the
    /// operator adds for the trunk. A packet from anywhere else is counted and dropped.
    pub sources: Vec<IpAddr>,
    /// At most 16 codecs; packets of another payload type are counted and dropped.
    pub payloads: Vec<PayloadMap>,
    /// The keys by which its packets are protected (RFC 3711), each direction by one of its own; `None`:
    /// they are plain.
    pub srtp: Option<SrtpKeys>,
    /// Whether this party is expected to send (not on hold, not `recvonly`): silence counts.
    pub sends: bool,
    /// Whether this party wants to receive (not `sendonly`, not `inactive`).
    pub receives: bool,
    /// Whether key presses are listened for in this party's audio, if it negotiated no
    /// telephone-event.
    pub listens: bool,
    /// Whether this party has put the other on hold: what the other hears is ours to fill while it
    /// sends nothing.
    pub holds: bool,
}

/// What A negotiated. A type of its own, so that the sides cannot be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerMedia(pub RemoteMedia);

/// What B negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalleeMedia(pub RemoteMedia);

/// An order of the switch to the media engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaCommand {
    /// Take an RTP/RTCP port pair for each side. Answered by [`MediaEvent::Opened`] or
    /// [`MediaEvent::Refused`].
    Open {
        /// The session's media.
        key: MediaKey,
        /// Seeds SSRCs, CNAMEs, first sequence numbers and timestamps.
        seed: u64,
    },
    /// Take these ports again, which an earlier run of this process had for the session; give it
    /// before any [`MediaCommand::Open`]. Answered like one.
    Resume {
        /// The session's media.
        key: MediaKey,
        /// As for an opening: SSRCs and the rest are new.
        seed: u64,
        /// The RTP port towards A.
        caller_port: u16,
        /// The RTP port towards B.
        callee_port: u16,
        /// What the opening said of where they are.
        address: Option<IpAddr>,
    },
    /// A's negotiated media, at first or anew. Latching starts over when the addresses changed;
    /// silence of either party counts from here, even if nothing changed.
    ProgramCaller {
        /// The session's media.
        key: MediaKey,
        /// What A negotiated.
        media: CallerMedia,
    },
    /// B's negotiated media, at first or anew, with the same effects.
    ProgramCallee {
        /// The session's media.
        key: MediaKey,
        /// What B negotiated.
        media: CalleeMedia,
    },
    /// A key that a party pressed came by signalling. RTP is not to bring it to the other party once more; nothing
    /// happens if it has. Else one that is not to be played is answered by [`MediaEvent::NotInRtp`].
    Press {
        /// The session's media.
        key: MediaKey,
        /// Who pressed it.
        side: Side,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// Whether it is to be played to the other party, if that takes presses; else signalling passes it on.
        play: bool,
    },
    /// Play this to a party in place of what the other one sends, from now on and instead of what it is
    /// played already. Answered by one [`MediaEvent::Played`].
    Play {
        /// The session's media.
        key: MediaKey,
        /// To whom.
        side: Side,
        /// What.
        prompt: Prompt,
    },
    /// End what a party is played, if it is played anything.
    StopPlaying {
        /// The session's media.
        key: MediaKey,
        /// To whom.
        side: Side,
    },
    /// Free the ports. Answered by [`MediaEvent::Closed`], also when the key is unknown.
    Close {
        /// The session's media.
        key: MediaKey,
    },
}

impl MediaCommand {
    /// Whose order this is.
    #[must_use]
    pub const fn key(&self) -> MediaKey {
        match self {
            Self::Open { key, .. }
            | Self::Resume { key, .. }
            | Self::ProgramCaller { key, .. }
            | Self::ProgramCallee { key, .. }
            | Self::Press { key, .. }
            | Self::Play { key, .. }
            | Self::StopPlaying { key, .. }
            | Self::Close { key } => *key,
        }
    }

    /// The answer to this order where there is no such session and will be none, `None` if it
    /// asks for no answer; `failure` is why an opening fails.
    #[must_use]
    pub const fn answer_without_session(&self, failure: OpenFailure) -> Option<MediaEvent> {
        match self {
            Self::Open { key, .. } | Self::Resume { key, .. } => Some(MediaEvent::Refused {
                key: *key,
                reason: failure,
            }),
            Self::Close { key } => Some(MediaEvent::Closed {
                key: *key,
                caller: None,
                callee: None,
            }),
            Self::Press {
                key,
                side,
                digit,
                play: false,
            } => Some(MediaEvent::NotInRtp {
                key: *key,
                side: *side,
                digit: *digit,
            }),
            Self::Play { key, side, prompt } => Some(MediaEvent::Played {
                key: *key,
                side: *side,
                id: prompt.id,
                whole: false,
            }),
            Self::ProgramCaller { .. }
            | Self::ProgramCallee { .. }
            | Self::Press { .. }
            | Self::StopPlaying { .. } => None,
        }
    }
}

/// What a media engine tells the switch.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaEvent {
    /// The ports are taken and packets sent to them are looked at.
    Opened {
        /// The session's media.
        key: MediaKey,
        /// The RTP port towards A; RTCP is the next one.
        caller_port: u16,
        /// The RTP port towards B; RTCP is the next one.
        callee_port: u16,
        /// Where they are, if not at the node's own media address.
        address: Option<IpAddr>,
    },
    /// No ports.
    Refused {
        /// The session's media.
        key: MediaKey,
        /// Why.
        reason: OpenFailure,
    },
    /// A key press, at its first packet (RFC 4733) or once it is heard; one per press.
    Dtmf {
        /// The session's media.
        key: MediaKey,
        /// Who pressed it.
        side: Side,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// A key that came by signalling and is not played has not come by RTP, and RTP does not pass it on any
    /// more: signalling does. One per such [`MediaCommand::Press`] at most.
    NotInRtp {
        /// The session's media.
        key: MediaKey,
        /// Who pressed it.
        side: Side,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// A prompt is over: it was played, or stopped, or replaced by another, or could not be heard. Once for
    /// each, unless the media are closed before.
    Played {
        /// The session's media.
        key: MediaKey,
        /// To whom.
        side: Side,
        /// [`Prompt::id`].
        id: u64,
        /// Whether it was played to its end.
        whole: bool,
    },
    /// Neither RTP nor RTCP from a party that should send to one that wants to receive, for the
    /// configured time. Once per silence.
    Silent {
        /// The session's media.
        key: MediaKey,
        /// Who is silent.
        side: Side,
    },
    /// A party that should be heard is not, while the other is, for [`crate::one_way::ONE_WAY_AFTER`].
    /// Once until it is heard again, or either side programmed.
    OneWay {
        /// The session's media.
        key: MediaKey,
        /// Who is not heard.
        side: Side,
        /// Since when, and what came instead.
        fault: OneWay,
    },
    /// The ports are free again. The figures are of what was received from each party; absent when
    /// nothing was.
    Closed {
        /// The session's media.
        key: MediaKey,
        /// Received from A.
        caller: Option<Quality>,
        /// Received from B.
        callee: Option<Quality>,
    },
}

impl MediaEvent {
    /// Whose event this is.
    #[must_use]
    pub const fn key(&self) -> MediaKey {
        match self {
            Self::Opened { key, .. }
            | Self::Refused { key, .. }
            | Self::Dtmf { key, .. }
            | Self::NotInRtp { key, .. }
            | Self::Played { key, .. }
            | Self::Silent { key, .. }
            | Self::OneWay { key, .. }
            | Self::Closed { key, .. } => *key,
        }
    }
}

/// Why no media could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// Every port of the configured range is taken.
    PortsExhausted,
    /// A port that was to be taken again is another's, or not of the configured range.
    PortsLost,
    /// The engine is too busy, or gone.
    Unavailable,
}

/// What was measured of the packets received from one party.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// RTP packets received.
    pub packets: u64,
    /// Lost fraction of the expected packets, 0.0-1.0 (RFC 3550 §A.3).
    pub loss: f64,
    /// Interarrival jitter in milliseconds (RFC 3550 §A.8), averaged over the call.
    pub jitter_ms: f64,
    /// Mean opinion score 1.0-4.5 (ITU-T G.107).
    pub mos: f64,
}
