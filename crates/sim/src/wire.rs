//! Reading what the switch puts on a wire with plain string work, so that the checks don't trust
//! the switch's own parser.

use maskline_switch::sip::LocalTag;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// Its method.
    Request(&'a str),
    /// Its status.
    Response(u16),
    /// No SIP.
    Noise,
}

/// The lines of a message that the checks look at.
#[derive(Clone, Debug)]
pub(crate) struct Glance<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) cseq_number: u32,
    pub(crate) cseq_method: &'a str,
    pub(crate) from_tag: Option<&'a str>,
    pub(crate) to_tag: Option<&'a str>,
    /// Of the top `Via`.
    pub(crate) branch: &'a str,
}

impl<'a> Glance<'a> {
    pub(crate) fn at(text: &'a str) -> Self {
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let first = head.lines().next().unwrap_or_default();
        let kind = if let Some(rest) = first.strip_prefix("SIP/2.0 ") {
            rest.get(..3)
                .and_then(|status| status.parse().ok())
                .map_or(Kind::Noise, Kind::Response)
        } else if first.ends_with(" SIP/2.0") {
            Kind::Request(first.split(' ').next().unwrap_or_default())
        } else {
            Kind::Noise
        };
        let value = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found
                    .trim()
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim())
            })
        };
        let (number, method) = value("CSeq")
            .and_then(|cseq| cseq.split_once(' '))
            .unwrap_or(("0", ""));
        let tag = |name: &str| {
            let (_, rest) = value(name)?.split_once(";tag=")?;
            rest.split(';').next()
        };
        Self {
            kind,
            cseq_number: number.parse().unwrap_or(0),
            cseq_method: method.trim(),
            from_tag: tag("From"),
            to_tag: tag("To"),
            branch: value("Via")
                .and_then(|via| via.split_once(";branch="))
                .and_then(|(_, rest)| rest.split([';', ',']).next())
                .unwrap_or_default(),
        }
    }

    /// What the switch's own tag in it says: in From of its requests, in To of its responses.
    pub(crate) fn switch_tag(&self) -> Option<LocalTag> {
        match self.kind {
            Kind::Request(_) => self.from_tag.and_then(LocalTag::parse),
            Kind::Response(_) => self.to_tag.and_then(LocalTag::parse),
            Kind::Noise => None,
        }
    }

    /// The message in a ladder: no number, no address.
    pub(crate) fn label(&self) -> String {
        match self.kind {
            Kind::Request(method) => format!("{method} ({})", self.cseq_number),
            Kind::Response(status) => {
                format!("{status} to {} ({})", self.cseq_method, self.cseq_number)
            }
            Kind::Noise => "noise".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_seen_as_what_it_is() {
        let text = "SIP/2.0 200 OK\r\nVia: x\r\nFrom: <sip:a@b>;tag=1\r\nto: \"x\" <sip:c@d>;tag=2;x=y\r\n\
            CSeq: 7 INVITE\r\n\r\nCSeq: 8 BYE";
        let glance = Glance::at(text);
        assert_eq!(glance.kind, Kind::Response(200));
        assert_eq!((glance.from_tag, glance.to_tag), (Some("1"), Some("2")));
        assert_eq!(glance.label(), "200 to INVITE (7)");
        assert_eq!(
            Glance::at("BYE sip:x SIP/2.0\r\nCSeq: 1 BYE\r\n\r\n").kind,
            Kind::Request("BYE")
        );
        assert_eq!(Glance::at("\r\n\r\n").kind, Kind::Noise);
    }
}
