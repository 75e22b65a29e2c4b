//! Messages on a stream (RFC 3261 §18.3): cuts anywhere, bounds, errors.

use sipx_sip::error::{FramingError, LimitKind, ParseError};
use sipx_sip::{Limits, StreamParser};

use crate::messages::{INVITE, branch_of};

fn stream() -> StreamParser {
    StreamParser::new(Limits::stream())
}

fn with_length(length: &str) -> String {
    INVITE.replace("Content-Length: 5\r\n", length)
}

#[test]
fn a_stream_message_split_at_any_byte_parses_like_the_whole() {
    for split in 0..=INVITE.len() {
        let mut parser = stream();
        let (head, tail) = INVITE.as_bytes().split_at(split);
        let mut messages = parser.push(head).unwrap();
        messages.extend(parser.push(tail).unwrap());
        assert_eq!(messages.len(), 1, "split at {split}");
        assert_eq!(
            messages[0].to_bytes(),
            INVITE.as_bytes(),
            "split at {split}"
        );
        assert_eq!(parser.pending(), 0);
    }
}

#[test]
fn a_stream_delivers_two_messages_of_one_chunk_in_order() {
    let second = INVITE.replace("z9hG4bKa1", "z9hG4bKa2");
    let messages = stream()
        .push(format!("{INVITE}{second}").as_bytes())
        .unwrap();
    let branches: Vec<_> = messages.iter().map(branch_of).collect();
    assert_eq!(branches, ["z9hG4bKa1", "z9hG4bKa2"]);
}

#[test]
fn a_stream_counts_the_line_breaks_between_messages_as_keepalives() {
    let mut parser = stream();
    let chunk = format!("\r\n\r\n{INVITE}\r\n");
    let mut messages = Vec::new();
    for byte in chunk.as_bytes() {
        messages.extend(parser.push(&[*byte]).unwrap());
    }
    assert_eq!(
        (messages.len(), parser.take_keepalives(), parser.pending()),
        (1, 3, 0)
    );
}

#[test]
fn a_stream_message_without_a_usable_content_length_is_an_error() {
    let cases = [
        ("", ParseError::Framing(FramingError::ContentLengthRequired)),
        (
            "Content-Length: -1\r\n",
            ParseError::Framing(FramingError::ContentLengthMalformed),
        ),
        (
            "Content-Length: +5\r\n",
            ParseError::Framing(FramingError::ContentLengthMalformed),
        ),
        (
            "l: 5\r\nContent-Length: 5\r\n",
            ParseError::Framing(FramingError::ContentLengthRepeated),
        ),
        (
            "Content-Length: 99999999999999999999\r\n",
            ParseError::Framing(FramingError::ContentLengthMalformed),
        ),
        (
            "Content-Length: 1048577\r\n",
            ParseError::Limit {
                limit: LimitKind::BodyBytes,
                value: 1_048_577,
            },
        ),
    ];
    for (length, expected) in cases {
        assert_eq!(
            stream().push(with_length(length).as_bytes()).unwrap_err(),
            expected,
            "{length}"
        );
    }
}

#[test]
fn a_stream_bounds_a_header_the_number_of_headers_and_a_head_that_never_ends() {
    let limit_of = |text: String| match stream().push(text.as_bytes()) {
        Err(ParseError::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    let giant = format!("Subject: {}\r\nContent-Length: 5\r\n", "x".repeat(9_000));
    assert_eq!(limit_of(with_length(&giant)), LimitKind::HeaderBytes);
    let many = format!("{}Content-Length: 5\r\n", "X: 1\r\n".repeat(300));
    assert_eq!(limit_of(with_length(&many)), LimitKind::Headers);
    let folded = format!("X: 1\r\n{}Content-Length: 5\r\n", " 2\r\n".repeat(20));
    assert_eq!(limit_of(with_length(&folded)), LimitKind::FoldingLines);

    let mut parser = stream();
    let endless = std::iter::repeat_with(|| parser.push(&[b'x'; 4_096])).take(1_000);
    let accepted = endless.take_while(Result::is_ok).count();
    assert_eq!(accepted, 256, "1 MiB, then an error");
}

#[test]
fn an_error_poisons_a_stream_for_good() {
    let mut parser = stream();
    assert!(parser.push(with_length("").as_bytes()).is_err());
    // Every later error is this one, whatever the first was.
    for _ in 0..2 {
        let later = parser.push(INVITE.as_bytes()).unwrap_err();
        assert_eq!(later, ParseError::Framing(FramingError::NoHeaderTerminator));
    }
}

#[test]
fn trap_a_stream_error_takes_the_good_messages_of_its_chunk_along() {
    let chunk = format!("{INVITE}{}", with_length(""));
    assert!(stream().push(chunk.as_bytes()).is_err());

    // Fed byte by byte, the good message comes out before the error.
    let mut parser = stream();
    let outcomes = chunk.bytes().map(|byte| parser.push(&[byte]));
    let delivered: usize = outcomes
        .map_while(Result::ok)
        .map(|messages| messages.len())
        .sum();
    assert_eq!(delivered, 1);
}

#[test]
fn trap_a_head_above_the_message_limit_passes_when_it_comes_in_one_chunk() {
    let limits = Limits {
        max_message_bytes: 100,
        ..Limits::stream()
    };
    assert_eq!(
        StreamParser::new(limits)
            .push(INVITE.as_bytes())
            .unwrap()
            .len(),
        1
    );
}
