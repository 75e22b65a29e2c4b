//! Hides phone numbers and names by where they stand: user parts of URIs, display names, and runs of
//! digits wherever else a number may be. A peer's reason phrase gives way to ours. Addresses, codecs,
//! status and cause stay readable.

use crate::Shown;
use crate::digits::{self, Keep, mask_run};
use crate::message::{Kind, Text, status_shown};

/// What stands for something hidden.
pub const HIDDEN: &str = "…";

/// What a header's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `[name] <uri>;parameters`, several perhaps.
    Address,
    /// Addresses and random names: `Via`, `Call-ID`.
    Opaque,
    /// Protocol words and small numbers.
    Plain,
    /// About a person, in free text or encoded.
    Private,
    /// Proves who someone is.
    Credentials,
    /// Anything else.
    Unknown,
}

fn class_of(name: &str) -> Class {
    match name.to_ascii_lowercase().as_str() {
        "from"
        | "to"
        | "contact"
        | "p-asserted-identity"
        | "p-preferred-identity"
        | "remote-party-id"
        | "diversion"
        | "history-info"
        | "referred-by"
        | "refer-to"
        | "reply-to"
        | "route"
        | "record-route"
        | "service-route"
        | "path"
        | "p-called-party-id"
        | "p-associated-uri"
        | "p-served-user" => Class::Address,
        "via" | "call-id" | "in-reply-to" | "replaces" | "session-id" => Class::Opaque,
        "accept"
        | "accept-encoding"
        | "accept-language"
        | "allow"
        | "allow-events"
        | "cseq"
        | "content-disposition"
        | "content-encoding"
        | "content-language"
        | "content-length"
        | "content-type"
        | "date"
        | "event"
        | "expires"
        | "max-forwards"
        | "min-expires"
        | "min-se"
        | "mime-version"
        | "p-early-media"
        | "privacy"
        | "proxy-require"
        | "rack"
        | "require"
        | "retry-after"
        | "rseq"
        | "server"
        | "session-expires"
        | "subscription-state"
        | "supported"
        | "timestamp"
        | "unsupported"
        | "user-agent" => Class::Plain,
        "subject"
        | "organization"
        | "call-info"
        | "alert-info"
        | "error-info"
        | "identity"
        | "identity-info"
        | "geolocation"
        | "user-to-user"
        | "p-access-network-info"
        | "p-charging-vector"
        | "p-charging-function-addresses" => Class::Private,
        "authorization" | "proxy-authorization" | "authentication-info" => Class::Credentials,
        _ => Class::Unknown,
    }
}

/// A message without numbers and names. `known` are the numbers of the call, as digits: they are
/// hidden wherever they stand.
#[must_use]
pub fn redact(message: &Text, known: &[String]) -> Text {
    let sweep = |text: String| digits::sweep(&text, known);
    Text {
        start: sweep(start_line(message)),
        headers: message
            .headers
            .iter()
            .map(|(name, value)| {
                let shown = value_of(class_of(name), value);
                (sweep(value_of(Class::Unknown, name)), sweep(shown))
            })
            .collect(),
        body: sweep(body_of(message)),
    }
}

/// One of our own sentences, which may repeat words of a message.
#[must_use]
pub fn redact_text(text: &str, known: &[String]) -> String {
    let text = uris(&digits::decoded(text));
    digits::sweep(&digits::mask(&text, 7, Keep::ADDRESSES), known)
}

fn start_line(message: &Text) -> String {
    match message.kind() {
        Kind::Response(0, _) => return format!("SIP/2.0 {HIDDEN}"),
        Kind::Response(status, phrase) => {
            let shown = status_shown(status, &phrase, Shown::Redacted);
            return format!("SIP/2.0 {shown}");
        }
        Kind::Request(_) => {}
    }
    let line = message.start.as_str();
    let (line, version) = match line.rsplit_once(' ') {
        Some((line, "SIP/2.0")) => (line, " SIP/2.0"),
        Some(_) | None => (line, ""),
    };
    let (method, uri) = line.split_once(' ').unwrap_or((line, ""));
    let method = digits::mask(method, 5, Keep::NOTHING);
    let uri = digits::mask(&uris(&digits::decoded(uri)), 6, Keep::ADDRESSES);
    format!("{method} {uri}{version}")
}

