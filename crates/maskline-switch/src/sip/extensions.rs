//! What a peer says of SIP's extensions: reliable provisionals (RFC 3262), session timers (RFC 4028).
//!
//! Reading only; what is done about it is decided in [`crate::shard`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sipx_sip::rel::{self, Offered, RAck, RSeq};
use sipx_sip::session::{self, Accepted, MinSe, Refresher, SessionExpires};
use sipx_sip::{Headers, Request, Response};

use super::{HeaderName, view};

pub use sipx_sip::rel::{Numbering, Received, Sequence};

/// The extensions that we understand in a `Require`.
const UNDERSTOOD: [&str; 2] = [rel::OPTION_TAG, session::OPTION_TAG];

/// The option tags that we put into `Supported`.
pub const SUPPORTED: &str = "100rel, timer";

/// The option tag of reliable provisionals.
pub const RELIABLE: &str = rel::OPTION_TAG;

/// The option tags that a request requires and we don't understand.
#[must_use]
pub fn not_understood(headers: &Headers) -> Vec<String> {
    view::required_extensions(headers)
        .into_iter()
        .filter(|tag| {
            !UNDERSTOOD
                .iter()
                .any(|known| tag.eq_ignore_ascii_case(known))
        })
        .collect()
}

/// Whether an INVITE lets its provisional answers be sent reliably: it supports that, or requires
/// it (RFC 3262 §3).
#[must_use]
pub fn takes_reliable(invite: &Request) -> bool {
    let offered = Offered::in_request(invite);
    offered.supported || offered.required
}

/// The `RSeq` of a provisional answer that is sent reliably; `None`: it is an ordinary one.
#[must_use]
pub fn reliable_number(response: &Response) -> Option<u32> {
    let required = view::required_extensions(&response.headers)
        .iter()
        .any(|tag| tag.eq_ignore_ascii_case(rel::OPTION_TAG));
    if !required {
        return None;
    }
    let RSeq(number) = response.headers.typed::<RSeq>()?.ok()?;
    (number > 0).then_some(number)
}

/// Whether a PRACK is for the provisional answer that waits for one, to the INVITE of this `CSeq`
/// number; if so, none waits any more.
pub fn acknowledges(numbering: &mut Numbering, prack: &Request, invite_cseq: u32) -> bool {
    match prack.headers.typed::<RAck>() {
        Some(Ok(ack)) => numbering.acknowledge(&ack, invite_cseq, b"INVITE"),
        Some(Err(_)) | None => false,
    }
}

/// The `RAck` of a PRACK.
#[must_use]
pub fn rack(rseq: u32, invite_cseq: u32) -> String {
    let ack = RAck {
        rseq,
        cseq: invite_cseq,
        method: b"INVITE".to_vec(),
    };
    ack.to_string()
}

/// The shortest session interval that we take and offer, in seconds: the RFC's own (RFC 4028 §4).
pub const LEAST_INTERVAL_SECONDS: u32 = 90;
/// The longest one; a peer that asks for more gets this.
const LONGEST_INTERVAL_SECONDS: u32 = 86_400;

/// The session timer of one dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The session interval, 90 to 86,400 s.
    pub seconds: u32,
    /// Whether the refreshes are ours.
    pub we_refresh: bool,
}

impl Expiry {
    /// When the refresher refreshes: at half the interval (RFC 4028 §7.2).
    #[must_use]
    pub fn refreshes_after(self) -> Duration {
        Duration::from_secs(u64::from(self.seconds / 2))
    }

    /// When a session that was not refreshed is ended: 32 s or a third of the interval before its
    /// end, whichever is less (RFC 4028 §10).
    #[must_use]
    pub fn ends_after(self) -> Duration {
        let early = (self.seconds / 3).min(32);
        Duration::from_secs(u64::from(self.seconds.saturating_sub(early)))
    }
}

