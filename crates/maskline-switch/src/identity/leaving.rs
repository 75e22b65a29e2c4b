//! What an INVITE that leaves says of both numbers. Nothing but the virtual number, the callee's
//! number, the operator's rules and our own name goes into it.

use maskline_events::Msisdn;

use super::{CallerId, IdentityRules, NumberFormat, UriScheme};

/// What a call goes out with.
#[derive(Clone, Copy, Debug)]
pub struct LeavingParts<'a> {
    /// The virtual number.
    pub source: &'a Msisdn,
    /// The callee.
    pub destination: &'a Msisdn,
    /// The host of Request-URI and `To`, with a port if it needs one.
    pub target: &'a str,
    /// What follows the host in a `sip:` Request-URI: `;transport=tcp`, or nothing.
    pub uri_parameters: &'a str,
    /// How we are reached: the host of `From`, unless the rules have one.
    pub ours: &'a str,
    /// The tag of `From`.
    pub tag: &'a str,
}

/// The values of an INVITE's head that name numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The Request-URI.
    pub uri: String,
    /// `From`, tag included.
    pub from: String,
    /// `To`.
    pub to: String,
    /// `P-Asserted-Identity` and `Privacy`, where the rules ask for them.
    pub extra: Vec<(String, String)>,
}

impl std::fmt::Debug for Leaving {
    /// Without the numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}

impl IdentityRules {
    /// How a number is written towards the trunk.
    #[must_use]
    pub fn write(&self, number: &Msisdn) -> String {
        let digits = number.digits();
        let international = || {
            let prefix = self.international_prefixes.first();
            format!("{}{digits}", prefix.map_or("00", String::as_str))
        };
        match self.number_format {
            NumberFormat::E164 => number.as_str().to_owned(),
            NumberFormat::Plain => digits.to_owned(),
            NumberFormat::International => international(),
            NumberFormat::National => self
                .country_code
                .as_deref()
                .and_then(|code| digits.strip_prefix(code))
                .map_or_else(international, |subscriber| {
                    format!("{}{subscriber}", self.national_prefix)
                }),
        }
    }

    /// What an INVITE to the callee says.
    #[must_use]
    pub fn leaving(&self, parts: &LeavingParts<'_>) -> Leaving {
        let called = format!("{}{}", self.add_prefix, self.write(parts.destination));
        let calling = self.write(parts.source);
        let phone = if self.user_phone { ";user=phone" } else { "" };
        let at = parts.target;
        let (uri, to) = match self.uri {
            UriScheme::Sip => (
                format!("sip:{called}@{at}{}{phone}", parts.uri_parameters),
                format!("<sip:{called}@{at}{phone}>"),
            ),
            UriScheme::Tel => (format!("tel:{called}"), format!("<tel:{called}>")),
        };
        let from_domain = self.from_domain.as_deref().unwrap_or(parts.ours);
        let tag = parts.tag;
        let from = match (self.caller_id, &self.from_user) {
            (CallerId::Pai, Some(account)) => format!("<sip:{account}@{from_domain}>;tag={tag}"),
            (CallerId::From | CallerId::FromAndPai | CallerId::Pai, _) => {
                format!("<sip:{calling}@{from_domain}{phone}>;tag={tag}")
            }
        };
        let mut extra = Vec::new();
        if self.caller_id != CallerId::From {
            let domain = self.pai_domain.as_deref().unwrap_or(from_domain);
            let asserted = match self.uri {
                UriScheme::Sip => format!("<sip:{calling}@{domain}{phone}>"),
                UriScheme::Tel => format!("<tel:{calling}>"),
            };
            extra.push(("P-Asserted-Identity".to_owned(), asserted));
        }
        if self.privacy_none {
            extra.push(("Privacy".to_owned(), "none".to_owned()));
        }
        Leaving {
            uri,
            from,
            to,
            extra,
        }
    }
}
