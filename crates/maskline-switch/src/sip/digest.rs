//! Digest authentication (RFC 7616, RFC 8760, RFC 3261 §22): the formula, challenges and
//! credentials as values, and both of their header forms.
//!
//! Our own beside the library's, which merges challenges that share a header, knows no `auth-int`
//! and works from passwords only. Who is asked for credentials, and when ours are given, is decided
//! in [`crate::shard`].

use std::fmt;

use md5::Md5;
use sha2::Sha256;
use sipx_sip::Headers;
use subtle::ConstantTimeEq as _;

use super::HeaderName;

/// Most challenges or credentials of one message that are looked at.
const MOST_IN_A_MESSAGE: usize = 8;
/// Most parameters of one challenge that are kept; more make it unreadable.
const MOST_PARAMETERS: usize = 24;

/// How the parts are hashed. SHA-512-256 is not spoken: no trunk is known to ask for it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 2617's first, and what most carriers ask for.
    Md5,
    /// With a first hash that is bound to both nonces.
    Md5Sess,
    /// RFC 8760's.
    Sha256,
    /// With a first hash that is bound to both nonces.
    Sha256Sess,
}

impl Algorithm {
    /// Reads an `algorithm` parameter; `None`: one that is not spoken.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(text))
    }

    /// As headers write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
        }
    }

    const fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess)
    }

    /// The hash of these parts, joined by colons, in hexadecimal digits.
    fn hash(self, parts: &[&[u8]]) -> String {
        let joined = parts.join(&b':');
        match self {
            Self::Md5 | Self::Md5Sess => hex(&<Md5 as md5::Digest>::digest(&joined)),
            Self::Sha256 | Self::Sha256Sess => hex(&<Sha256 as sha2::Digest>::digest(&joined)),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of user name, realm and password: as good as the password within its realm, and shown
/// as little.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1(String);

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(…)")
    }
}

impl Ha1 {
    /// From a password.
    #[must_use]
    pub fn new(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Self {
        Self(algorithm.hash(&[username.as_bytes(), realm.as_bytes(), password.as_bytes()]))
    }

    /// From its hexadecimal digits; `None`: it is not one of this algorithm.
    #[must_use]
    pub fn parse(algorithm: Algorithm, digits: &str) -> Option<Self> {
        let length = match algorithm {
            Algorithm::Md5 | Algorithm::Md5Sess => 32,
            Algorithm::Sha256 | Algorithm::Sha256Sess => 64,
        };
        (digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| Self(digits.to_ascii_lowercase()))
    }
}

/// What is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    /// RFC 2069: neither a count nor a nonce of the client's.
    Legacy,
    /// Method and URI.
    Auth,
    /// The body as well.
    AuthInt,
}

/// One challenge that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Whether a proxy asks: it decides the header of the answer.
    pub proxy: bool,
    /// The protection space, as it stood between the quotes.
    pub realm: String,
    /// The server's nonce, as it stood between the quotes.
    pub nonce: String,
    /// To be given back as it is.
    pub opaque: Option<String>,
    /// How to hash.
    pub algorithm: Algorithm,
    /// Whether the challenge named its algorithm; the answer then does as well.
    pub names_algorithm: bool,
    /// The better of what is offered: `auth` before `auth-int`.
    pub qop: Qop,
    /// Whether only the nonce was at fault.
    pub stale: bool,
}

impl Challenge {
    /// The challenges of a 401 or 407 that can be answered, in order. `None` beside them stands for
    /// each that can't.
    #[must_use]
    pub fn read_all(headers: &Headers) -> Vec<Option<Self>> {
        [
            (HeaderName::WwwAuthenticate, false),
            (HeaderName::ProxyAuthenticate, true),
        ]
        .into_iter()
        .flat_map(|(name, proxy)| {
            schemes_of(headers, &name)
                .into_iter()
                .map(move |scheme| scheme.and_then(|scheme| Self::read(&scheme, proxy)))
        })
        .take(MOST_IN_A_MESSAGE)
        .collect()
    }

