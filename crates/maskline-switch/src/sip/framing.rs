//! Cutting a stream into SIP messages (RFC 3261 §18.3), bounded.
//!
//! Our own: the library's stream parser forgets good messages that arrive with a bad one, and it
//! weighs nothing before it parses.

use bytes::{Buf, Bytes, BytesMut};

/// Largest head of a message on a stream, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Largest body of a message on a stream, in bytes.
const MAX_BODY_BYTES: usize = super::wire::MAX_PART_BYTES - MAX_HEAD_BYTES;

/// What was found next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message.
    Message(Bytes),
    /// A double CRLF, to be answered by one CRLF (RFC 5626 §4.4.1).
    Ping,
    /// One CRLF in answer to a ping of ours.
    Pong,
}

/// Why the rest of a stream can't be framed; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The head is longer than 16 KiB.
    #[error("the head of a message is longer than {MAX_HEAD_BYTES} bytes")]
    HeadTooLong,
    /// No `Content-Length`, or several that differ, or no number.
    #[error("a message on a stream has no usable Content-Length")]
    NoLength,
    /// The body is longer than what is accepted.
    #[error("the body of a message is longer than {MAX_BODY_BYTES} bytes")]
    BodyTooLong,
}

/// One stream's unread bytes: at most one message, plus what one read brought.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// How far the head's end was looked for already, so that a byte-wise sender costs no
    /// quadratic time.
    searched: usize,
    awaits_pong: bool,
}

impl StreamFramer {
    /// Adds what was read.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// A ping of ours is out: the next CRLF alone is its pong.
    pub fn expect_pong(&mut self) {
        self.awaits_pong = true;
    }

    /// Whether a message has begun that is not whole yet. Line ends between messages begin none.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        self.buffer
            .first()
            .is_some_and(|b| !matches!(b, b'\r' | b'\n'))
    }

    /// The next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FramingError`]: nothing after this point can be trusted; close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramingError> {
        if self.searched == 0
            && self
                .buffer
                .first()
                .is_some_and(|b| matches!(b, b'\r' | b'\n'))
        {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.buffer.advance(4);
                return Ok(Some(Frame::Ping));
            }
            if self.awaits_pong && self.buffer.starts_with(b"\r\n") {
                self.awaits_pong = false;
                self.buffer.advance(2);
                return Ok(Some(Frame::Pong));
            }
            // One CRLF alone may be the first half of a ping, or a pong: wait for what follows.
            match self.buffer.iter().position(|b| !matches!(b, b'\r' | b'\n')) {
                Some(start) => self.buffer.advance(start),
                None if self.buffer.len() < 4 => return Ok(None),
                None => self.buffer.clear(),
            }
        }
        let from = self.searched.saturating_sub(3);
        let unseen = self.buffer.get(from..).unwrap_or_default();
        let Some(found) = unseen.windows(4).position(|w| w == b"\r\n\r\n") else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > MAX_HEAD_BYTES {
                Err(FramingError::HeadTooLong)
            } else {
                Ok(None)
            };
        };
        let head_bytes = from + found + 4;
        if head_bytes > MAX_HEAD_BYTES {
            return Err(FramingError::HeadTooLong);
        }
        let head = self.buffer.get(..head_bytes).unwrap_or_default();
        let body_bytes = content_length(head)?;
        if body_bytes > MAX_BODY_BYTES {
            return Err(FramingError::BodyTooLong);
        }
        let whole = head_bytes + body_bytes;
        if self.buffer.len() < whole {
            self.searched = head_bytes - 3;
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(Frame::Message(self.buffer.split_to(whole).freeze())))
    }
}

fn content_length(head: &[u8]) -> Result<usize, FramingError> {
    let mut length = None;
    for line in head.split(|&b| b == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let name = name.trim_ascii();
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let digits = value.get(1..).unwrap_or_default().trim_ascii();
        let parsed = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse::<usize>().ok())
            .ok_or(FramingError::NoLength)?;
        if length.is_some_and(|known| known != parsed) {
            return Err(FramingError::NoLength);
        }
        length = Some(parsed);
    }
    length.ok_or(FramingError::NoLength)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\nabc";
    const TWO: &[u8] = b"BYE sip:a SIP/2.0\r\nContent-Length : 0\r\n\r\n";

    fn frames(chunks: &[&[u8]]) -> Result<Vec<Frame>, FramingError> {
        let mut framer = StreamFramer::default();
        let mut found = Vec::new();
        for chunk in chunks {
            framer.push(chunk);
            while let Some(frame) = framer.next_frame()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_are_cut_the_same_wherever_the_stream_is_split() {
        let stream = [ONE, b"\r\n\r\n", TWO, ONE].concat();
        let expected = vec![
            Frame::Message(Bytes::from_static(ONE)),
            Frame::Ping,
            Frame::Message(Bytes::from_static(TWO)),
            Frame::Message(Bytes::from_static(ONE)),
        ];
        for at in 0..stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(frames(&[head, tail]).unwrap(), expected, "split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&bytes).unwrap(), expected);
    }

    #[test]
    fn only_a_begun_message_leaves_the_stream_within_one() {
        for (stream, within) in [
            (&b""[..], false),
            (b"\r\n", false),
            (b"\r\n\r", false),
            (b"\r\n\r\n", false),
            (b"O", true),
            (b"\r\nO", true),
            (ONE, false),
            (&ONE[..ONE.len() - 1], true),
            (&[ONE, b"\r\n"].concat(), false),
            (&[ONE, b"B"].concat(), true),
        ] {
            let mut framer = StreamFramer::default();
            framer.push(stream);
            while framer.next_frame().unwrap().is_some() {}
            assert_eq!(framer.is_within_message(), within, "{stream:?}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_framed_is_given_up() {
        for (stream, error) in [
            (
                &b"OPTIONS sip:a SIP/2.0\r\nTo: x\r\n\r\n"[..],
                FramingError::NoLength,
            ),
            (b"A b c\r\nl: -1\r\n\r\n", FramingError::NoLength),
            (
                b"A b c\r\nl: 1\r\nContent-Length: 2\r\n\r\n",
                FramingError::NoLength,
            ),
            (
                b"A b c\r\nl: 99999999999999999999999\r\n\r\n",
                FramingError::NoLength,
            ),
            (b"A b c\r\nl: 1000000\r\n\r\n", FramingError::BodyTooLong),
        ] {
            assert_eq!(frames(&[stream]), Err(error));
        }
        assert_eq!(frames(&[&[b'x'; 20_000]]), Err(FramingError::HeadTooLong));
    }

    #[test]
    fn a_lone_crlf_is_a_pong_only_after_a_ping_of_ours() {
        assert_eq!(frames(&[b"\r\n", TWO]).unwrap().len(), 1);
        let mut framer = StreamFramer::default();
        framer.expect_pong();
        framer.push(b"\r\n\r\n\r\n");
        framer.push(TWO);
        let mut found = Vec::new();
        while let Some(frame) = framer.next_frame().unwrap() {
            found.push(frame);
        }
        let message = Frame::Message(Bytes::from_static(TWO));
        assert_eq!(found, [Frame::Ping, Frame::Pong, message]);
    }
}
