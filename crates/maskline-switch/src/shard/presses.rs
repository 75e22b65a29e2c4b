//! Key presses: what RTP and INFO say of them, what is told of them, and how one that came by INFO
//! reaches the other party. Also the other requests in a dialog that change nothing: OPTIONS, REFER.

use maskline_events::CallStatus;
use maskline_media::press_pairs::Signal;
use maskline_media::{MediaCommand, Side};

use super::record::Detail;
use super::{Purpose, Shard};
use crate::io::Action;
use crate::session::{Session, Stage};
use crate::sip::{HeaderName, Method, Request, TxId, compose, extensions, view};

const DTMF_RELAY: &str = "application/dtmf-relay";
const DTMF: &str = "application/dtmf";
/// How long a press that we pass on lasts, in milliseconds.
const PRESS_MS: u32 = 160;

/// What an INFO says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing: it asks whether the dialog is there.
    Nothing,
    /// A key was pressed.
    Key(char),
    /// A press, of no key that there is.
    NoKey,
    /// Something else.
    Unknown,
}

impl Shard {
    /// A press that came as RTP.
    pub(super) fn on_dtmf(&mut self, s: &mut Session, side: Side, digit: char) {
        let now = self.now.tick;
        if !s.is_live(side) {
            return;
        }
        if s.stage != Stage::Connected {
            self.count("press_too_early");
            return;
        }
        if s.party_mut(side)
            .presses
            .pairs
            .take(now, digit, Signal::Rtp)
        {
            self.tell_press(s, side, digit);
        }
    }

    fn tell_press(&mut self, s: &mut Session, side: Side, digit: char) {
        self.record(s, side, CallStatus::DtmfReceived, Detail::dtmf(digit));
        self.save(s);
    }

    pub(super) fn on_info(&mut self, tx: TxId, info: &Request) {
        let Some((key, side)) = self.dialog_of(info) else {
            self.count("no_such_dialog");
            self.refuse(tx, info, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, info) {
                return;
            }
            match what_it_says(info) {
                Said::Nothing => shard.respond(tx, info, 200, None, &[]),
                Said::Key(digit) => {
                    shard.respond(tx, info, 200, None, &[]);
                    shard.on_press(s, side, digit);
                }
                Said::NoKey => {
                    shard.count("info_unusable");
                    shard.respond(tx, info, 400, None, &[]);
                }
                Said::Unknown => {
                    shard.count("info_unknown");
                    let accept = (HeaderName::Accept, format!("{DTMF_RELAY}, {DTMF}"));
                    shard.respond(tx, info, 415, None, &[accept]);
                }
            }
        });
    }

    /// A press that came by INFO: told, unless RTP has told it already, and passed on, unless RTP brings it to
    /// the other party. The relay knows that, and is told of each: it pairs both ways as we do.
    fn on_press(&mut self, s: &mut Session, side: Side, digit: char) {
        let now = self.now.tick;
        if s.stage != Stage::Connected {
            self.count("info_too_early");
            return;
        }
        let presses = &mut s.party_mut(side).presses;
        if !presses.has_room(now) {
            self.count("info_flood");
            return;
        }
        if presses.pairs.take(now, digit, Signal::Info) {
            self.tell_press(s, side, digit);
        }
        let play = !s.party(side.other()).allows.info;
        let asked = self.order_press(s, side, digit, play);
        if !play && !asked {
            self.pass_on_press(s, side, digit);
        }
    }

    /// A press that came by INFO, and that RTP does not bring, goes to the other party as an INFO of ours.
    pub(super) fn pass_on_press(&mut self, s: &mut Session, side: Side, digit: char) {
        if s.stage != Stage::Connected {
            return;
        }
        let now = self.now.tick;
        let other = s.party_mut(side.other());
        let Some(dialog) = other.dialog.as_mut() else {
            return;
        };
        let peer = dialog.next_hop();
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        let info = dialog
            .request_with(Method::Info, &sent_by, &branch, &[], None)
            .and_then(|info| {
                let body = format!("Signal={digit}\r\nDuration={PRESS_MS}\r\n");
                compose::with_body(info, DTMF_RELAY, body)
            });
        if let Some(mut info) = info {
            self.give_credentials(s, side.other(), &mut info);
            self.transactions
                .send_request(now, peer, info, Purpose::Aside);
        }
    }

    /// To a party that takes no INFO, a press goes within the audio. To one that does, the audio may have brought
    /// it before we heard of that: the relay, which sees both, says whether it is to be passed on. `false`: it was
    /// not asked, since nothing of a press reaches the party by the audio.
    fn order_press(&mut self, s: &Session, side: Side, digit: char, play: bool) -> bool {
        let transcoding = self.config.transcoding;
        let takes = s
            .negotiated
            .as_ref()
            .is_some_and(|agreed| agreed.takes_presses(side.other(), transcoding));
        if play {
            self.count(if takes {
                "info_played"
            } else {
                "info_not_passed_on"
            });
        }
        if takes {
            let key = s.media_key(self.config.shard);
            self.actions.push_back(Action::Media(MediaCommand::Press {
                key,
                side,
                digit,
                play,
            }));
        }
        takes
    }

    /// An OPTIONS in a dialog asks whether it is there.
    pub(super) fn on_options_in_dialog(&mut self, tx: TxId, options: &Request) {
        let abilities = [
            (HeaderName::Allow, compose::ALLOW.to_owned()),
            (
                HeaderName::Accept,
                format!("application/sdp, {DTMF_RELAY}, {DTMF}"),
            ),
            (HeaderName::Supported, extensions::SUPPORTED.to_owned()),
        ];
        self.answer_in_dialog(tx, options, 200, &abilities);
    }

    /// A masked call is not transferred: the new party would be called unmasked, and nobody would be
    /// told.
    pub(super) fn on_refer_in_dialog(&mut self, tx: TxId, refer: &Request) {
        self.count("refer_declined");
        self.answer_in_dialog(tx, refer, 603, &[]);
    }

    fn answer_in_dialog(
        &mut self,
        tx: TxId,
        request: &Request,
        status: u16,
        extra: &[(HeaderName, String)],
    ) {
        let Some((key, side)) = self.dialog_of(request) else {
            self.count("no_such_dialog");
            self.refuse(tx, request, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if shard.take_in_dialog(s, side, tx, request) {
                shard.respond(tx, request, status, None, extra);
            }
        });
    }
}