fn value_of(class: Class, value: &str) -> String {
    let value = digits::decoded(value);
    match class {
        Class::Address => {
            let named = without_names(&without_quotes(&value));
            digits::mask(&uris(&named), 6, Keep::BOTH)
        }
        Class::Opaque => digits::mask(&uris(&without_quotes(&value)), 7, Keep::BOTH),
        Class::Plain => digits::mask(&uris(&without_quotes(&value)), 8, Keep::NOTHING),
        Class::Private => HIDDEN.to_owned(),
        Class::Credentials => {
            let scheme = value.split_whitespace().next().unwrap_or_default();
            let is_word = scheme.bytes().all(|b| b.is_ascii_alphabetic());
            format!("{} {HIDDEN}", if is_word { scheme } else { "" })
                .trim_start()
                .to_owned()
        }
        Class::Unknown => digits::mask(&uris(&without_quotes(&value)), 5, Keep::NOTHING),
    }
}

/// Quoted strings hold names and free text.
fn without_quotes(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('"') {
        out.push_str(before);
        let mut escaped = false;
        let end = after.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        out.push_str("\"…\"");
        match end {
            Some((at, _)) => rest = after.get(at + 1..).unwrap_or_default(),
            // It never ends: all of it is the string.
            None => return out,
        }
    }
    out.push_str(rest);
    out
}

/// What stands before a `<` is a name; so is what is no URI at all.
fn without_names(value: &str) -> String {
    let mut out = String::new();
    for (at, entry) in split_outside(value).into_iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        let entry = entry.trim();
        match entry.split_once('<') {
            Some((name, rest)) => {
                if !name.trim().is_empty() {
                    out.push_str("\"…\" ");
                }
                out.push('<');
                out.push_str(rest);
            }
            None if entry.contains(':') || entry == "*" => out.push_str(entry),
            None => out.push_str(HIDDEN),
        }
    }
    out
}

