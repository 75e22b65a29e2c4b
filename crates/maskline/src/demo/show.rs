//! What the demo prints: the call as it happens, for a newcomer; or webhook bodies, for a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use maskline_events::WebhookType;
use maskline_phone::PhoneEvent;
use serde_json::Value;

use super::receiver::Receipt;
use super::{DRIVER, RIDER, VIRTUAL, Verdict};

/// Prints a line; ends the program when nobody reads any more (`maskline demo | head`).
macro_rules! say {
    ($($argument:tt)*) => {
        if writeln!(std::io::stdout(), $($argument)*).is_err() {
            std::process::exit(0);
        }
    };
}

/// The demo's voice.
pub(super) struct Show {
    json: bool,
}

impl Show {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Who is who.
    pub(super) fn opening(&self, api: SocketAddr, sip: SocketAddr, receiver: SocketAddr) {
        if self.json {
            return;
        }
        say!(
            "A rider calls a driver through Maskline. All of it runs on this machine.\n\n\
             \x20 rider           {RIDER}\n\
             \x20 driver          {DRIVER}\n\
             \x20 virtual number  {VIRTUAL}   the only number that either of them sees\n\n\
             \x20 switch          SIP at {sip}, API at http://{api}\n\
             \x20 your server     http://{receiver}   a sample: a booking table and twenty lines\n"
        );
    }

    /// What happened at a phone.
    pub(super) fn phone(&self, start: Instant, who: &str, other: &str, event: &PhoneEvent) {
        if self.json {
            return;
        }
        let text = match event {
            PhoneEvent::Dialled => format!("{who} dials {VIRTUAL}"),
            PhoneEvent::Called { shows } => {
                format!("{who} is called; the display shows {shows}")
            }
            PhoneEvent::Ringing if other == "the rider" => format!("{who}'s phone rings"),
            PhoneEvent::Ringing => format!("{who} hears ringing"),
            PhoneEvent::Talking => format!("{who} talks"),
            PhoneEvent::Digit(digit) => format!("{who} hears {other} press {digit}"),
            PhoneEvent::Refused(status) => format!("{who}'s call ends with {status}"),
            PhoneEvent::HungUp { by_us: true } => format!("{who} hangs up"),
            PhoneEvent::HungUp { by_us: false } => format!("{who}'s call ends"),
            PhoneEvent::Lost => format!("{who} hears nothing any more"),
        };
        say!("{} phone    {text}", clock(start));
    }

    /// What arrived at the receiver.
    pub(super) fn webhook(&self, start: Instant, receipt: &Receipt) {
        if self.json {
            say!("{}", receipt.text);
            return;
        }
        let Some(payload) = receipt.body.get("payload") else {
            return;
        };
        let text = |field: &str| {
            payload
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let what = match receipt.kind {
            WebhookType::Vca => format!(
                "what shall I do with {} → {}?   your server: connect to {DRIVER}",
                text("source"),
                text("destination")
            ),
            WebhookType::Vss => format!("the session is {}", text("sessionStatus")),
            WebhookType::Vcs | WebhookType::Vru | WebhookType::Vnu => {
                let leg = match text("callDirection") {
                    "INBOUND" => "A",
                    _ => "B",
                };
                let sequence = payload.get("sequence").and_then(Value::as_u64).unwrap_or(0);
                let detail = payload
                    .get("eventData")
                    .and_then(Value::as_object)
                    .and_then(|data| data.values().next())
                    .and_then(Value::as_str)
                    .map(|value| format!(" {value}"))
                    .unwrap_or_default();
                format!(
                    "#{sequence} {}{detail}   leg {leg}: {} → {}",
                    text("callStatus"),
                    text("source"),
                    text("destination")
                )
            }
        };
        say!(
            "{} webhook  {} {}  {what}",
            clock(start),
            receipt.kind,
            receipt.status
        );
    }

    /// How it went.
    pub(super) fn closing(&self, summary: &Receipt, verdicts: &[Verdict]) {
        if self.json {
            return;
        }
        say!("\nSummary, as your server got it:\n");
        let details = summary.body.pointer("/payload/details");
        for (leg, name) in [
            ("callA", "rider → virtual number "),
            ("callB", "virtual number → driver"),
        ] {
            let Some(leg) = details.and_then(|details| details.get(leg)) else {
                continue;
            };
            let quality = |field: &str| {
                leg.pointer(&format!("/callQuality/{field}"))
                    .and_then(Value::as_f64)
            };
            let status = leg
                .get("callStatus")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let seconds = leg.get("callDuration").and_then(Value::as_u64).unwrap_or(0);
            say!(
                "  {name}  {status}, {seconds} s, MOS {:.1}, {:.1} % lost, jitter {:.0} ms",
                quality("mos").unwrap_or(0.0),
                quality("packetLossRate").unwrap_or(0.0) * 100.0,
                quality("jitter").unwrap_or(0.0),
            );
        }
        say!("\nChecked at both ends:\n");
        for verdict in verdicts {
            say!(
                "  {} {}",
                if verdict.holds { "✓" } else { "✗" },
                verdict.claim
            );
        }
        say!(
            "\nNext: maskline check-config --reference, then maskline serve --config FILE. The README shows how\n\
             to provision a number; docs/wire-contract.md has every field. The same as data: maskline demo --json"
        );
    }
}

fn clock(start: Instant) -> String {
    format!("{:7.3} s ", start.elapsed().as_secs_f64())
}
