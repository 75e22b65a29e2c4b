//! A call as text, at most 100 columns wide.

use std::fmt::Write as _;

use crate::stages::status_word;
use crate::story::{Rung, Shot, Story};

/// The widest line.
const WIDTH: usize = 100;
/// Between two lifelines.
const SPAN: usize = 22;

/// Draws a call.
#[must_use]
pub fn draw(story: &Story) -> String {
    let mut out = String::new();
    line(&mut out, &head(story));
    line(&mut out, &format!("began {}", story.start_time));
    out.push('\n');
    for rung in &story.ladder {
        match (&rung.message, &rung.step) {
            (Some(shot), _) => message(&mut out, rung, shot),
            (None, Some(step)) => {
                let at = offset(rung.at_ms);
                line(&mut out, &format!("{at}  {:SPAN$}   · {step}", ""));
            }
            (None, None) => {}
        }
    }
    if story.messages_left_out > 0 {
        let left = story.messages_left_out;
        line(&mut out, &format!("{left} more messages are not kept"));
    }
    out.push('\n');
    wrapped(&mut out, "stages: ", " · ", &stages(story));
    wrapped(&mut out, "end: ", " ", &words(&story.end));
    out
}

fn head(story: &Story) -> String {
    let status = story.session_status.map_or("open", status_word);
    let mut head = format!("session {}  {status}", story.session_id);
    if let Some(sub_account) = &story.sub_account_id {
        let _ = write!(head, "  sub-account {sub_account}");
    }
    let _ = write!(head, "  {}", duration(story.duration_ms));
    let parties: Vec<String> = story
        .legs
        .iter()
        .map(|leg| match leg.side {
            maskline_switch::trace::TracedSide::A => {
                format!("A {} → {}", leg.source, leg.destination)
            }
            maskline_switch::trace::TracedSide::B => format!("B {}", leg.destination),
        })
        .collect();
    if !parties.is_empty() {
        let _ = write!(head, "\n{}", parties.join(" → "));
    }
    head
}

fn message(out: &mut String, rung: &Rung, shot: &Shot) {
    let outwards = shot.from == "maskline";
    let other = if outwards { &shot.to } else { &shot.from };
    let is_a = other == "A";
    // A stands left of M, B right of it.
    let to_right = is_a != outwards;
    let label: String = shot.label.chars().take(SPAN - 6).collect();
    let dashes = SPAN - 3 - label.chars().count();
    let (left, right) = ("─".repeat(dashes / 2), "─".repeat(dashes - dashes / 2));
    let arrow = if to_right {
        format!("{left} {label} {right}▶")
    } else {
        format!("◀{left} {label} {right}")
    };
    let lanes = if is_a {
        format!("A {arrow} M {:SPAN$}  ", "")
    } else {
        format!("  {:SPAN$} M {arrow} B", "")
    };
    let mut text = format!("{}  {lanes} ", offset(rung.at_ms));
    if shot.retransmission {
        text.push_str(" again");
    }
    let peer = format!(" {} {}", shot.transport, shot.peer);
    let mut notes = Vec::new();
    if text.chars().count() + peer.chars().count() <= WIDTH {
        text.push_str(&peer);
    } else {
        notes.push(peer.trim_start().to_owned());
    }
    line(out, &text);
    for header in &shot.headers {
        if ["Reason", "Warning", "Retry-After", "Diversion", "Require"]
            .iter()
            .any(|name| header.name.eq_ignore_ascii_case(name))
        {
            notes.push(format!("{}: {}", header.name, header.value));
        }
    }
    if let ("INVITE", Some(id)) = (shot.label.as_str(), call_id(shot)) {
        notes.push(format!("Call-ID: {id}"));
        notes.push(shot.start_line.clone());
    }
    if let Some(sdp) = &shot.sdp {
        notes.push(format!("SDP {sdp}"));
    }
    for note in notes {
        line(out, &format!("{:13}{note}", ""));
    }
    if let Some(raw) = &shot.raw {
        for raw_line in raw.lines() {
            // Whole: what is asked for in full is not cut.
            let _ = writeln!(out, "{:13}| {}", "", printable(raw_line));
        }
    }
}

fn call_id(shot: &Shot) -> Option<&str> {
    let mut headers = shot.headers.iter();
    let header = headers.find(|it| it.name.eq_ignore_ascii_case("Call-ID"))?;
    Some(&header.value)
}

fn stages(story: &Story) -> Vec<String> {
    let stages = story.stages.iter();
    stages
        .map(|stage| format!("{} {}", stage.name, duration(stage.duration_ms)))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// One line, cut at the width. Nothing of a message moves the cursor of a terminal.
fn line(out: &mut String, text: &str) {
    for part in text.lines() {
        let part = printable(part.trim_end());
        if part.chars().count() > WIDTH {
            out.extend(part.chars().take(WIDTH - 1));
            out.push('…');
        } else {
            out.push_str(&part);
        }
        out.push('\n');
    }
}

fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '·' } else { c };
    text.chars().map(shown).collect()
}

fn wrapped(out: &mut String, title: &str, between: &str, parts: &[String]) {
    let indent = title.chars().count();
    let mut row = title.to_owned();
    let mut empty = true;
    for part in parts {
        let needed = row.chars().count() + between.chars().count() + part.chars().count();
        if !empty && needed > WIDTH {
            line(out, &row);
            row = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            row.push_str(between);
        }
        row.push_str(part);
        empty = false;
    }
    line(out, &row);
}

/// Seconds with milliseconds, ten wide.
fn offset(ms: f64) -> String {
    format!("{:>9.3}", ms / 1_000.0)
}

/// `12 ms`, `3.4 s`, `1m 12s`.
#[must_use]
pub fn duration(ms: f64) -> String {
    if ms < 10.0 {
        return format!("{ms:.1} ms");
    }
    if ms < 1_000.0 {
        return format!("{ms:.0} ms");
    }
    if ms < 60_000.0 {
        return format!("{:.1} s", ms / 1_000.0);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no call lasts for so long"
    )]
    let seconds = (ms / 1_000.0) as u64;
    format!("{}m {:02}s", seconds / 60, seconds % 60)
}
