//! Digest authentication (RFC 7616) from both ends.

use sipx_sip::auth::{Algorithm, Challenge, Credentials, respond};
use sipx_sip::{Header, HeaderName, Message};

use crate::messages::{answer, invite, reparse};

/// The parameters of an `Authorization` value; the crate only parses challenges.
fn auth_params(value: &str) -> Vec<(String, String)> {
    let mut rest = value.strip_prefix("Digest ").unwrap();
    let mut params = Vec::new();
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => tail.split_at(tail.find(',').unwrap_or(tail.len())),
        };
        params.push((name.trim().to_owned(), value.to_owned()));
        rest = tail.trim_start_matches([',', ' ']);
    }
    params
}

/// The server side we have to write: recompute the answer and compare.
fn verify(challenge: &Challenge, authorization: &str, password: &str, method: &str) -> bool {
    let params = auth_params(authorization);
    let get = |name: &str| {
        params
            .iter()
            .find(|p| p.0 == name)
            .map_or("", |p| p.1.as_str())
    };
    let Ok(count) = u32::from_str_radix(get("nc"), 16) else {
        return false;
    };
    let credentials = Credentials::new(get("username"), password);
    let expected = respond(
        challenge,
        &credentials,
        method,
        get("uri"),
        count,
        get("cnonce"),
    );
    let expected = auth_params(&expected);
    let response = expected.iter().find(|p| p.0 == "response").unwrap();
    get("nonce") == challenge.nonce && get("qop") == "auth" && get("response") == response.1
}

#[test]
fn the_digest_answers_are_those_of_rfc_7616() {
    for (algorithm, expected) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        (
            "SHA-256",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ] {
        let challenge = format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe\""
        );
        let challenge = Challenge::parse(challenge.as_bytes(), false).unwrap();
        let credentials = Credentials::new("Mufasa", "Circle of Life");
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let answer = respond(
            &challenge,
            &credentials,
            "GET",
            "/dir/index.html",
            1,
            cnonce,
        );
        assert!(
            answer.contains(&format!("response=\"{expected}\"")),
            "{answer}"
        );
    }
}

#[test]
fn a_challenge_travels_to_the_client_and_its_answer_back_to_the_server() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
        let issued = format!(
            "Digest realm=\"maskline\", nonce=\"n1\", algorithm={}, qop=\"auth\"",
            algorithm.as_str()
        );
        let mut refusal = answer(&invite(), 401, "b");
        refusal
            .headers
            .push(Header::build(HeaderName::WwwAuthenticate, issued).unwrap());
        let refusal = reparse(&Message::Response(refusal));

        let value = refusal
            .headers()
            .value(&HeaderName::WwwAuthenticate)
            .unwrap();
        let challenge = Challenge::parse(&value, false).unwrap();
        assert_eq!(challenge.response_header(), HeaderName::Authorization);
        let credentials = Credentials::new("alice", "secret");
        let target = "sip:bob@example.org";
        let answer = respond(&challenge, &credentials, "INVITE", target, 1, "c1");
        assert!(verify(&challenge, &answer, "secret", "INVITE"));
        assert!(!verify(&challenge, &answer, "wrong", "INVITE"));
        assert!(!verify(&challenge, &answer, "secret", "BYE"));
        assert!(!verify(
            &Challenge {
                nonce: "n2".into(),
                ..challenge
            },
            &answer,
            "secret",
            "INVITE"
        ));
    }
}

#[test]
fn a_challenge_we_cannot_answer_is_no_challenge() {
    for value in [
        "Basic realm=\"x\"",
        "Digest realm=\"x\"",
        "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-1",
        "Digest realm=\"x\", nonce=\"n\", qop=\"auth-int\"",
    ] {
        assert_eq!(Challenge::parse(value.as_bytes(), true), None, "{value}");
    }
}

#[test]
fn trap_a_quoted_realm_outside_ascii_is_read_as_latin_1() {
    let value = "Digest realm=\"Z\u{fc}rich\", nonce=\"n\"";
    assert_ne!(
        Challenge::parse(value.as_bytes(), false).unwrap().realm,
        "Z\u{fc}rich"
    );
}
