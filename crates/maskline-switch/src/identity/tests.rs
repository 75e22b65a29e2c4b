//! Numbers and callers as carriers write them.

use bytes::Bytes;
use maskline_events::{Msisdn, Party};
use proptest::prelude::*;

use super::*;
use crate::sip::{Message, Request, wire};

fn number(text: &str) -> Msisdn {
    Msisdn::parse(text).unwrap()
}

fn normalise(raw: &str) -> Option<Msisdn> {
    IdentityRules::default().read(raw)
}

/// A Singapore carrier: no national prefix, several international ones.
fn singapore() -> IdentityRules {
    IdentityRules {
        country_code: Some("65".to_owned()),
        international_prefixes: ["000", "001", "00"].map(str::to_owned).to_vec(),
        bare_numbers: BareNumbers::National,
        ..IdentityRules::default()
    }
}

/// A German carrier that sends national numbers with their 0.
fn germany() -> IdentityRules {
    IdentityRules {
        country_code: Some("49".to_owned()),
        national_prefix: "0".to_owned(),
        bare_numbers: BareNumbers::National,
        ..IdentityRules::default()
    }
}

/// As [`germany`], where digits without 0 are E.164.
fn germany_with_bare_e164() -> IdentityRules {
    IdentityRules {
        bare_numbers: BareNumbers::E164,
        ..germany()
    }
}

/// As [`singapore`], behind an exchange that puts a 9 or a route code in front.
fn behind_an_exchange() -> IdentityRules {
    IdentityRules {
        strip: ["9", "77#"].map(str::to_owned).to_vec(),
        ..singapore()
    }
}

