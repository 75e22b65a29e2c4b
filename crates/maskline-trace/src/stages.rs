//! What took how long, and why it ended.

use maskline_events::{CallStatus, SessionStatus};
use maskline_media::Side;
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedSide};

use crate::Shown;
use crate::message::{Kind, Text, status_shown};
use crate::story::{Stage, millis};

/// An entry on the call's own clock.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    /// Microseconds after the first entry.
    pub(crate) at_us: u64,
    pub(crate) what: &'a TraceEvent,
    /// A message, read.
    pub(crate) text: Option<Text>,
}

impl Moment<'_> {
    fn message(&self) -> Option<(Direction, Side, &Text)> {
        match self.what {
            TraceEvent::Message(message) => {
                Some((message.direction, message.side, self.text.as_ref()?))
            }
            TraceEvent::Step(_) => None,
        }
    }

    fn step(&self) -> Option<&Step> {
        match self.what {
            TraceEvent::Step(step) => Some(step),
            TraceEvent::Message(_) => None,
        }
    }

    /// A request of this method, this way, on this side.
    fn is_request(&self, direction: Direction, side: Side, method: &str) -> bool {
        self.message().is_some_and(|(way, of, text)| {
            way == direction && of == side && text.kind() == Kind::Request(method.to_owned())
        })
    }

    /// The status and phrase of a response to this method.
    fn response(&self, direction: Direction, side: Side, method: &str) -> Option<(u16, String)> {
        let (way, of, text) = self.message()?;
        match text.kind() {
            Kind::Response(status, phrase)
                if way == direction && of == side && text.cseq_method() == method =>
            {
                Some((status, phrase))
            }
            Kind::Response(..) | Kind::Request(_) => None,
        }
    }
}

type Test<'t> = &'t dyn Fn(&Moment<'_>) -> bool;

/// Every stage that has a beginning and an end, by its beginning.
pub(crate) fn stages(moments: &[Moment<'_>]) -> Vec<Stage> {
    use Direction::{In, Out};
    use Side::{Callee, Caller};
    let mut stages = Vec::new();
    let mut stage = |name: &str, from: Test<'_>, to: Test<'_>| {
        let Some(begin) = moments.iter().position(from) else {
            return;
        };
        let after = moments.iter().skip(begin + 1).find(|it| to(it));
        if let (Some(begin), Some(end)) = (moments.get(begin), after) {
            stages.push(Stage {
                name: name.to_owned(),
                at_ms: millis(begin.at_us),
                duration_ms: millis(end.at_us.saturating_sub(begin.at_us)),
            });
        }
    };
    let answers = |it: &Moment<'_>, range: std::ops::RangeInclusive<u16>| {
        it.response(In, Callee, "INVITE")
            .is_some_and(|(status, _)| range.contains(&status))
    };
    let event = |it: &Moment<'_>, wanted: CallStatus, of: TracedSide| matches!(it.step(), Some(Step::Event { status, side, .. }) if *status == wanted && *side == of);
    let called: Test<'_> = &|it| it.is_request(Out, Callee, "INVITE");
    stage(
        "admission",
        &|it| it.is_request(In, Caller, "INVITE"),
        &|it| event(it, CallStatus::CallReceived, TracedSide::A),
    );
    commit_stage(&mut stage, "commit of CALL_RECEIVED", "VCA request");
    stage("VCA", &|it| matches!(it.step(), Some(Step::Asked)), &|it| {
        matches!(it.step(), Some(Step::Answered { .. }))
    });
    stage(
        "media ports",
        &|it| matches!(it.step(), Some(Step::Answered { usable: true, .. })),
        &|it| matches!(it.step(), Some(Step::MediaOpened { .. })),
    );
    commit_stage(&mut stage, "commit of CALL_INITIATED", "INVITE to B");
    stage("B's first response", called, &|it| answers(it, 100..=699));
    stage("B's 180", called, &|it| answers(it, 180..=180));
    stage("B's answer", called, &|it| answers(it, 200..=699));
    commit_stage(&mut stage, "commit of the answer", "200 to A");
    let accepted: Test<'_> = &|it| {
        it.response(Out, Caller, "INVITE")
            .is_some_and(|(status, _)| (200..=299).contains(&status))
    };
    stage("A's ACK", accepted, &|it| it.is_request(In, Caller, "ACK"));
    stage("talking", accepted, &|it| {
        event(it, CallStatus::CallDisconnected, TracedSide::A)
            || event(it, CallStatus::CallDisconnected, TracedSide::B)
    });
    for (side, name) in [(Caller, "A"), (Callee, "B")] {
        commit_stage(
            &mut stage,
            &format!("commit before the BYE to {name}"),
            &format!("BYE to {name}"),
        );
        stage(
            &format!("{name}'s answer to the BYE"),
            &|it| it.is_request(Out, side, "BYE"),
            &|it| it.response(In, side, "BYE").is_some(),
        );
    }
    stages.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    stages
}

