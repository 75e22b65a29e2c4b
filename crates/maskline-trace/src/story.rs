//! A call as a document: its head, what each stage took, its end in plain words, and the ladder.

use maskline_events::{CallStatus, ErrorDetails, Msisdn, Party, SessionStatus, Timestamp};
use maskline_media::Side;
use maskline_switch::sip::Transport;
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedMessage, TracedSide};
use serde::Serialize;
use uuid::Uuid;

use crate::Shown;
use crate::codec::Entry;
use crate::message::{Kind, Text, status_shown};
use crate::redact::{hide_credentials, redact, redact_text};
use crate::stages::{self, Moment};

/// Headers that a ladder's entry shows.
const KEY_HEADERS: [&str; 21] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "P-Asserted-Identity",
    "Privacy",
    "Diversion",
    "History-Info",
    "Reason",
    "Require",
    "Supported",
    "RSeq",
    "RAck",
    "Session-Expires",
    "Min-SE",
    "Retry-After",
    "Warning",
    "Content-Type",
    "User-Agent",
];

/// One call, told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// The session.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
    pub session_id: Uuid,
    /// Whose number was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_account_id: Option<String>,
    /// As in the session's summary; absent while the call goes on, or when its end was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "COMPLETED"))]
    pub session_status: Option<SessionStatus>,
    /// The first entry.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub start_time: Timestamp,
    /// From the first entry to the summary, or to the last entry.
    pub duration_ms: f64,
    /// Why the platform ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub error_details: Option<ErrorDetails>,
    /// Who ended the call and why, in plain words.
    pub end: String,
    /// The legs, A first.
    pub legs: Vec<Leg>,
    /// What each stage took, in order.
    pub stages: Vec<Stage>,
    /// Messages and steps, in order.
    pub ladder: Vec<Rung>,
    /// Messages beyond the limit of a session.
    pub messages_left_out: u32,
}

/// One leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Leg {
    /// `A` or `B`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "A"))]
    pub side: TracedSide,
    /// Its id in events.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
    pub call_id: Uuid,
    /// Who calls.
    pub source: String,
    /// Who is called.
    pub destination: String,
    /// By which trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Its final status, once it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip_code: Option<u16>,
}

/// What a stage took.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// What was waited for.
    pub name: String,
    /// When it began, after the first entry.
    pub at_ms: f64,
    /// How long it took.
    pub duration_ms: f64,
}

/// One line of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rung {
    /// After the first entry.
    pub at_ms: f64,
    /// A step within the switch; absent on a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// A message; absent on a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Shot>,
}

/// A message in the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Shot {
    /// `A`, `B` or `maskline`.
    pub from: String,
    /// `A`, `B` or `maskline`.
    pub to: String,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: String,
    /// The far end.
    pub peer: String,
    /// Request line or status line.
    pub start_line: String,
    /// The method, or status and phrase, for a narrow column.
    pub label: String,
    /// The same message went the same way before.
    pub retransmission: bool,
    /// Its whole length, bytes.
    pub length: usize,
    /// The headers that matter.
    pub headers: Vec<Header>,
    /// Address and codecs, when it describes media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
    /// The whole message, when everything was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// One header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Header {
    /// Its long name.
    pub name: String,
    /// Its value on one line.
    pub value: String,
}

