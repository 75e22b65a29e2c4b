//! Who calls and which number was called, by the headers of an INVITE that arrives.

use maskline_events::{Msisdn, Party};

use super::{CalledSource, CallerSource, IdentityRules};
use crate::sip::{Address, HeaderName, Headers, Request, Uri, view};

/// Rows of one header, and addresses of one row, that are looked at.
const MOST_LOOKED_AT: usize = 8;

/// User parts that say nothing but that the caller is withheld (RFC 3323 §4.1, and what gateways
/// write instead).
const WITHHELD_USERS: [&str; 4] = ["anonymous", "restricted", "private", "withheld"];

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivingCaller {
    /// As events may show it.
    pub shown: Party,
    /// The number of a caller who withholds it, if the trunk tells it nevertheless. Nothing that
    /// leaves the switch holds it.
    pub withheld: Option<Msisdn>,
}

impl IdentityRules {
    /// Who calls. Privacy outranks every header that names a number (RFC 3325 §7): asked for by
    /// `Privacy`, by an anonymous `From`, or by the `privacy` of a `Remote-Party-ID` that these
    /// rules look at.
    #[must_use]
    pub fn caller(&self, invite: &Request) -> ArrivingCaller {
        let headers = &invite.headers;
        let from = addresses(headers, &HeaderName::From);
        let withheld = wants_privacy(headers)
            || from.iter().any(says_withheld)
            || (self.caller_from.contains(&CallerSource::RemotePartyId)
                && addresses(headers, &remote_party_id())
                    .iter()
                    .any(is_private));
        let number = self
            .caller_from
            .iter()
            .find_map(|source| self.caller_by(*source, headers));
        if withheld && !self.reveal_withheld {
            return ArrivingCaller {
                shown: Party::Anonymous,
                withheld: number,
            };
        }
        ArrivingCaller {
            shown: number.map_or(Party::Anonymous, Party::Number),
            withheld: None,
        }
    }

    fn caller_by(&self, source: CallerSource, headers: &Headers) -> Option<Msisdn> {
        let name = match source {
            CallerSource::PAssertedIdentity => HeaderName::PAssertedIdentity,
            CallerSource::From => HeaderName::From,
            CallerSource::RemotePartyId => remote_party_id(),
            CallerSource::PPreferredIdentity => HeaderName::PPreferredIdentity,
        };
        addresses(headers, &name)
            .iter()
            .filter(|address| !is_called_party(address))
            .find_map(|address| self.read_uri(&address.uri))
    }

    /// The first number, in the order of [`Self::called_from`], of which `find` knows something: one
    /// of ours.
    pub fn called<T>(&self, invite: &Request, find: impl Fn(&Msisdn) -> Option<T>) -> Option<T> {
        let headers = &invite.headers;
        let read = |uri: &Uri| self.read_uri(uri).and_then(|number| find(&number));
        let first = |addresses: Vec<Address>| addresses.iter().find_map(|it| read(&it.uri));
        self.called_from.iter().find_map(|source| match source {
            CalledSource::RequestUri => read(&invite.uri),
            CalledSource::To => first(addresses(headers, &HeaderName::To)),
            CalledSource::Diversion => first(addresses(headers, &view::header_name("Diversion"))),
            CalledSource::PCalledPartyId => {
                first(addresses(headers, &view::header_name("P-Called-Party-ID")))
            }
            CalledSource::HistoryInfo => {
                let mut entries = addresses(headers, &HeaderName::HistoryInfo);
                entries.reverse();
                first(entries)
            }
        })
    }
}

fn remote_party_id() -> HeaderName {
    view::header_name("Remote-Party-ID")
}

/// The addresses of all rows of a header; a row that does not parse has none.
fn addresses(headers: &Headers, name: &HeaderName) -> Vec<Address> {
    headers
        .get_all(name)
        .take(MOST_LOOKED_AT)
        .filter_map(|header| Address::parse_list(&header.value(), "address").ok())
        .flat_map(|row| row.into_iter().take(MOST_LOOKED_AT))
        .collect()
}

/// Whether `Privacy` (RFC 3323 §4.2) withholds the caller's identity. `critical` asks to refuse the
/// call where privacy can't be had: here it can.
fn wants_privacy(headers: &Headers) -> bool {
    headers.get_all(&HeaderName::Privacy).any(|header| {
        String::from_utf8_lossy(&header.value())
            .split([';', ','])
            .map(str::trim)
            .any(|word| {
                ["id", "user", "header", "critical"]
                    .iter()
                    .any(|wish| word.eq_ignore_ascii_case(wish))
            })
    })
}

/// Whether a From says that its caller is withheld (RFC 3323 §4.1).
fn says_withheld(from: &Address) -> bool {
    let anonymous_host = from
        .uri
        .host()
        .is_some_and(|host| host.to_string().eq_ignore_ascii_case("anonymous.invalid"));
    let says = |text: &str| {
        WITHHELD_USERS
            .iter()
            .any(|it| it.eq_ignore_ascii_case(text.trim()))
    };
    let display = from.display_name.as_deref().map(String::from_utf8_lossy);
    anonymous_host
        || view::user_of(&from.uri).is_some_and(|user| says(&user))
        || display.is_some_and(|name| says(&name))
}

/// Whether a `Remote-Party-ID` is of a party that is not to be shown: `privacy=full` or
/// `privacy=uri`, with details behind a `-`, in a list or alone.
fn is_private(party: &Address) -> bool {
    !is_called_party(party)
        && party.param("privacy").is_some_and(|privacy| {
            String::from_utf8_lossy(privacy)
                .trim_matches('"')
                .split([',', ';'])
                .filter_map(|word| word.trim().split('-').next())
                .any(|word| {
                    ["full", "uri"]
                        .iter()
                        .any(|it| word.eq_ignore_ascii_case(it))
                })
        })
}

/// Whether a `Remote-Party-ID` is about the party that is called. Other headers have no such
/// parameter.
fn is_called_party(party: &Address) -> bool {
    party
        .param("party")
        .is_some_and(|party| party.eq_ignore_ascii_case(b"called"))
}