fn invite(uri: &str, headers: &[&str]) -> Request {
    let mut text =
        format!("INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    for (name, otherwise) in [("From:", "<sip:x@y>;tag=1"), ("To:", "<sip:x@y>")] {
        if !headers.iter().any(|header| header.starts_with(name)) {
            text.push_str(&format!("{name} {otherwise}\r\n"));
        }
    }
    text.push_str("Call-ID: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
    let peer = crate::sip::Peer {
        listener: 0,
        transport: crate::sip::Transport::Udp,
        addr: "192.0.2.1:5060".parse().unwrap(),
    };
    match wire::read_datagram(&Bytes::from(text), peer) {
        Ok(Message::Request(request)) => request,
        other => panic!("{uri} {headers:?}: {other:?}"),
    }
}

#[test]
fn each_carriers_numbers_are_read_by_its_own_rules() {
    let default = IdentityRules::default;
    for (rules, raw, expected) in [
        // Singapore: bare digits are national, whatever they look like.
        (singapore(), "91110001", "+6591110001"),
        (singapore(), "9111-0001", "+6591110001"),
        (singapore(), "(9111) 0001", "+6591110001"),
        (singapore(), "+6591110001", "+6591110001"),
        (singapore(), "+4930123456", "+4930123456"),
        (singapore(), "006591110001", "+6591110001"),
        (singapore(), "0016591110001", "+6591110001"),
        (singapore(), "0006591110001", "+6591110001"),
        (singapore(), "00014155550123", "+14155550123"),
        (singapore(), "91110001;npdi", "+6591110001"),
        (singapore(), "91110001;phone-context=+65", "+6591110001"),
        (
            singapore(),
            "91110001;phone-context=carrier.example",
            "+6591110001",
        ),
        (singapore(), "91110001;phone-context=+49", ""),
        (singapore(), "995", ""),
        (singapore(), "1777", ""),
        (singapore(), "77777", ""),
        (singapore(), "0", ""),
        (singapore(), "", ""),
        (singapore(), "alice", ""),
        (singapore(), "91110001#1", ""),
        (singapore(), "99999999999999", ""),
        // Germany: 0 in front of national numbers.
        (germany(), "030123456", "+4930123456"),
        (germany(), "30123456", "+4930123456"),
        (germany(), "00493012345 6", "+4930123456"),
        (germany(), "004412345678 90", "+441234567890"),
        (germany(), "0110", ""),
        (germany(), "110", ""),
        (germany(), "0", ""),
        (germany(), "+030123456", ""),
        (germany_with_bare_e164(), "030123456", "+4930123456"),
        (germany_with_bare_e164(), "4930123456", "+4930123456"),
        (germany_with_bare_e164(), "6591110001", "+6591110001"),
        (germany_with_bare_e164(), "110", ""),
        (
            germany_with_bare_e164(),
            "30123456;phone-context=+49",
            "+4930123456",
        ),
        // An exchange in between.
        (behind_an_exchange(), "991110001", "+6591110001"),
        (behind_an_exchange(), "77#91110001", "+6591110001"),
        (behind_an_exchange(), "9006591110001", "+6591110001"),
        (behind_an_exchange(), "9+6591110001", "+6591110001"),
        (behind_an_exchange(), "+6591110001", "+6591110001"),
        (behind_an_exchange(), "9", ""),
        (behind_an_exchange(), "9++6591110001", ""),
        (behind_an_exchange(), "*31#91110001", ""),
        // Without a country nothing national is read.
        (default(), "030123456", ""),
        (default(), "91110001;phone-context=+65", ""),
        (default(), "tel", ""),
    ] {
        let expected = (!expected.is_empty()).then(|| number(expected));
        assert_eq!(
            rules.read(raw),
            expected,
            "{raw} by {:?}",
            rules.country_code
        );
    }
}

#[test]
fn an_international_number_is_read_however_a_trunk_writes_it() {
    for raw in [
        "+6568330330",
        "006568330330",
        "6568330330",
        "+65 6833 0330",
        "+65-6833-0330",
        "(+65) 6833.0330",
        "+(65)68330330",
        "00 65 6833-0330",
        "+6568330330;phone-context=+65",
        "+6568330330;npdi;rn=+6512345",
        "6568330330;phone-context=trunk.example",
        "6568330330;tgrp=+1;cpc=ordinary",
        " +6568330330 ",
    ] {
        assert_eq!(normalise(raw), Some(number("+6568330330")), "{raw}");
    }
    // The longest, and with a + the shortest, that an MSISDN can be.
    assert_eq!(
        normalise("00123456789012345"),
        Some(number("+123456789012345"))
    );
    assert_eq!(normalise("+112"), Some(number("+112")));
    assert_eq!(normalise("2908999"), Some(number("+2908999")));
}

#[test]
fn what_is_no_international_number_is_not_guessed_at() {
    for raw in [
        "",
        "+",
        "00",
        "++6568330330",
        "+65+68330330",
        "65+68330330",
        "0",
        "068330330",
        "01161212345678",
        "0006568330330",
        "+06568330330",
        "+0065683303",
        "+44(0)2079460000",
        "1",
        "12",
        "999",
        "1777",
        "123456",
        "+12",
        "1234567890123456",
        "+1234567890123456",
        "001234567890123456",
        "68330330;phone-context=+65",
        "6568330330;npdi;Phone-Context=+1-914",
        "anonymous",
        "alice",
        "+65683303a0",
        "*31#6568330330",
        "65683%33330",
        "６５６８３３０３３０",
        "+65\u{a0}68330330",
        "tel:+6568330330",
        "+6568330330@host",
        "+6568330330,123",
        "--..()",
        ";phone-context=+65",
    ] {
        assert_eq!(normalise(raw), None, "{raw}");
    }
    assert_eq!(normalise(&"9".repeat(1_000_000)), None);
}

#[test]
fn the_caller_is_found_where_the_rules_look_and_nowhere_else() {
    use CallerSource::{From, PAssertedIdentity, PPreferredIdentity, RemotePartyId};
    const SHOWN: &str = "+6591110001";
    let pai = "P-Asserted-Identity: <sip:91110001@c.example;user=phone>";
    let from = "From: \"A\" <sip:98887777@c.example>;tag=1";
    for (order, headers, expected) in [
        (vec![PAssertedIdentity, From], vec![pai, from], SHOWN),
        (
            vec![From, PAssertedIdentity],
            vec![pai, from],
            "+6598887777",
        ),
        (vec![From], vec![pai, from], "+6598887777"),
        (vec![PAssertedIdentity], vec![from], ""),
        (vec![PAssertedIdentity, From], vec![from], "+6598887777"),
        // A source without a number gives way to the next.
        (
            vec![PAssertedIdentity, From],
            vec!["P-Asserted-Identity: <sip:switchboard@c.example>", from],
            "+6598887777",
        ),
        // Two identities of one caller (RFC 3325 §9.1), in one row or in two, in either order.
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: <sip:alice@c.example>, <tel:+6591110001>"],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity],
            vec![
                "P-Asserted-Identity: <sip:alice@c.example>",
                "P-Asserted-Identity: <tel:+65-9111-0001>",
            ],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: <tel:91110001;phone-context=+65>"],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: <tel:91110001;phone-context=+49>"],
            "",
        ),
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: <sips:+6591110001;npdi;rn=+6512345@c.example;user=phone>"],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: sip:+6591110001@c.example"],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity],
            vec!["P-Asserted-Identity: <sip:%2B6591110001@c.example>"],
            SHOWN,
        ),
        (
            vec![PAssertedIdentity, From],
            vec!["P-Asserted-Identity: <<>>", from],
            "+6598887777",
        ),
        (
            vec![RemotePartyId, From],
            vec![
                "Remote-Party-ID: <sip:91110001@c>;party=calling;privacy=off",
                from,
            ],
            SHOWN,
        ),
        (
            vec![RemotePartyId, From],
            vec!["Remote-Party-ID: <sip:91110001@c>;party=called", from],
            "+6598887777",
        ),
        (
            vec![PPreferredIdentity, From],
            vec!["P-Preferred-Identity: <sip:91110001@c>", from],
            SHOWN,
        ),
        (vec![From], vec!["From: <tel:006591110001>;tag=1"], SHOWN),
        // Who is no number is nobody.
        (vec![From], vec!["From: <sip:alice@c.example>;tag=1"], ""),
        (
            vec![From],
            vec!["From: \"Unknown\" <sip:unknown@c>;tag=1"],
            "",
        ),
        (vec![From], vec!["From: <sip:unavailable@c>;tag=1"], ""),
        (vec![From], vec!["From: <sip:c.example>;tag=1"], ""),
        (vec![From], vec!["From: <sip:0@c.example>;tag=1"], ""),
        (vec![From], vec!["From: <sip:100@c.example>;tag=1"], ""),
        (vec![From], vec!["From: <sip:+@c.example>;tag=1"], ""),
        (vec![From], vec!["From: <urn:uuid:91110001>;tag=1"], ""),
        (vec![], vec![pai, from], ""),
    ] {
        let rules = IdentityRules {
            caller_from: order.clone(),
            ..singapore()
        };
        let caller = rules.caller(&invite("sip:x@y", &headers));
        let expected = if expected.is_empty() {
            Party::Anonymous
        } else {
            Party::Number(number(expected))
        };
        assert_eq!(caller.shown, expected, "{order:?} {headers:?}");
        assert_eq!(caller.withheld, None, "{order:?} {headers:?}");
    }
}