/// What our 2xx to a peer's request says of the session timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerAnswer {
    /// Nothing: there is none, or the one that runs goes on by itself.
    None,
    /// This one runs.
    Run {
        /// Its terms.
        expiry: Expiry,
        /// Whether the 2xx requires the peer to know timers: it refreshes.
        require: bool,
    },
    /// The request is refused with 422.
    TooSmall,
}

/// Answers what an INVITE or UPDATE says of the session timer (RFC 4028 §9). `ours` is the interval
/// that we ask for by ourselves, `held` the timer that runs already: its roles stay, unless the
/// peer names others.
#[must_use]
pub fn timer_answer(
    headers: &Headers,
    ours: Option<Duration>,
    held: Option<Expiry>,
) -> TimerAnswer {
    let requested = headers.typed::<SessionExpires>().and_then(Result::ok);
    let least = least_interval(headers).unwrap_or(0);
    let supports = [HeaderName::Supported, HeaderName::Require]
        .iter()
        .any(|name| lists(headers, name, session::OPTION_TAG));
    if least > LONGEST_INTERVAL_SECONDS {
        return TimerAnswer::None;
    }
    let floor = Duration::from_secs(u64::from(LEAST_INTERVAL_SECONDS));
    match session::answer(supports, requested, None, floor) {
        session::Answer::TooBrief(_) if supports => TimerAnswer::TooSmall,
        // Whoever put the interval there, the caller would not understand a 422.
        session::Answer::TooBrief(_) | session::Answer::None => TimerAnswer::None,
        session::Answer::Accept(Accepted {
            interval,
            refresher,
            require,
        }) => {
            let seconds = match (requested, held, ours) {
                (Some(_), _, _) => whole_seconds(interval),
                (None, Some(held), _) => held.seconds,
                (None, None, Some(ours)) => whole_seconds(ours),
                (None, None, None) => return TimerAnswer::None,
            };
            let we_refresh = match (requested.and_then(|it| it.refresher), held) {
                (None, Some(held)) => held.we_refresh,
                (Some(_), _) | (None, None) => refresher == Refresher::Uas,
            };
            TimerAnswer::Run {
                expiry: Expiry {
                    seconds: seconds.max(least),
                    we_refresh,
                },
                require: require && supports,
            }
        }
    }
}

/// What our INVITE asks for: an interval and the shortest one, in seconds, 0 for none; the peer chooses who refreshes.
pub fn timer_request(seconds: u32, least: u32) -> impl Iterator<Item = (HeaderName, String)> {
    let headers = [
        (HeaderName::SessionExpires, seconds.to_string()),
        (HeaderName::MinSe, least.to_string()),
    ];
    headers.into_iter().filter(move |_| seconds > 0)
}

/// What a 2xx to a request of ours agrees to (RFC 4028 §7.2). Without `Session-Expires` a timer that
/// runs already goes on, and is ours to refresh.
#[must_use]
pub fn agreed_timer(headers: &Headers, held: Option<Expiry>) -> Option<Expiry> {
    let answered = headers.typed::<SessionExpires>().and_then(Result::ok);
    let held = held.map(|held| Duration::from_secs(u64::from(held.seconds)));
    let agreed = session::adopt(answered, held)?;
    Some(Expiry {
        seconds: whole_seconds(agreed.interval),
        we_refresh: agreed.we_refresh,
    })
}

/// `Min-SE` in seconds, at most a day and a second.
#[must_use]
pub fn least_interval(headers: &Headers) -> Option<u32> {
    let MinSe(least) = headers.typed::<MinSe>()?.ok()?;
    let seconds = least.as_secs().min(u64::from(LONGEST_INTERVAL_SECONDS) + 1);
    u32::try_from(seconds).ok()
}

fn whole_seconds(interval: Duration) -> u32 {
    let longest = u64::from(LONGEST_INTERVAL_SECONDS);
    let least = u64::from(LEAST_INTERVAL_SECONDS);
    u32::try_from(interval.as_secs().clamp(least, longest)).unwrap_or(LONGEST_INTERVAL_SECONDS)
}

