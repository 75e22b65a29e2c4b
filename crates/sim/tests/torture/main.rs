//! The torture messages of RFC 4475 and RFC 5118, each by the number of its section: what we
//! answer, and why. Written after the sections, with numbers and hosts of the simulation's site.
//!
//! The messages are files, so that fuzzing begins with them; `corpus` runs every file of it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sim::fuzzed;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The callee is called, and hears no second time of it.
    Called,
    /// These statuses go back.
    Answered(&'static [u16]),
    /// Nothing goes back; this is counted.
    Dropped(&'static str),
}
use Fate::{Answered, Called, Dropped};

/// Section, what becomes of it, and why.
const TABLE: &[(&str, Fate, &str)] = &[
    // RFC 4475 §3.1.1: valid messages.
    (
        "rfc4475-3.1.1.01",
        Called,
        "valid, however it is folded and spaced",
    ),
    (
        "rfc4475-3.1.1.02",
        Answered(&[501]),
        "valid, of a method that nobody knows",
    ),
    ("rfc4475-3.1.1.03", Called, "an escaped + is a +"),
    (
        "rfc4475-3.1.1.04",
        Answered(&[405]),
        "valid; we are no registrar",
    ),
    (
        "rfc4475-3.1.1.05",
        Answered(&[501]),
        "a % in a method escapes nothing",
    ),
    (
        "rfc4475-3.1.1.06",
        Answered(&[200]),
        "no space is needed before <",
    ),
    ("rfc4475-3.1.1.07", Called, "long values are values"),
    (
        "rfc4475-3.1.1.08",
        Answered(&[200]),
        "what follows the body of a datagram is ignored",
    ),
    (
        "rfc4475-3.1.1.09",
        Answered(&[200]),
        "a ; in the user part is part of it",
    ),
    (
        "rfc4475-3.1.1.10",
        Answered(&[200]),
        "only the top Via is ours to understand",
    ),
    (
        "rfc4475-3.1.1.11",
        Answered(&[405]),
        "valid; we take no messages",
    ),
    (
        "rfc4475-3.1.1.12",
        Dropped("stray_response"),
        "valid, of no transaction of ours",
    ),
    (
        "rfc4475-3.1.1.13",
        Dropped("stray_response"),
        "valid, of no transaction of ours",
    ),
    // RFC 4475 §3.1.2: invalid messages.
    (
        "rfc4475-3.1.2.01",
        Answered(&[400]),
        "empty parameters and contacts",
    ),
    (
        "rfc4475-3.1.2.02",
        Answered(&[400]),
        "a datagram shorter than its Content-Length",
    ),
    ("rfc4475-3.1.2.03", Answered(&[400]), "a negative length"),
    ("rfc4475-3.1.2.04", Answered(&[400]), "CSeq above 2^31"),
    (
        "rfc4475-3.1.2.05",
        Dropped("invalid"),
        "a response is never answered",
    ),
    (
        "rfc4475-3.1.2.06",
        Answered(&[400]),
        "To is a quote that does not end",
    ),
    (
        "rfc4475-3.1.2.07",
        Answered(&[400]),
        "a Request-URI has no brackets",
    ),
    (
        "rfc4475-3.1.2.08",
        Answered(&[400]),
        "a Request-URI has no spaces",
    ),
    (
        "rfc4475-3.1.2.09",
        Answered(&[400]),
        "one space between the parts",
    ),
    (
        "rfc4475-3.1.2.10",
        Answered(&[400]),
        "nothing after the version",
    ),
    (
        "rfc4475-3.1.2.11",
        Answered(&[400]),
        "a Request-URI has no headers",
    ),
    (
        "rfc4475-3.1.2.12",
        Answered(&[404]),
        "Date is not ours to read; nobody has that number",
    ),
    (
        "rfc4475-3.1.2.13",
        Answered(&[405]),
        "Contact is not read: we are no registrar",
    ),
    (
        "rfc4475-3.1.2.14",
        Answered(&[400]),
        "spaces within the brackets of To",
    ),
    (
        "rfc4475-3.1.2.15",
        Answered(&[400]),
        "an unquoted comma in a display name",
    ),
    ("rfc4475-3.1.2.16", Answered(&[505]), "version 7.0"),
    (
        "rfc4475-3.1.2.17",
        Answered(&[400]),
        "CSeq names another method",
    ),
    (
        "rfc4475-3.1.2.18",
        Answered(&[400]),
        "CSeq names another method",
    ),
    (
        "rfc4475-3.1.2.19",
        Dropped("malformed"),
        "a response is never answered",
    ),
    // RFC 4475 §3.2: transactions.
    (
        "rfc4475-3.2.01",
        Answered(&[200]),
        "a bare cookie is matched like RFC 2543",
    ),
    // RFC 4475 §3.3: applications.
    (
        "rfc4475-3.3.01",
        Dropped("invalid"),
        "without From, To and Call-ID there is no answer",
    ),
    (
        "rfc4475-3.3.02",
        Answered(&[200]),
        "OPTIONS asks us, whatever it names",
    ),
    (
        "rfc4475-3.3.03",
        Answered(&[200]),
        "OPTIONS asks us, whatever it names",
    ),
    (
        "rfc4475-3.3.04",
        Answered(&[405]),
        "schemes are not read: we are no registrar",
    ),
    (
        "rfc4475-3.3.05",
        Answered(&[420]),
        "the extensions are named in Unsupported",
    ),
    ("rfc4475-3.3.06", Answered(&[415]), "we take SDP"),
    ("rfc4475-3.3.07", Answered(&[405]), "we are no registrar"),
    (
        "rfc4475-3.3.08",
        Answered(&[400]),
        "several values where one may be",
    ),
    ("rfc4475-3.3.09", Answered(&[400]), "two lengths"),
    (
        "rfc4475-3.3.10",
        Dropped("not_our_branch"),
        "an answer to somebody else",
    ),
    ("rfc4475-3.3.11", Answered(&[483]), "no hop is left"),
    ("rfc4475-3.3.12", Answered(&[405]), "we are no registrar"),
    ("rfc4475-3.3.13", Answered(&[405]), "we are no registrar"),
    ("rfc4475-3.3.14", Answered(&[405]), "we are no registrar"),
    ("rfc4475-3.3.15", Answered(&[404]), "nobody has that number"),
    // RFC 4475 §3.4: before RFC 3261.
    (
        "rfc4475-3.4.01",
        Answered(&[400]),
        "no Max-Forwards, no Contact, no tag, no branch",
    ),
    // RFC 5118 §4: IPv6.
    (
        "rfc5118-4.01",
        Answered(&[405]),
        "valid; we are no registrar",
    ),
    (
        "rfc5118-4.02",
        Answered(&[400]),
        "an IPv6 address needs brackets",
    ),
    (
        "rfc5118-4.03",
        Answered(&[405]),
        "the port is part of the address: valid",
    ),
    (
        "rfc5118-4.04",
        Answered(&[405]),
        "valid; we are no registrar",
    ),
    (
        "rfc5118-4.05a",
        Answered(&[200]),
        "received with brackets, as the grammar says",
    ),
    (
        "rfc5118-4.05b",
        Answered(&[200]),
        "received without, as RFC 5118 recommends",
    ),
    (
        "rfc5118-4.06",
        Called,
        "IPv6 in SDP: the relay has both families",
    ),
    (
        "rfc5118-4.07",
        Answered(&[200]),
        "both families along the way",
    ),
    (
        "rfc5118-4.08",
        Called,
        "the audio is taken, the video refused",
    ),
    (
        "rfc5118-4.09",
        Called,
        "an IPv4-mapped address is an address",
    ),
    (
        "rfc5118-4.10a",
        Answered(&[200]),
        "IPv4 within IPv6, two colons",
    ),
    (
        "rfc5118-4.10b",
        Answered(&[200]),
        "the old grammar's third colon: nothing is looked up by it",
    ),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn each_torture_message_gets_the_answer_written_here() {
    let mut wrong = Vec::new();
    for (section, fate, why) in TABLE {
        let bytes = std::fs::read(folder("sip").join(format!("{section}.sip"))).unwrap();
        let handled = fuzzed::datagram(&bytes);
        let finals: Vec<u16> = handled
            .statuses()
            .into_iter()
            .filter(|status| *status >= 200)
            .collect();
        let as_expected = match fate {
            // The callee never answers: its silence is what the caller hears in the end.
            Called => handled.called && finals.len() == 1,
            Answered(statuses) => !handled.called && finals == *statuses,
            Dropped(reason) => {
                !handled.called && handled.answers.is_empty() && handled.counted.contains(reason)
            }
        };
        if !as_expected {
            wrong.push(format!(
                "{section} ({why}): {fate:?} expected; called: {}, answered {finals:?}, counted {:?}",
                handled.called, handled.counted
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_torture_message() {
    let named: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let present: BTreeSet<String> = files("sip")
        .iter()
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name.starts_with("rfc"))
        .collect();
    assert_eq!(named, present);
    assert_eq!(named.len(), TABLE.len());
}

#[test]
fn every_message_of_the_corpus_is_handled_whole_cut_and_as_a_stream() {
    for file in files("sip") {
        let bytes = std::fs::read(&file).unwrap();
        let whole = fuzzed::datagram(&bytes);
        assert_eq!(whole, fuzzed::datagram(&bytes), "{}", file.display());
        let _ = fuzzed::stream(&bytes);
        for cut in (0..bytes.len()).step_by(37) {
            let _ = fuzzed::datagram(&bytes[..cut]);
        }
    }
}

#[test]
fn every_description_of_the_corpus_is_read_and_ours_can_be_read_again() {
    for file in files("sdp") {
        let bytes = std::fs::read(&file).unwrap();
        for cut in 0..=bytes.len() {
            fuzzed::description(&bytes[..cut]);
        }
    }
}

#[test]
fn every_set_of_headers_of_the_corpus_is_read() {
    for file in files("headers") {
        let bytes = std::fs::read(&file).unwrap();
        let whole = fuzzed::headers(&bytes);
        assert!(
            whole.called || !whole.statuses().is_empty(),
            "{}",
            file.display()
        );
        for cut in 0..bytes.len() {
            let _ = fuzzed::headers(&bytes[..cut]);
        }
    }
}