#[test]
fn privacy_outranks_every_header_unless_the_operator_says_otherwise() {
    let pai = "P-Asserted-Identity: <tel:+6591110001>";
    let from = "From: <sip:+6591110001@c>;tag=1";
    let rpid = "Remote-Party-ID: <sip:+6591110001@c>;privacy";
    for headers in [
        vec![pai, "Privacy: id"],
        vec![pai, "Privacy: ID;critical"],
        vec![pai, "Privacy: session;user"],
        vec![pai, "Privacy: header"],
        vec![pai, "Privacy: critical"],
        vec![pai, "Privacy: none", "Privacy: id"],
        vec![from, "Privacy: id"],
        vec![
            pai,
            "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1",
        ],
        vec![pai, "From: <sip:ANONYMOUS@c.example>;tag=1"],
        vec![pai, "From: <sip:restricted@c.example>;tag=1"],
        vec![pai, "From: <sip:+6591110001@anonymous.invalid>;tag=1"],
        vec![pai, "From: Anonymous <sip:+6591110001@c.example>;tag=1"],
        vec![&format!("{rpid}=full")],
        vec![&format!("{rpid}=\"full\"")],
        vec![&format!("{rpid}=uri-network;screen=yes")],
    ] {
        let rules = IdentityRules {
            caller_from: vec![
                CallerSource::PAssertedIdentity,
                CallerSource::RemotePartyId,
                CallerSource::From,
            ],
            ..IdentityRules::default()
        };
        let call = invite("sip:x@y", &headers);
        let caller = rules.caller(&call);
        assert_eq!(caller.shown, Party::Anonymous, "{headers:?}");
        assert_eq!(caller.withheld, Some(number("+6591110001")), "{headers:?}");
        assert!(!format!("{caller:?}").contains("1110001"), "{caller:?}");
        let revealing = IdentityRules {
            reveal_withheld: true,
            ..rules
        };
        let caller = revealing.caller(&call);
        let shown = Party::Number(number("+6591110001"));
        assert_eq!(
            (caller.shown, caller.withheld),
            (shown, None),
            "{headers:?}"
        );
    }
    for headers in [
        vec![pai, "Privacy: none"],
        vec![pai, "Privacy: session"],
        vec![pai, "Privacy: history"],
        // The rules do not look at it.
        vec![pai, "Remote-Party-ID: <sip:+6598887777@c>;privacy=full"],
    ] {
        let caller = IdentityRules::default().caller(&invite("sip:x@y", &headers));
        assert_eq!(
            caller.shown,
            Party::Number(number("+6591110001")),
            "{headers:?}"
        );
    }
}