fn commit_stage(stage: &mut impl FnMut(&str, Test<'_>, Test<'_>), name: &str, gate: &str) {
    stage(
        name,
        &|it| matches!(it.step(), Some(Step::Waits { what }) if what == gate),
        &|it| matches!(it.step(), Some(Step::Goes { what }) if what == gate),
    );
}

/// Who ended the call and why, in plain words.
pub(crate) fn end(moments: &[Moment<'_>], shown: Shown) -> String {
    use Direction::{In, Out};
    let ended = moments.iter().find_map(|it| match it.step() {
        Some(Step::Ended { status, error }) => Some((*status, error.clone())),
        Some(_) | None => None,
    });
    let Some((status, error)) = ended else {
        return "no end is recorded: the call goes on, or the node died and was not restarted"
            .to_owned();
    };
    let timer = |wanted: &str| {
        moments
            .iter()
            .any(|it| matches!(it.step(), Some(Step::Timer { timer }) if timer == wanted))
    };
    let heard = moments
        .iter()
        .rev()
        .find_map(|it| it.response(Out, Side::Caller, "INVITE"))
        .filter(|(status, _)| *status >= 300)
        .map_or_else(String::new, |(status, phrase)| {
            format!("; A heard {}", status_shown(status, &phrase, shown))
        });
    if let Some(error) = error {
        return format!(
            "Maskline ended it: error {}, {}{heard}",
            error.error_code.code(),
            error.error_msg
        );
    }
    let bye = moments.iter().find_map(|it| {
        let (way, side, text) = it.message()?;
        (text.kind() == Kind::Request("BYE".to_owned())).then_some((way, side, text))
    });
    if let Some((way, side, text)) = bye {
        let cause = text
            .q850()
            .map_or_else(String::new, |it| format!(", {}", cause(it)));
        return match (way, side) {
            (In, Side::Caller) => format!("A hung up (BYE){cause}"),
            (In, Side::Callee) => format!("B hung up (BYE){cause}"),
            (Out, _) if timer("the longest duration was reached") => {
                "Maskline ended it: the longest duration was reached".to_owned()
            }
            (Out, _) => "Maskline ended it (BYE to both)".to_owned(),
        };
    }
    if moments
        .iter()
        .any(|it| it.is_request(In, Side::Caller, "CANCEL"))
    {
        return format!("A gave up before an answer (CANCEL){heard}");
    }
    if timer("B rang for too long") {
        return format!("B did not answer in time{heard}");
    }
    let refusal = moments.iter().rev().find_map(|it| {
        let (status, phrase) = it.response(In, Side::Callee, "INVITE")?;
        (status >= 300).then(|| (status, phrase, it.text.as_ref().and_then(Text::q850)))
    });
    if let Some((status, phrase, q850)) = refusal {
        let cause = q850.map_or_else(String::new, |it| format!(", {}", cause(it)));
        let said = status_shown(status, &phrase, shown);
        return format!("B refused: {said}{cause}{heard}");
    }
    let flow = moments.iter().find_map(|it| match it.step() {
        Some(Step::Answered { outcome, .. }) => Some(outcome.clone()),
        Some(_) | None => None,
    });
    match (status, flow) {
        (SessionStatus::Completed, Some(flow)) => format!("the callflow said {flow}{heard}"),
        (status, _) => format!("{}{heard}", status_word(status)),
    }
}

/// A session's status in a word.
pub(crate) const fn status_word(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Completed => "completed",
        SessionStatus::Busy => "busy",
        SessionStatus::NoAnswer => "no answer",
        SessionStatus::Failed => "failed",
        SessionStatus::Canceled => "canceled",
        SessionStatus::Error => "error",
    }
}

/// ITU-T Q.850 §2.2.7, those that carriers send.
fn cause(cause: u8) -> String {
    let word = match cause {
        1 => "unallocated number",
        3 => "no route to destination",
        16 => "normal call clearing",
        17 => "user busy",
        18 => "no user responding",
        19 => "no answer from user",
        20 => "subscriber absent",
        21 => "call rejected",
        22 => "number changed",
        27 => "destination out of order",
        28 => "invalid number format",
        31 => "normal, unspecified",
        34 => "no circuit available",
        38 => "network out of order",
        41 => "temporary failure",
        42 => "switching equipment congestion",
        44 => "requested circuit not available",
        47 => "resource unavailable",
        102 => "recovery on timer expiry",
        127 => "interworking",
        _ => return format!("Q.850 {cause}"),
    };
    format!("Q.850 {cause} ({word})")
}