    fn read(scheme: &Scheme, proxy: bool) -> Option<Self> {
        let named = scheme.get("algorithm");
        let algorithm = named.map_or(Some(Algorithm::Md5), Algorithm::parse)?;
        let qop = match scheme.get("qop") {
            None => Qop::Legacy,
            Some(offered) => {
                let offers = |wanted: &str| {
                    offered
                        .split(',')
                        .any(|one| one.trim().eq_ignore_ascii_case(wanted))
                };
                if offers("auth") {
                    Qop::Auth
                } else if offers("auth-int") {
                    Qop::AuthInt
                } else {
                    return None;
                }
            }
        };
        Some(Self {
            proxy,
            realm: scheme.get("realm")?.to_owned(),
            nonce: scheme.get("nonce")?.to_owned(),
            opaque: scheme.get("opaque").map(str::to_owned),
            algorithm,
            names_algorithm: named.is_some(),
            qop,
            stale: scheme
                .get("stale")
                .is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The challenges that a request of ours answers, each with the count of its nonce.
    #[must_use]
    pub fn answered_by(headers: &Headers) -> Vec<(Self, u32)> {
        [
            (HeaderName::Authorization, false),
            (HeaderName::ProxyAuthorization, true),
        ]
        .into_iter()
        .flat_map(|(name, proxy)| {
            let schemes = schemes_of(headers, &name);
            schemes.into_iter().flatten().filter_map(move |scheme| {
                let count = scheme
                    .get("nc")
                    .map_or(Some(1), |nc| u32::from_str_radix(nc, 16).ok())?;
                Some((Self::read(&scheme, proxy)?, count))
            })
        })
        .collect()
    }

    /// Whether both ask for the same user's password.
    #[must_use]
    pub fn same_realm(&self, other: &Self) -> bool {
        self.proxy == other.proxy && self.realm == other.realm
    }

    /// The header that answers this challenge. `count` is how often its nonce has been used, this
    /// time included; `cnonce` is ours, of letters and digits.
    #[must_use]
    pub fn answer(
        &self,
        username: &str,
        password: &str,
        request: &Protected<'_>,
        count: u32,
        cnonce: &str,
    ) -> (HeaderName, String) {
        let ha1 = Ha1::new(self.algorithm, username, &self.realm, password);
        let nc = format!("{count:08x}");
        let fresh = match self.qop {
            Qop::Legacy => None,
            Qop::Auth | Qop::AuthInt => Some(nc.as_str()),
        };
        let uri = request.uri;
        let response = response(
            self.algorithm,
            &ha1,
            &self.nonce,
            fresh,
            cnonce,
            self.qop,
            request,
        );
        let mut value = format!(
            "Digest username=\"{username}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", \
             response=\"{response}\"",
            self.realm, self.nonce
        );
        if self.names_algorithm {
            value.push_str(&format!(", algorithm={}", self.algorithm.as_str()));
        }
        if fresh.is_some() || self.algorithm.is_session() {
            value.push_str(&format!(", cnonce=\"{cnonce}\""));
        }
        match self.qop {
            Qop::Legacy => {}
            Qop::Auth => value.push_str(&format!(", qop=auth, nc={nc}")),
            Qop::AuthInt => value.push_str(&format!(", qop=auth-int, nc={nc}")),
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{opaque}\""));
        }
        let name = if self.proxy {
            HeaderName::ProxyAuthorization
        } else {
            HeaderName::Authorization
        };
        (name, value)
    }
}

/// The strongest challenge for each realm, in the order in which the realms stand. RFC 8760 §2.4 has
/// the client take the topmost that it supports unless a policy says otherwise; ours does, so that a
/// reordered header weakens nothing.
#[must_use]
pub fn strongest(challenges: Vec<Challenge>) -> Vec<Challenge> {
    let mut chosen: Vec<Challenge> = Vec::new();
    for challenge in challenges {
        match chosen.iter_mut().find(|known| known.same_realm(&challenge)) {
            Some(known) if challenge.algorithm > known.algorithm => *known = challenge,
            Some(_) => {}
            None => chosen.push(challenge),
        }
    }
    chosen
}

/// The credentials that a request carries, as they stand in it.
#[must_use]
pub fn credentials(headers: &Headers) -> Vec<(HeaderName, String)> {
    [HeaderName::Authorization, HeaderName::ProxyAuthorization]
        .into_iter()
        .filter_map(|name| Some((name.clone(), super::view::text(headers, &name)?)))
        .collect()
}

/// The user name that a request of ours gave.
#[must_use]
pub fn username(headers: &Headers) -> Option<String> {
    [HeaderName::Authorization, HeaderName::ProxyAuthorization]
        .iter()
        .flat_map(|name| schemes_of(headers, name))
        .flatten()
        .find_map(|scheme| scheme.get("username").map(str::to_owned))
}

/// What a digest covers of a request.
#[derive(Clone, Copy, Debug)]
pub struct Protected<'a> {
    /// Its method.
    pub method: &'a str,
    /// The `uri` parameter.
    pub uri: &'a str,
    /// Its body, for `auth-int`.
    pub body: &'a [u8],
}