#[test]
fn the_called_number_is_the_first_that_is_ours() {
    use CalledSource::{Diversion, HistoryInfo, PCalledPartyId, RequestUri, To};
    let ours = number("+6531580001");
    let to = "To: <sip:31580001@c.example;user=phone>";
    let older_and_newer = [
        "Diversion: <tel:+6531580001>;reason=unconditional",
        "Diversion: <sip:+6531580002@c>;reason=no-answer",
    ];
    for (sources, uri, headers, found) in [
        (vec![RequestUri], "sip:31580001@s", vec![], true),
        (
            vec![RequestUri],
            "sip:+6531580001@s;user=phone",
            vec![],
            true,
        ),
        (vec![RequestUri], "sip:31580001;npdi@s", vec![], true),
        (
            vec![RequestUri],
            "sip:31580001;phone-context=+65@s;user=phone",
            vec![],
            true,
        ),
        (vec![RequestUri], "tel:+65-3158-0001", vec![], true),
        (
            vec![RequestUri],
            "tel:31580001;phone-context=+65",
            vec![],
            true,
        ),
        (vec![RequestUri], "sips:006531580001@s", vec![], true),
        (vec![RequestUri], "sip:pilot@s", vec![to], false),
        (vec![RequestUri, To], "sip:pilot@s", vec![to], true),
        (vec![To], "sip:31580001@s", vec!["To: <sip:pilot@s>"], false),
        (
            vec![To, RequestUri],
            "sip:31580001@s",
            vec!["To: <sip:pilot@s>"],
            true,
        ),
        (
            vec![RequestUri, Diversion],
            "sip:+6531580009@s",
            older_and_newer.to_vec(),
            true,
        ),
        (
            vec![PCalledPartyId],
            "sip:pilot@s",
            vec!["P-Called-Party-ID: <sip:31580001@c>"],
            true,
        ),
        (
            vec![HistoryInfo],
            "sip:pilot@s",
            vec![
                "History-Info: <sip:+6531580001@c?Reason=SIP%3Bcause%3D302>;index=1, <sip:pilot@s>;index=1.1",
            ],
            true,
        ),
        (vec![], "sip:31580001@s", vec![], false),
    ] {
        let rules = IdentityRules {
            called_from: sources.clone(),
            ..singapore()
        };
        let called = rules.called(&invite(uri, &headers), |called| {
            (*called == ours).then(|| called.clone())
        });
        assert_eq!(called.is_some(), found, "{sources:?} {uri} {headers:?}");
    }
    // Of several of ours, the most recent diversion and the most recent entry of the history.
    let anything = |called: &Msisdn| Some(called.as_str().to_owned());
    let rules = |source| IdentityRules {
        called_from: vec![source],
        ..IdentityRules::default()
    };
    let call = invite("sip:x@y", &older_and_newer);
    assert_eq!(
        rules(Diversion).called(&call, anything).unwrap(),
        "+6531580001"
    );
    let history = "History-Info: <sip:+6531580002@c>;index=1, <sip:+6531580001@c>;index=1.1";
    let call = invite("sip:x@y", &[history]);
    assert_eq!(
        rules(HistoryInfo).called(&call, anything).unwrap(),
        "+6531580001"
    );
}