fn lists(headers: &Headers, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).any(|header| {
        let value = header.value();
        String::from_utf8_lossy(&value)
            .split(',')
            .any(|listed| listed.trim().eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(lines: &str) -> Headers {
        let text = format!("UPDATE sip:x@192.0.2.1 SIP/2.0\r\n{lines}\r\n\r\n");
        let bytes = bytes::Bytes::from(text);
        let message = sipx_sip::parse_datagram(bytes, &sipx_sip::Limits::default()).unwrap();
        message.headers().clone()
    }

    const fn run(seconds: u32, we_refresh: bool, require: bool) -> TimerAnswer {
        TimerAnswer::Run {
            expiry: Expiry {
                seconds,
                we_refresh,
            },
            require,
        }
    }

    #[test]
    fn what_a_peer_asks_of_the_timer_is_answered_by_the_rfcs_table() {
        const OURS: Option<Duration> = Some(Duration::from_secs(1_800));
        let held = |we_refresh| {
            Some(Expiry {
                seconds: 300,
                we_refresh,
            })
        };
        for (lines, ours, held, answer) in [
            ("To: x", OURS, None, TimerAnswer::None),
            ("Supported: timer", None, None, TimerAnswer::None),
            (
                "Supported: 100rel, timer",
                OURS,
                None,
                run(1_800, true, true),
            ),
            ("k: timer\r\nx: 600", None, None, run(600, true, true)),
            (
                "k: timer\r\nx: 600;refresher=uac",
                OURS,
                None,
                run(600, false, true),
            ),
            (
                "k: timer\r\nx: 600;refresher=uas",
                OURS,
                None,
                run(600, true, true),
            ),
            ("Session-Expires: 600", OURS, None, run(600, true, false)),
            (
                "Supported: timer\r\nSession-Expires: 89",
                OURS,
                None,
                TimerAnswer::TooSmall,
            ),
            ("Session-Expires: 89", OURS, None, TimerAnswer::None),
            (
                "k: timer\r\nMin-SE: 2000",
                OURS,
                None,
                run(2_000, true, true),
            ),
            (
                "k: timer\r\nMin-SE: 99999999999",
                OURS,
                None,
                TimerAnswer::None,
            ),
            (
                "k: timer\r\nx: 18446744073709551615",
                OURS,
                None,
                run(86_400, true, true),
            ),
            ("k: timer\r\nx: many", OURS, None, run(1_800, true, true)),
            (
                "k: timer\r\nx: 600",
                OURS,
                held(false),
                run(600, false, true),
            ),
            (
                "k: timer\r\nx: 600;refresher=uas",
                OURS,
                held(false),
                run(600, true, true),
            ),
            ("k: timer", OURS, held(false), run(300, false, true)),
            ("To: x", OURS, held(true), TimerAnswer::None),
        ] {
            assert_eq!(timer_answer(&headers(lines), ours, held), answer, "{lines}");
        }
    }

    #[test]
    fn a_2xx_agrees_to_its_own_terms_within_bounds() {
        let expiry = |seconds, we_refresh| {
            Some(Expiry {
                seconds,
                we_refresh,
            })
        };
        for (lines, held, agreed) in [
            ("To: x", None, None),
            ("x: 600;refresher=uas", None, expiry(600, false)),
            ("x: 600;refresher=uac", None, expiry(600, true)),
            ("x: 600", None, expiry(600, true)),
            ("x: 1;refresher=uac", None, expiry(90, true)),
            ("x: 999999;refresher=uas", None, expiry(86_400, false)),
            ("To: x", expiry(300, false), expiry(300, true)),
        ] {
            assert_eq!(agreed_timer(&headers(lines), held), agreed, "{lines}");
        }
    }

    #[test]
    fn a_session_is_refreshed_at_its_half_and_ended_before_its_end() {
        for (seconds, refreshes, ends) in [(90, 45, 60), (1_800, 900, 1_768)] {
            let expiry = Expiry {
                seconds,
                we_refresh: true,
            };
            assert_eq!(expiry.refreshes_after().as_secs(), refreshes);
            assert_eq!(expiry.ends_after().as_secs(), ends);
        }
    }
}