/// At commas that are in no `<…>`.
fn split_outside(value: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in value.char_indices() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            ',' if !inside => {
                parts.extend(value.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(value.get(start..));
    parts
}

/// Hides the user of each URI in a text.
fn uris(text: &str) -> String {
    const SCHEMES: [&str; 6] = ["sips:", "sip:", "tel:", "mailto:", "pres:", "im:"];
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut at = 0;
    loop {
        let found = SCHEMES
            .iter()
            .filter_map(|scheme| Some((at + lower.get(at..)?.find(scheme)?, scheme.len())))
            .min();
        let Some((begin, length)) = found else {
            out.push_str(text.get(at..).unwrap_or_default());
            return out;
        };
        let is_tel = lower.get(begin..).is_some_and(|it| it.starts_with("tel:"));
        let body = begin + length;
        out.push_str(text.get(at..body).unwrap_or_default());
        let rest = text.get(body..).unwrap_or_default();
        let end = rest
            .find(|c: char| c == '>' || c == '"' || c.is_whitespace())
            .unwrap_or(rest.len());
        let whole = rest.get(..end).unwrap_or_default();
        let user = if is_tel {
            let end = whole.find([';', ',', '?']).unwrap_or(whole.len());
            whole.get(..end).unwrap_or_default()
        } else {
            whole.split_once('@').map_or("", |(user, _)| user)
        };
        out.push_str(&user_of(user));
        at = body + user.len();
    }
}

/// The user part of a URI: a number in its redacted form, a word hidden.
fn user_of(user: &str) -> String {
    if user.is_empty() {
        return String::new();
    }
    let (name, more) = match user.find([';', ':']) {
        Some(at) => (user.get(..at).unwrap_or_default(), ";…"),
        None => (user, ""),
    };
    let lower = name.to_ascii_lowercase();
    if ["anonymous", "unavailable", "restricted", "unknown"].contains(&lower.as_str()) {
        return format!("{name}{more}");
    }
    let bare: String = name.chars().filter(|c| !digits::is_separator(*c)).collect();
    let number = bare.strip_prefix('+').unwrap_or(&bare);
    if !number.is_empty() && number.chars().all(char::is_numeric) {
        let plus = if bare.starts_with('+') { "+" } else { "" };
        let number: Vec<char> = number.chars().collect();
        return format!("{plus}{}{more}", mask_run(&number));
    }
    format!("{HIDDEN}{more}")
}

fn body_of(message: &Text) -> String {
    if message.body.is_empty() {
        return String::new();
    }
    if message.is_sdp() {
        let lines = message.body.lines().map(sdp_line);
        return lines.collect::<Vec<_>>().join("\r\n") + "\r\n";
    }
    let kind = message.header("Content-Type").unwrap_or("no type");
    let kind = value_of(Class::Plain, kind);
    let kind = kind.split(';').next().unwrap_or_default();
    format!("({} bytes of {kind} hidden)", message.body.len())
}

fn sdp_line(line: &str) -> String {
    let (kind, value) = line.split_once('=').unwrap_or((line, ""));
    let plain = |value: &str| digits::mask_plain(value, 6, Keep::ADDRESSES);
    let shown = match kind {
        "o" => {
            let mut fields = value.split_whitespace();
            let user = fields.next().unwrap_or("-");
            let rest: Vec<_> = fields.collect();
            let user = if user == "-" { user } else { HIDDEN };
            format!("{user} {}", plain(&rest.join(" ")))
        }
        "s" if value == "-" || value == " " => value.to_owned(),
        "s" | "i" | "u" | "e" | "p" | "k" => HIDDEN.to_owned(),
        "a" => {
            let (name, value) = match value.split_once(':') {
                Some((name, value)) => (name, Some(value)),
                None => (value, None),
            };
            let known = [
                "rtpmap",
                "fmtp",
                "ptime",
                "maxptime",
                "rtcp",
                "candidate",
                "mid",
                "setup",
                "silenceSupp",
            ];
            match value {
                None => digits::mask(name, 5, Keep::NOTHING),
                Some(value) if known.contains(&name) => format!("{name}:{}", plain(value)),
                Some(_) => format!("{}:{HIDDEN}", digits::mask(name, 5, Keep::NOTHING)),
            }
        }
        "v" | "c" | "b" | "t" | "m" => plain(value),
        _ => digits::mask(value, 5, Keep::NOTHING),
    };
    format!("{}={shown}", digits::mask(kind, 5, Keep::NOTHING))
}

/// Overwrites what proves who someone is, in place and of the same length: the `response` of a
/// digest, everything of another scheme.
pub fn hide_credentials(message: &mut [u8]) {
    let head = message
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .unwrap_or(message.len());
    let mut hiding = false;
    let mut at = 0;
    while at < head {
        let end = message
            .get(at..head)
            .and_then(|it| it.iter().position(|&b| b == b'\n'))
            .map_or(head, |length| at + length);
        if let Some(line) = message.get_mut(at..end) {
            let folded = matches!(line.first(), Some(b' ' | b'\t'));
            let colon = line.iter().position(|&b| b == b':').unwrap_or(line.len());
            let name = line.get(..colon).unwrap_or_default().trim_ascii();
            let names = [&b"authorization"[..], b"proxy-authorization"];
            let named = !folded && names.iter().any(|it| name.eq_ignore_ascii_case(it));
            hiding = named || (folded && hiding);
            if hiding {
                let from = if folded { 0 } else { colon + 1 };
                hide_in_line(line.get_mut(from..).unwrap_or_default(), folded);
            }
        }
        at = end + 1;
    }
}

fn hide_in_line(value: &mut [u8], folded: bool) {
    let cover = |part: &mut [u8]| {
        for byte in part {
            if byte.is_ascii_graphic() && *byte != b'"' {
                *byte = b'x';
            }
        }
    };
    let lower = value.to_ascii_lowercase();
    let is_digest = folded || lower.trim_ascii_start().starts_with(b"digest");
    if !is_digest {
        let scheme = lower.trim_ascii_start().len();
        let start = lower.len() - scheme;
        let word = lower.iter().skip(start).position(|&b| b == b' ');
        let from = word.map_or(start, |length| start + length);
        cover(value.get_mut(from..).unwrap_or_default());
        return;
    }
    let mut at = 0;
    while let Some(found) = lower
        .get(at..)
        .and_then(|it| it.windows(8).position(|it| it == b"response"))
    {
        let after = at + found + 8;
        let rest = lower.get(after..).unwrap_or_default();
        let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        at = after;
        if rest.get(blank) != Some(&b'=') {
            continue;
        }
        let begin = after + blank + 1;
        let length = lower
            .get(begin..)
            .and_then(|it| it.iter().position(|&b| b == b','))
            .unwrap_or(lower.len() - begin);
        cover(value.get_mut(begin..begin + length).unwrap_or_default());
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