/// Tells a call from its entries, in their order. `None`: there are none.
#[must_use]
pub fn tell(session_id: Uuid, entries: &[Entry], shown: Shown) -> Option<Story> {
    let first = entries.first()?;
    let moments = moments(entries);
    let known = numbers(entries);
    let mut story = Story {
        session_id,
        sub_account_id: None,
        session_status: None,
        start_time: first.at,
        duration_ms: moments.last().map_or(0.0, |last| millis(last.at_us)),
        error_details: None,
        end: stages::end(&moments, shown),
        legs: Vec::new(),
        stages: stages::stages(&moments),
        ladder: Vec::new(),
        messages_left_out: 0,
    };
    let mut seen: Vec<&TracedMessage> = Vec::new();
    for moment in &moments {
        let rung = match moment.what {
            TraceEvent::Message(message) => {
                let text = moment.text.as_ref()?;
                // A session has a few hundred messages at most.
                let again = seen.iter().any(|it| {
                    (it.direction, it.peer, &it.bytes)
                        == (message.direction, message.peer, &message.bytes)
                });
                seen.push(message);
                Rung {
                    at_ms: millis(moment.at_us),
                    step: None,
                    message: Some(shot(message, text, again, &known, shown)),
                }
            }
            TraceEvent::Step(step) => {
                take_step(&mut story, step, millis(moment.at_us), shown);
                let Some(words) = words(step) else { continue };
                let words = match shown {
                    Shown::Redacted => redact_text(&words, &known),
                    Shown::Full => words,
                };
                Rung {
                    at_ms: millis(moment.at_us),
                    step: Some(words),
                    message: None,
                }
            }
        };
        story.ladder.push(rung);
    }
    if shown == Shown::Redacted {
        story.end = redact_text(&story.end, &known);
        if let Some(error) = &mut story.error_details {
            error.error_msg = redact_text(&error.error_msg, &known);
        }
    }
    story.legs.sort_by_key(|leg| leg.side);
    Some(story)
}

/// When each entry happened, after the first: ticks count within a run, the wall clock between two.
fn moments(entries: &[Entry]) -> Vec<Moment<'_>> {
    let mut moments = Vec::with_capacity(entries.len());
    let Some(first) = entries.first() else {
        return moments;
    };
    let (mut run, mut tick, mut base) = (first.run, first.tick_us, 0_u64);
    for entry in entries {
        if entry.run != run {
            let since = entry.at.unix_ms().saturating_sub(first.at.unix_ms());
            base = u64::try_from(since).unwrap_or(0).saturating_mul(1_000);
            (run, tick) = (entry.run, entry.tick_us);
        }
        let text = match &entry.what {
            TraceEvent::Message(message) => Some(Text::of(&message.bytes)),
            TraceEvent::Step(_) => None,
        };
        moments.push(Moment {
            at_us: base.saturating_add(entry.tick_us.saturating_sub(tick)),
            what: &entry.what,
            text,
        });
    }
    moments
}

/// The numbers of the call, as digits.
fn numbers(entries: &[Entry]) -> Vec<String> {
    let steps = entries.iter().filter_map(|entry| match &entry.what {
        TraceEvent::Step(Step::Leg {
            source,
            destination,
            ..
        }) => Some([source, destination]),
        TraceEvent::Step(_) | TraceEvent::Message(_) => None,
    });
    let numbers = steps.flatten().filter_map(Party::number);
    let digits: std::collections::BTreeSet<String> =
        numbers.map(|number| number.digits().to_owned()).collect();
    digits.into_iter().collect()
}

fn take_step(story: &mut Story, step: &Step, at_ms: f64, shown: Shown) {
    match step {
        Step::Leg {
            side,
            call_id,
            source,
            destination,
            trunk,
            sub_account_id,
        } => {
            story.sub_account_id = Some(sub_account_id.clone());
            // A restarted node tells a leg again, and may not know its trunk any more.
            let known = story.legs.iter().position(|leg| leg.side == *side);
            let known = known.and_then(|at| story.legs.remove(at).trunk);
            story.legs.push(Leg {
                side: *side,
                call_id: *call_id,
                source: party(source, shown),
                destination: party(destination, shown),
                trunk: trunk.as_deref().map(str::to_owned).or(known),
                sip_code: None,
            });
        }
        Step::Event {
            side,
            status: CallStatus::CallDisconnected,
            sip_code,
        } => {
            let leg = story.legs.iter_mut().find(|leg| leg.side == *side);
            if let Some(leg) = leg {
                leg.sip_code = Some(*sip_code);
            }
        }
        Step::Ended { status, error } => {
            story.session_status = Some(*status);
            story.error_details.clone_from(error);
            story.duration_ms = at_ms;
        }
        Step::LeftOut { messages } => story.messages_left_out += messages,
        Step::Event { .. }
        | Step::Waits { .. }
        | Step::Goes { .. }
        | Step::Asked
        | Step::Answered { .. }
        | Step::MediaOpened { .. }
        | Step::Timer { .. }
        | Step::Note { .. }
        | Step::Adopted
        | Step::Unknown => {}
    }
}

