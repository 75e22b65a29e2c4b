//! The little of SIP that a load generator needs: reading its own dialogs' messages, and writing
//! them from templates. Not a parser: the far end is the switch under test, or its peer.

/// The lines of a message's head.
pub(super) struct Head<'a> {
    /// The request or status line.
    pub(super) start: &'a str,
    text: &'a str,
}

impl<'a> Head<'a> {
    /// Of a whole datagram; `None`: not text, or not even a start line.
    pub(super) fn of(datagram: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let (head, _) = text.split_once("\r\n\r\n")?;
        let (start, text) = head.split_once("\r\n")?;
        Some(Self { start, text })
    }

    /// The status of a response.
    pub(super) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &'a str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// Every value of a header, in order, as written: one line each.
    pub(super) fn values(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.split("\r\n").filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            found
                .trim_end()
                .eq_ignore_ascii_case(name)
                .then_some(value.trim())
        })
    }

    /// The first value of a header.
    pub(super) fn value(&self, name: &'a str) -> &'a str {
        self.values(name).next().unwrap_or_default()
    }
}

/// The URI between angle brackets.
pub(super) fn uri(address: &str) -> &str {
    match address.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => address.split(';').next().unwrap_or_default(),
    }
}

/// Where a URI leads: its host and port, as written.
pub(super) fn host_port(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, host)| host);
    rest.split([';', '?', '>']).next().unwrap_or_default()
}

/// A session description of G.711 at a port that nobody sends to.
pub(super) fn sdp(port: u16) -> String {
    format!(
        "v=0\r\no=- {port} 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=1\r\nVia: SIP/2.0/UDP b\r\n\
        Record-Route: <sip:127.0.0.1:5070;lr>\r\nContact: <sip:x@127.0.0.1:5080;transport=udp>\r\n\r\n";

    #[test]
    fn a_head_gives_its_status_and_every_value_in_order() {
        let head = Head::of(ANSWER).unwrap();
        assert_eq!(head.status(), Some(200));
        assert_eq!(head.values("via").count(), 2);
        assert_eq!(host_port(uri(head.value("Contact"))), "127.0.0.1:5080");
        assert_eq!(host_port(uri(head.value("Record-Route"))), "127.0.0.1:5070");
    }

    #[test]
    fn noise_has_no_head() {
        assert!(Head::of(b"\r\n\r\n").is_none());
        assert!(Head::of(&[0xff, 0xfe]).is_none());
    }
}