fn what_it_says(info: &Request) -> Said {
    if info.body().is_empty() {
        return Said::Nothing;
    }
    let kind = view::text(&info.headers, &HeaderName::ContentType).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let body = String::from_utf8_lossy(info.body());
    let pressed = if kind.eq_ignore_ascii_case(DTMF_RELAY) {
        body.lines().find_map(|line| {
            let (name, value) = line.split_once(['=', ':'])?;
            name.trim()
                .eq_ignore_ascii_case("signal")
                .then(|| value.trim().to_owned())
        })
    } else if kind.eq_ignore_ascii_case(DTMF) {
        Some(body.trim().to_owned())
    } else {
        return Said::Unknown;
    };
    match pressed.as_deref().and_then(key_of) {
        Some(digit) => Said::Key(digit),
        None => Said::NoKey,
    }
}

/// A key as INFO writes it: itself, or its number in RFC 4733 (10 is `*`, 11 is `#`).
fn key_of(text: &str) -> Option<char> {
    match text {
        "10" => return Some('*'),
        "11" => return Some('#'),
        _ => {}
    }
    let mut chars = text.chars();
    let key = chars.next()?.to_ascii_uppercase();
    let known = matches!(key, '0'..='9' | '*' | '#' | 'A'..='D');
    (known && chars.next().is_none()).then_some(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn info(kind: &str, body: &str) -> Request {
        let text = format!(
            "INFO sip:x@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK1\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 2 INFO\r\n\
             {kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let bytes = bytes::Bytes::from(text);
        let message = sipx_sip::parse_datagram(bytes, &sipx_sip::Limits::default()).unwrap();
        message.as_request().unwrap().clone()
    }

    #[test]
    fn what_an_info_says_is_read_in_each_form_of_the_field() {
        let relay = "Content-Type: application/dtmf-relay\r\n";
        let plain = "Content-Type: Application/DTMF; charset=x\r\n";
        for (kind, body, said) in [
            (relay, "Signal=5\r\nDuration=160\r\n", Said::Key('5')),
            (relay, "Signal= 5\r\nDuration= 160", Said::Key('5')),
            (relay, "Duration=160\nSIGNAL=#\n", Said::Key('#')),
            (relay, "Signal=11\r\n", Said::Key('#')),
            (relay, "Signal=10\r\n", Said::Key('*')),
            (relay, "Signal=d\r\n", Said::Key('D')),
            (relay, "Signal=55\r\n", Said::NoKey),
            (relay, "Signal=\r\n", Said::NoKey),
            (relay, "Duration=160\r\n", Said::NoKey),
            (relay, "\u{0}\u{fffd}=", Said::NoKey),
            (plain, "5", Said::Key('5')),
            (plain, " *\r\n", Said::Key('*')),
            (plain, "flash", Said::NoKey),
            ("", "5", Said::Unknown),
            ("Content-Type: text/plain\r\n", "5", Said::Unknown),
            ("", "", Said::Nothing),
            (relay, "", Said::Nothing),
        ] {
            assert_eq!(what_it_says(&info(kind, body)), said, "{kind} {body:?}");
        }
    }
}