fn party(party: &Party, shown: Shown) -> String {
    match (party.number(), shown) {
        (None, _) => "anonymous".to_owned(),
        (Some(number), Shown::Redacted) => number.to_string(),
        (Some(number), Shown::Full) => number.as_str().to_owned(),
    }
}

/// A number as a person may see it.
#[must_use]
pub fn number_shown(number: &str, shown: Shown) -> String {
    match (Msisdn::parse(number), shown) {
        (Ok(number), Shown::Redacted) => number.to_string(),
        (Ok(number), Shown::Full) => number.as_str().to_owned(),
        (Err(_), _) => "anonymous".to_owned(),
    }
}

fn shot(
    message: &TracedMessage,
    text: &Text,
    retransmission: bool,
    known: &[String],
    shown: Shown,
) -> Shot {
    let side = match message.side {
        Side::Caller => "A",
        Side::Callee => "B",
    };
    let (from, to) = match message.direction {
        Direction::In => (side, "maskline"),
        Direction::Out => ("maskline", side),
    };
    let mut raw = message.bytes.to_vec();
    hide_credentials(&mut raw);
    let text = match shown {
        Shown::Redacted => redact(text, known),
        Shown::Full => Text::of(&raw),
    };
    let headers = KEY_HEADERS.iter().flat_map(|name| {
        let of_name = text.headers.iter();
        of_name.filter(move |(it, _)| it.eq_ignore_ascii_case(name))
    });
    Shot {
        from: from.to_owned(),
        to: to.to_owned(),
        transport: transport(message.peer.transport).to_owned(),
        peer: message.peer.addr.to_string(),
        label: label(&text, shown),
        retransmission,
        length: message.length,
        headers: headers
            .map(|(name, value)| Header {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        sdp: text.sdp(),
        start_line: text.start,
        raw: (shown == Shown::Full).then(|| String::from_utf8_lossy(&raw).into_owned()),
    }
}

fn label(text: &Text, shown: Shown) -> String {
    match text.kind() {
        Kind::Request(method) => method,
        Kind::Response(status, phrase) => status_shown(status, &phrase, shown),
    }
}

const fn transport(transport: Transport) -> &'static str {
    transport.as_str()
}

/// A step in a few words; `None`: nothing that a ladder shows.
fn words(step: &Step) -> Option<String> {
    Some(match step {
        Step::Event { side, status, .. } => {
            let word = serde_json::to_value(status).ok();
            let word = word.as_ref().and_then(|word| word.as_str()).unwrap_or("?");
            format!("{word} of {side:?}")
        }
        Step::Waits { what } => format!("{what} waits for the journal"),
        Step::Goes { what } => format!("{what} may go: it is durable"),
        Step::Asked => "the VCA endpoint is asked".to_owned(),
        Step::Answered {
            outcome,
            usable: true,
        } => format!("the VCA endpoint says {outcome}"),
        Step::Answered { outcome, .. } => format!("the VCA endpoint failed: {outcome}"),
        Step::MediaOpened {
            caller_port,
            callee_port,
        } => format!("media ports {caller_port} (A), {callee_port} (B)"),
        Step::Timer { timer } => format!("timer: {timer}"),
        Step::Note { text } => text.clone().into_owned(),
        Step::Adopted => "taken up after a restart".to_owned(),
        Step::LeftOut { messages } => format!("{messages} more messages were not kept"),
        Step::Ended { .. } => "the summary is written".to_owned(),
        Step::Leg { .. } | Step::Unknown => return None,
    })
}

pub(crate) fn millis(us: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact up to 285 years")]
    let us = us as f64;
    us / 1_000.0
}