/// RFC 7616 §3.4.1; `nc` is `None` for RFC 2069's form.
fn response(
    algorithm: Algorithm,
    ha1: &Ha1,
    nonce: &str,
    nc: Option<&str>,
    cnonce: &str,
    qop: Qop,
    request: &Protected<'_>,
) -> String {
    let hash = |parts: &[&[u8]]| algorithm.hash(parts);
    let (nonce, cnonce) = (nonce.as_bytes(), cnonce.as_bytes());
    let of_session = algorithm
        .is_session()
        .then(|| hash(&[ha1.0.as_bytes(), nonce, cnonce]));
    let ha1 = of_session.as_ref().unwrap_or(&ha1.0).as_bytes();
    let (method, uri) = (request.method.as_bytes(), request.uri.as_bytes());
    let (ha2, word) = match qop {
        Qop::Legacy | Qop::Auth => (hash(&[method, uri]), "auth"),
        Qop::AuthInt => {
            let body = hash(&[request.body]);
            (hash(&[method, uri, body.as_bytes()]), "auth-int")
        }
    };
    match nc {
        Some(nc) => hash(&[
            ha1,
            nonce,
            nc.as_bytes(),
            cnonce,
            word.as_bytes(),
            ha2.as_bytes(),
        ]),
        None => hash(&[ha1, nonce, ha2.as_bytes()]),
    }
}

/// Credentials that a peer gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Who it says it is.
    pub username: String,
    /// Where.
    pub realm: String,
    /// Our nonce, or what it says is one.
    pub nonce: String,
    /// How it hashed.
    pub algorithm: Algorithm,
    /// How often it has used the nonce.
    pub count: u32,
    uri: String,
    response: String,
    cnonce: String,
    nc: String,
}

impl Given {
    /// The credentials of a request for a server, or for a proxy, with `qop=auth`, in order: we ask
    /// for no others. Those that can't be read are left out.
    #[must_use]
    pub fn read_all(headers: &Headers, proxy: bool) -> Vec<Self> {
        let name = if proxy {
            HeaderName::ProxyAuthorization
        } else {
            HeaderName::Authorization
        };
        schemes_of(headers, &name)
            .iter()
            .flatten()
            .filter_map(Self::read)
            .take(MOST_IN_A_MESSAGE)
            .collect()
    }

    fn read(scheme: &Scheme) -> Option<Self> {
        let text = |name| scheme.get(name).map(str::to_owned);
        let nc = text("nc").filter(|nc| nc.len() == 8)?;
        if !scheme.get("qop")?.eq_ignore_ascii_case("auth") {
            return None;
        }
        Some(Self {
            username: text("username")?,
            realm: text("realm")?,
            nonce: text("nonce")?,
            algorithm: scheme
                .get("algorithm")
                .map_or(Some(Algorithm::Md5), Algorithm::parse)?,
            count: u32::from_str_radix(&nc, 16).ok()?,
            uri: text("uri")?,
            response: text("response")?,
            cnonce: text("cnonce")?,
            nc,
        })
    }

    /// Whether they come from someone who knows the password, for this method.
    #[must_use]
    pub fn proves(&self, ha1: &Ha1, method: &str) -> bool {
        let expected = response(
            self.algorithm,
            ha1,
            &self.nonce,
            Some(&self.nc),
            &self.cnonce,
            Qop::Auth,
            &Protected {
                method,
                uri: &self.uri,
                body: &[],
            },
        );
        let given = self.response.to_ascii_lowercase();
        expected.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// A `Digest` scheme and its parameters, names in lower case, values as they stood between quotes.
#[derive(Debug, Default)]
struct Scheme {
    parameters: Vec<(String, String)>,
}

impl Scheme {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Every scheme of every header of this name; `None` for one that is not Digest, or not readable.
fn schemes_of(headers: &Headers, name: &HeaderName) -> Vec<Option<Scheme>> {
    headers
        .get_all(name)
        .take(MOST_IN_A_MESSAGE)
        .flat_map(|header| match std::str::from_utf8(&header.value()) {
            Ok(text) => schemes(text),
            Err(_) => vec![None],
        })
        .collect()
}

/// The schemes of one header's value: several challenges may share it, separated by the same commas
/// as their parameters (RFC 7235 §4.1).
fn schemes(text: &str) -> Vec<Option<Scheme>> {
    let mut found: Vec<Option<Scheme>> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',', '\r', '\n']);
        if rest.is_empty() || found.len() > MOST_IN_A_MESSAGE {
            return found;
        }
        let end = rest
            .find([' ', '\t', ',', '=', '"', '\r', '\n'])
            .unwrap_or(rest.len());
        let (token, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let after = after.trim_start();
        let Some(value) = after.strip_prefix('=').map(str::trim_start) else {
            if token.is_empty() {
                // A quote where a name should be: nothing behind it can be told apart.
                found.pop();
                found.push(None);
                return found;
            }
            found.push(token.eq_ignore_ascii_case("Digest").then(Scheme::default));
            rest = after;
            continue;
        };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => match closing_quote(quoted) {
                Some(end) => (
                    quoted.get(..end).unwrap_or_default(),
                    quoted.get(end + 1..).unwrap_or_default(),
                ),
                None => {
                    found.pop();
                    found.push(None);
                    return found;
                }
            },
            None => {
                let end = value
                    .find([',', ' ', '\t', '\r', '\n'])
                    .unwrap_or(value.len());
                value.split_at_checked(end).unwrap_or((value, ""))
            }
        };
        if let Some(last) = found.last_mut()
            && let Some(scheme) = last
        {
            let name = token.to_ascii_lowercase();
            // A parameter that stands twice says two things.
            if scheme.get(&name).is_some() || scheme.parameters.len() == MOST_PARAMETERS {
                *last = None;
            } else {
                scheme.parameters.push((name, value.to_owned()));
            }
        }
        rest = after;
    }
}