#[test]
fn a_header_repeated_without_end_costs_a_bounded_look() {
    let rows: Vec<String> = (0..100)
        .map(|_| format!("Diversion: {}", vec!["<sip:x@y>"; 20].join(",")))
        .chain(["Diversion: <sip:+6531580001@c>".to_owned()])
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let rules = IdentityRules {
        called_from: vec![CalledSource::Diversion],
        ..IdentityRules::default()
    };
    let looked_at = std::cell::Cell::new(0);
    let called = rules.called(&invite("sip:x@y", &rows), |_| {
        looked_at.set(looked_at.get() + 1);
        Some(())
    });
    assert_eq!((called, looked_at.get()), (None, 0));
}

#[test]
fn each_carrier_gets_numbers_as_it_wants_them() {
    let (abroad, home) = (number("+4930123456"), number("+6598887777"));
    for (rules, format, at_home, away) in [
        (
            singapore(),
            NumberFormat::E164,
            "+6598887777",
            "+4930123456",
        ),
        (singapore(), NumberFormat::Plain, "6598887777", "4930123456"),
        (
            singapore(),
            NumberFormat::International,
            "0006598887777",
            "0004930123456",
        ),
        (
            singapore(),
            NumberFormat::National,
            "98887777",
            "0004930123456",
        ),
        (
            germany(),
            NumberFormat::National,
            "006598887777",
            "030123456",
        ),
        (
            germany(),
            NumberFormat::International,
            "006598887777",
            "004930123456",
        ),
        (
            IdentityRules::default(),
            NumberFormat::International,
            "006598887777",
            "004930123456",
        ),
    ] {
        let rules = IdentityRules {
            number_format: format,
            ..rules
        };
        assert_eq!(rules.write(&home), at_home, "{format:?}");
        assert_eq!(rules.write(&abroad), away, "{format:?}");
        if format != NumberFormat::Plain {
            assert_eq!(rules.read(at_home), Some(home.clone()), "{format:?}");
            assert_eq!(rules.read(away), Some(abroad.clone()), "{format:?}");
        }
    }
}

fn leaving(rules: &IdentityRules) -> Vec<String> {
    let (source, destination) = (number("+6531580001"), number("+6598887777"));
    let leaving = rules.leaving(&LeavingParts {
        source: &source,
        destination: &destination,
        target: "192.0.2.9:5070",
        uri_parameters: ";transport=tcp",
        ours: "198.18.0.1:5060",
        tag: "t",
    });
    let extra = leaving.extra.into_iter();
    [leaving.uri, leaving.to, leaving.from]
        .into_iter()
        .chain(extra.map(|(name, value)| format!("{name}: {value}")))
        .collect()
}

#[test]
fn an_invite_names_both_numbers_as_the_trunk_wants_it() {
    let default = IdentityRules::default;
    assert_eq!(
        leaving(&default()),
        [
            "sip:+6598887777@192.0.2.9:5070;transport=tcp",
            "<sip:+6598887777@192.0.2.9:5070>",
            "<sip:+6531580001@198.18.0.1:5060>;tag=t",
        ]
    );
    let national = IdentityRules {
        number_format: NumberFormat::National,
        add_prefix: "9".to_owned(),
        user_phone: true,
        caller_id: CallerId::FromAndPai,
        from_domain: Some("us.example".to_owned()),
        privacy_none: true,
        ..singapore()
    };
    assert_eq!(
        leaving(&national),
        [
            "sip:998887777@192.0.2.9:5070;transport=tcp;user=phone",
            "<sip:998887777@192.0.2.9:5070;user=phone>",
            "<sip:31580001@us.example;user=phone>;tag=t",
            "P-Asserted-Identity: <sip:31580001@us.example;user=phone>",
            "Privacy: none",
        ]
    );
    let registered = IdentityRules {
        caller_id: CallerId::Pai,
        from_user: Some("account-7".to_owned()),
        from_domain: Some("carrier.example".to_owned()),
        pai_domain: Some("pai.example".to_owned()),
        user_phone: true,
        ..default()
    };
    assert_eq!(
        leaving(&registered)[2..],
        [
            "<sip:account-7@carrier.example>;tag=t",
            "P-Asserted-Identity: <sip:+6531580001@pai.example;user=phone>",
        ]
    );
    let tel = IdentityRules {
        uri: UriScheme::Tel,
        caller_id: CallerId::FromAndPai,
        ..default()
    };
    assert_eq!(
        leaving(&tel),
        [
            "tel:+6598887777",
            "<tel:+6598887777>",
            "<sip:+6531580001@198.18.0.1:5060>;tag=t",
            "P-Asserted-Identity: <tel:+6531580001>",
        ]
    );
}

