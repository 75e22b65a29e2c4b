//! A SIP message as lines of text: lenient, because what is shown may be cut off or broken.

use maskline_switch::sip::compose::known_phrase;

use crate::Shown;

/// A message in its parts, unfolded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Request line or status line.
    pub start: String,
    /// Headers in their order; the value trimmed and on one line.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its method.
    Request(String),
    /// Its status, 0 for none from 100 to 699, and phrase.
    Response(u16, String),
}

impl Text {
    /// Reads a message; what is no UTF-8 is replaced.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches(['\r', '\n', '\0']);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .or_else(|| text.split_once("\n\n"))
            .unwrap_or((text, ""));
        let mut lines = head.split('\n').map(|line| line.trim_end_matches('\r'));
        let start = lines.next().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            headers.push((long_name(name.trim()), value.trim().to_owned()));
        }
        Self {
            start,
            headers,
            body: body.to_owned(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let (first, rest) = split_word(&self.start);
        // However the version is written: what stands in a status line is not taken for a method.
        let is_status = first
            .get(..4)
            .is_some_and(|it| it.eq_ignore_ascii_case("SIP/"));
        if !is_status {
            return Kind::Request(first.to_owned());
        }
        let (status, phrase) = split_word(rest);
        let status = status.parse().ok().filter(|it| (100..=699).contains(it));
        Kind::Response(status.unwrap_or(0), phrase.to_owned())
    }

    /// A header's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = |(it, _): &&(String, String)| it.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(found)
            .map(|(_, value)| value.as_str())
    }

    /// The method that `CSeq` names.
    #[must_use]
    pub fn cseq_method(&self) -> &str {
        let cseq = self.header("CSeq").unwrap_or_default();
        cseq.split_whitespace().nth(1).unwrap_or_default()
    }

    /// The Q.850 cause of a `Reason` header (RFC 3326).
    #[must_use]
    pub fn q850(&self) -> Option<u8> {
        let reasons = self.headers.iter();
        let reasons = reasons.filter(|(name, _)| name.eq_ignore_ascii_case("Reason"));
        reasons
            .flat_map(|(_, value)| value.split(','))
            .find_map(|reason| {
                let mut parts = reason.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case("Q.850") {
                    return None;
                }
                parts.find_map(|part| {
                    let (name, cause) = part.split_once('=')?;
                    let is_cause = name.trim().eq_ignore_ascii_case("cause");
                    is_cause.then(|| cause.trim().parse().ok()).flatten()
                })
            })
    }

    /// Whether the body describes media.
    #[must_use]
    pub fn is_sdp(&self) -> bool {
        let kind = self.header("Content-Type").unwrap_or_default();
        kind.to_ascii_lowercase().starts_with("application/sdp")
    }

    /// Address, codecs and direction of the first stream, in a few words; `None` without SDP.
    #[must_use]
    pub fn sdp(&self) -> Option<String> {
        if !self.is_sdp() || self.body.is_empty() {
            return None;
        }
        let line = |prefix: &str| self.body.lines().find_map(|line| line.strip_prefix(prefix));
        let address = line("c=").and_then(|c| c.split_whitespace().nth(2));
        let mut media = line("m=").unwrap_or_default().split_whitespace();
        let (_, port) = (media.next(), media.next().unwrap_or("?"));
        let codecs: Vec<_> = media.skip(1).map(|payload| self.codec(payload)).collect();
        let mut text = format!("{}:{port} {}", address.unwrap_or("?"), codecs.join(","));
        let modes = ["a=sendonly", "a=recvonly", "a=inactive"];
        let mode = self.body.lines().find(|it| modes.contains(&it.trim()));
        if let Some(mode) = mode.and_then(|mode| mode.trim().strip_prefix("a=")) {
            text.push(' ');
            text.push_str(mode);
        }
        Some(text)
    }

    fn codec(&self, payload: &str) -> String {
        let prefix = format!("a=rtpmap:{payload} ");
        let named = self.body.lines().find_map(|it| it.strip_prefix(&prefix));
        let name = named.and_then(|it| it.split('/').next());
        match (name, payload) {
            (Some(name), _) => name.trim().to_owned(),
            (None, "0") => "PCMU".to_owned(),
            (None, "8") => "PCMA".to_owned(),
            (None, "9") => "G722".to_owned(),
            (None, "18") => "G729".to_owned(),
            (None, payload) => payload.to_owned(),
        }
    }
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// A status and its phrase, as a person may see them. A peer may write a name or a number for a
/// phrase: redacted, it is ours or none.
#[must_use]
pub fn status_shown(status: u16, phrase: &str, shown: Shown) -> String {
    let phrase = match shown {
        Shown::Redacted => known_phrase(status).unwrap_or_default(),
        Shown::Full => phrase,
    };
    format!("{status} {phrase}").trim_end().to_owned()
}

/// RFC 3261 §7.3.3 and the registry's compact forms.
fn long_name(name: &str) -> String {
    let long = match name.to_ascii_lowercase().as_str() {
        "a" => "Accept-Contact",
        "b" => "Referred-By",
        "c" => "Content-Type",
        "d" => "Request-Disposition",
        "e" => "Content-Encoding",
        "f" => "From",
        "i" => "Call-ID",
        "j" => "Reject-Contact",
        "k" => "Supported",
        "l" => "Content-Length",
        "m" => "Contact",
        "n" => "Identity-Info",
        "o" => "Event",
        "r" => "Refer-To",
        "s" => "Subject",
        "t" => "To",
        "u" => "Allow-Events",
        "v" => "Via",
        "x" => "Session-Expires",
        "y" => "Identity",
        _ => name,
    };
    long.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_unfolded_and_by_long_names() {
        let text = Text::of(
            b"\r\nINVITE sip:a@b SIP/2.0\r\nf: <sip:x@y>\r\n ;tag=1\r\nCSeq: 7 INVITE\r\nReason: SIP;cause=1, Q.850 ;cause=17;text=\"x\"\r\n\
              c: application/sdp\r\n\r\nv=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n",
        );
        assert_eq!(text.kind(), Kind::Request("INVITE".to_owned()));
        assert_eq!(text.header("from"), Some("<sip:x@y> ;tag=1"));
        assert_eq!((text.cseq_method(), text.q850()), ("INVITE", Some(17)));
        assert_eq!(
            text.sdp().as_deref(),
            Some("192.0.2.1:4000 PCMA,telephone-event sendonly")
        );
        let answer = Text::of(b"SIP/2.0 486 Busy Here\r\nVia");
        assert_eq!(answer.kind(), Kind::Response(486, "Busy Here".to_owned()));
        assert_eq!(answer.sdp(), None);
        for (start, status, phrase) in [
            ("sip/2.0 \t486\tBusy", 486, "Busy"),
            ("SIP/2.0 299", 299, ""),
            ("SIP/2.0 65912 x", 0, "x"),
            ("SIP/2.0 Alice Tan", 0, "Tan"),
        ] {
            let kind = Text::of(start.as_bytes()).kind();
            assert_eq!(kind, Kind::Response(status, phrase.to_owned()), "{start}");
        }
    }
}