/// Where a quoted string ends that began before this text.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;
    use sipx_sip::Header;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> Headers {
        let mut headers = Headers::new();
        for value in values {
            headers.push(Header::build(name.clone(), (*value).to_owned()).unwrap());
        }
        headers
    }

    fn challenges(values: &[&str]) -> Vec<Option<Challenge>> {
        Challenge::read_all(&headers(&HeaderName::WwwAuthenticate, values))
    }

    fn value_of<'a>(header: &'a str, name: &str) -> &'a str {
        let (_, rest) = header.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0
    }

    const GET: Protected<'_> = Protected {
        method: "GET",
        uri: "/dir/index.html",
        body: b"",
    };

    #[test]
    fn the_answers_are_those_of_the_rfcs() {
        let of_7616 = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let of_2617 = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let of_7616_cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (challenge, password, cnonce, expected) in [
            // RFC 7616 §3.9.1.
            (
                format!("{of_7616}, algorithm=MD5"),
                "Circle of Life",
                of_7616_cnonce,
                "8ca523f5e9506fed4657c9700eebdbec",
            ),
            (
                format!("{of_7616}, algorithm=SHA-256"),
                "Circle of Life",
                of_7616_cnonce,
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
            // RFC 2617 §3.5.
            (
                of_2617.to_owned(),
                "Circle Of Life",
                "0a4f113b",
                "6629fae49393a05397450978507c4ef1",
            ),
            // The same without qop: RFC 2069's formula.
            (
                of_2617.replace("qop=\"auth,auth-int\", ", ""),
                "Circle Of Life",
                "0a4f113b",
                "670fd8c2df070c60b045671b8b24ff02",
            ),
        ] {
            let read = challenges(&[&challenge]).remove(0).unwrap();
            let (name, answer) = read.answer("Mufasa", password, &GET, 1, cnonce);
            assert_eq!(name, HeaderName::Authorization);
            assert_eq!(value_of(&answer, "response"), expected, "{challenge}");
            assert_eq!(answer.contains("nc=00000001"), challenge.contains("qop"));
            assert_eq!(value_of(&answer, "opaque"), value_of(&challenge, "opaque"));
        }
    }

    #[test]
    fn the_library_gives_the_same_answers() {
        for algorithm in ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"] {
            for qop in ["", ", qop=\"auth\""] {
                let challenge =
                    format!("Digest realm=\"r\", nonce=\"n\", algorithm={algorithm}{qop}");
                let ours = challenges(&[&challenge]).remove(0).unwrap();
                let request = Protected {
                    method: "INVITE",
                    uri: "sip:b@example.org",
                    body: b"",
                };
                let (_, ours) = ours.answer("u", "p", &request, 7, "c");
                let theirs = sipx_sip::auth::Challenge::parse(challenge.as_bytes(), false).unwrap();
                let credentials = sipx_sip::auth::Credentials::new("u", "p");
                let theirs = sipx_sip::auth::respond(
                    &theirs,
                    &credentials,
                    "INVITE",
                    "sip:b@example.org",
                    7,
                    "c",
                );
                assert_eq!(value_of(&ours, "response"), value_of(&theirs, "response"));
            }
        }
    }

    #[test]
    fn the_body_counts_where_only_auth_int_is_offered() {
        let read = challenges(&["Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\""])
            .remove(0)
            .unwrap();
        let answer = |body| {
            let request = Protected { body, ..GET };
            read.answer("u", "p", &request, 1, "c").1
        };
        // MD5("u:r:p":"n":00000001:"c":"auth-int":MD5("GET:/dir/index.html":MD5(body))).
        assert!(answer(b"").contains("qop=auth-int"));
        assert_ne!(
            value_of(&answer(b""), "response"),
            value_of(&answer(b"v=0"), "response")
        );
    }

    #[test]
    fn challenges_are_told_apart_however_they_share_headers() {
        let one = "Digest realm=\"a, b\", nonce=\"n\\\"1\", algorithm=SHA-256, qop=\"auth\"";
        let two = "Digest nonce=n2 ,realm=\"a, b\"";
        let expected = challenges(&[one, two]);
        assert_eq!(expected.len(), 2);
        assert_eq!(challenges(&[&format!("{one}, {two}")]), expected);
        let [first, second] = [0, 1].map(|at| expected[at].clone().unwrap());
        assert_eq!(
            (first.realm.as_str(), first.nonce.as_str()),
            ("a, b", "n\\\"1")
        );
        assert_eq!(first.qop, Qop::Auth);
        assert_eq!((second.nonce.as_str(), second.qop), ("n2", Qop::Legacy));
        let chosen = strongest(vec![second.clone(), first.clone()]);
        assert_eq!(chosen, std::slice::from_ref(&first));
        let elsewhere = Challenge {
            realm: "other".to_owned(),
            ..second
        };
        assert_eq!(
            strongest(vec![elsewhere.clone(), first.clone()]),
            [elsewhere, first]
        );
    }

    #[test]
    fn what_cannot_be_answered_is_no_challenge_and_hides_none() {
        for bad in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\"",
            "Digest nonce=\"n\"",
            "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-512-256",
            "Digest realm=\"x\", nonce=\"n\", qop=\"token\"",
            "Digest realm=\"x\", nonce=\"n\", nonce=\"m\"",
            "Digest realm=\"x, nonce=\"n\"",
            "Digest \"",
        ] {
            let none = challenges(&[bad]);
            assert!(
                !none.is_empty() && none.iter().all(Option::is_none),
                "{bad}"
            );
            let good = "Digest realm=\"x\", nonce=\"n\"";
            let both = challenges(&[bad, good]);
            assert!(both.last().is_some_and(Option::is_some), "{bad}");
        }
        assert_eq!(challenges(&[""]), []);
    }

    #[test]
    fn only_who_knows_the_password_proves_it_and_for_that_method() {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            let text = format!(
                "Digest realm=\"r\", nonce=\"n\", algorithm={}, qop=\"auth\"",
                algorithm.as_str()
            );
            let challenge = challenges(&[&text]).remove(0).unwrap();
            let request = Protected {
                method: "INVITE",
                ..GET
            };
            let (_, answer) = challenge.answer("u", "secret", &request, 255, "c");
            let given = Given::read_all(&headers(&HeaderName::Authorization, &[&answer]), false);
            assert_eq!(given.len(), 1);
            assert_eq!(given[0].count, 255);
            let ha1 = |password| Ha1::new(algorithm, "u", "r", password);
            assert!(given[0].proves(&ha1("secret"), "INVITE"));
            assert!(!given[0].proves(&ha1("Secret"), "INVITE"));
            assert!(!given[0].proves(&ha1("secret"), "BYE"));
            let digits = hex(&[0xab; 32]);
            let digits = &digits[..if algorithm == Algorithm::Md5 { 32 } else { 64 }];
            assert_eq!(
                Ha1::parse(algorithm, digits),
                Ha1::parse(algorithm, &digits.to_uppercase())
            );
            assert!(Ha1::parse(algorithm, &digits[1..]).is_none());
            assert!(!format!("{:?}", ha1("secret")).contains(&ha1("secret").0));
        }
        for incomplete in [
            "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"x\", response=\"y\"",
            "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"x\", response=\"y\", qop=auth, \
             nc=1, cnonce=\"c\"",
            "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"x\", response=\"y\", \
             qop=auth-int, nc=00000001, cnonce=\"c\"",
        ] {
            let given = Given::read_all(&headers(&HeaderName::Authorization, &[incomplete]), false);
            assert_eq!(given, [], "{incomplete}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_in_bounds(text in "[ -~]{0,400}") {
            let found = schemes(&text);
            prop_assert!(found.len() <= MOST_IN_A_MESSAGE + 1);
            for scheme in found.into_iter().flatten() {
                prop_assert!(scheme.parameters.len() <= MOST_PARAMETERS);
            }
        }
    }
}