fn rules() -> impl Strategy<Value = IdentityRules> {
    let text = |pattern: &'static str| proptest::string::string_regex(pattern).unwrap();
    (
        proptest::option::of(text("[1-9][0-9]{0,2}")),
        text("[0-9]{0,2}"),
        proptest::collection::vec(text("[0-9]{1,4}"), 1..4),
        any::<bool>(),
        proptest::collection::vec(text("[0-9*#]{1,5}"), 0..3),
        0..4_u8,
    )
        .prop_map(
            |(country_code, national_prefix, international_prefixes, national, strip, format)| {
                IdentityRules {
                    bare_numbers: if national {
                        BareNumbers::National
                    } else {
                        BareNumbers::E164
                    },
                    number_format: match format {
                        0 => NumberFormat::E164,
                        1 => NumberFormat::International,
                        2 => NumberFormat::National,
                        _ => NumberFormat::Plain,
                    },
                    country_code,
                    national_prefix,
                    international_prefixes,
                    strip,
                    ..IdentityRules::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn any_text_is_read_by_any_rules_without_harm(rules in rules(), raw in any::<String>()) {
        let _ = rules.read(&raw);
    }

    #[test]
    fn a_number_with_a_plus_reads_as_itself_under_all_rules(
        rules in rules(),
        digits in "[1-9][0-9]{2,14}",
    ) {
        let read = rules.read(&format!("+{digits}"));
        prop_assert_eq!(read, Msisdn::parse(&digits).ok());
    }

    #[test]
    fn whatever_is_read_reads_as_itself_again(rules in rules(), raw in "[+0-9 ().;a=*#-]{0,24}") {
        if let Some(read) = rules.read(&raw) {
            prop_assert_eq!(rules.read(read.as_str()), Some(read));
        }
    }

    #[test]
    fn any_from_is_somebody_or_nobody(rules in rules(), user in "[a-zA-Z0-9+;=.()#*-]{0,20}") {
        let from = format!("From: <sip:{user}@c.example>;tag=1");
        let text = format!(
            "INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\n{from}\r\n\
             To: <sip:x@y>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        let peer = crate::sip::Peer {
            listener: 0,
            transport: crate::sip::Transport::Udp,
            addr: "192.0.2.1:5060".parse().unwrap(),
        };
        if let Ok(Message::Request(call)) = wire::read_datagram(text.as_bytes(), peer) {
            let _ = rules.caller(&call);
        }
    }

        #[test]
        fn any_text_is_read_or_refused_without_harm(raw in any::<String>()) {
            let _ = normalise(&raw);
        }

        #[test]
        fn what_is_read_is_an_msisdn_and_reads_as_itself(raw in "[+0-9 ().;a=-]{0,24}") {
            if let Some(read) = normalise(&raw) {
                prop_assert_eq!(Msisdn::parse(read.as_str()), Ok(read.clone()));
                prop_assert_eq!(normalise(read.as_str()), Some(read));
            }
        }

        #[test]
        fn every_way_of_writing_a_number_reads_the_same(digits in "[1-9][0-9]{6,14}") {
            let plain = normalise(&format!("+{digits}"));
            prop_assert!(plain.is_some());
            prop_assert_eq!(&plain, &normalise(&format!("00{digits}")));
            prop_assert_eq!(&plain, &normalise(&digits));
        }
}
