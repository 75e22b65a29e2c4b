//! What has to be worked around: when one of these fails after an upgrade, a workaround can go.
//!
//! Traps of framing, of digest and of the ACK for a 2xx stand with their subjects.

use bytes::Bytes;
use sipx_sip::headers::From;
use sipx_sip::transaction::Dispatch;
use sipx_sip::{
    ClientTransaction, Header, HeaderName, Message, Method, Output, Reliability, ServerTransaction,
    Timer, Timers, TransactionKey, TransactionLayer, Uri,
};

use crate::messages::{INVITE, answer, invite, label, parse_request, reparse, request, uri};
use crate::verdict::{TORTURE, verdict};
use crate::world::Side::{Alice, Bob};
use crate::world::World;
use Reliability::Unreliable;

#[test]
fn trap_a_client_with_a_final_response_acknowledges_anything_that_follows() {
    for late in [180, 200] {
        let mut world = World::udp();
        world.send(Alice, invite());
        let (_, received) = world.request_at(Bob);
        for code in [486, late] {
            world.send_direct(Bob, Message::Response(answer(&received, code, "b")));
        }
        assert_eq!(world.times_sent(Alice, "ACK").len(), 2, "late {late}");
        assert_eq!(world.told(Alice), ["486 INVITE"], "late {late}");
    }
}

#[test]
fn trap_a_machine_obeys_some_timers_of_the_other_kind() {
    let (mut client, _) = ClientTransaction::new(invite(), Unreliable, Timers::default());
    client.on_response(answer(&invite(), 180, "b"));
    assert!(client.on_timer(Timer::B).is_empty());
    client.on_timer(Timer::F);
    assert!(
        client.state().is_terminated(),
        "F belongs to the non-INVITE machine"
    );

    let (mut server, _) = ServerTransaction::new(invite(), Unreliable, Timers::default());
    server.on_tu_response(answer(&invite(), 486, "b"));
    server.on_timer(Timer::J);
    assert!(
        server.state().is_terminated(),
        "J belongs to the non-INVITE machine"
    );
}

#[test]
fn trap_the_end_of_a_transaction_clears_none_of_its_other_timers() {
    let (mut client, _) = ClientTransaction::new(invite(), Unreliable, Timers::default());
    let outputs = client.on_timer(Timer::B);
    assert!(matches!(outputs.last(), Some(Output::Terminated(_))));
    assert!(
        !outputs
            .iter()
            .any(|output| matches!(output, Output::ClearTimer(_)))
    );
}

#[test]
fn trap_a_second_request_under_the_same_key_silently_replaces_the_first() {
    let mut layer = TransactionLayer::new(Timers::default());
    layer.send_request(invite(), Unreliable).unwrap();
    layer.send_request(invite(), Unreliable).unwrap();
    assert_eq!(layer.len(), (1, 0));
}

#[test]
fn trap_a_layer_that_calls_itself_gives_both_ends_one_key_and_starves_the_server_of_timers() {
    let mut layer = TransactionLayer::new(Timers::default());
    let (client, _) = layer.send_request(invite(), Unreliable).unwrap();
    let Dispatch::Created { key: server, .. } =
        layer.receive(Message::Request(invite()), Unreliable)
    else {
        panic!("no server transaction");
    };
    assert_eq!(client, server);
    assert!(
        layer.on_timer(&server, Timer::Trying100).is_empty(),
        "the client machine took it"
    );
}

#[test]
fn trap_the_layer_cannot_abandon_a_ringing_client_transaction_except_by_a_transport_error() {
    let mut world = World::udp();
    let key = world.send(Alice, invite());
    let (server_key, received) = world.request_at(Bob);
    world.respond(Bob, &server_key, answer(&received, 180, "b"));
    assert!(!world.layer(Alice).abandon(&key));
    assert_eq!(world.layer(Alice).len().0, 1);
    assert!(!world.layer(Alice).on_transport_error(&key).is_empty());
    assert!(world.layer(Alice).is_empty());
}

#[test]
fn trap_a_response_whose_via_changed_its_port_does_not_find_its_request() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (_, received) = world.request_at(Bob);
    let mut response = answer(&received, 180, "b");
    response.headers.remove_all(&HeaderName::Via);
    let via = Header::build(
        HeaderName::Via,
        "SIP/2.0/UDP alice.example;branch=z9hG4bKinv",
    )
    .unwrap();
    response.headers.push_front(via);
    world.send_direct(Bob, Message::Response(response));
    assert!(world.told(Alice).is_empty());
    assert_eq!(world.stray.len(), 1);
}

#[test]
fn trap_the_ack_of_a_peer_without_the_magic_cookie_never_matches_its_failed_invite() {
    let mut world = World::udp();
    let old = request(&Method::Invite, "sip:bob@example.org", "1", 1, None);
    world.send(Alice, old);
    let (key, received) = world.request_at(Bob);
    assert!(key.is_legacy());
    world.respond(Bob, &key, answer(&received, 486, "b"));
    assert_eq!(label(&world.stray[0].1), "ACK");
    world.run_to(40_000);
    assert_eq!(world.told(Bob), ["INVITE", "TIMEOUT"]);
}

#[test]
fn trap_the_magic_cookie_is_matched_case_sensitively_and_may_stand_alone() {
    let key_for = |branch: &str| {
        let request = request(&Method::Options, "sip:bob@example.org", branch, 1, None);
        TransactionKey::from_request(&request).unwrap()
    };
    assert!(key_for("Z9HG4BKabc").is_legacy());
    assert!(!key_for("z9hG4bK").is_legacy());
    assert_ne!(key_for("z9hG4bKabc"), key_for("z9hG4bKABC"));
}

#[test]
fn trap_a_response_reflects_history_info_unless_it_is_removed() {
    let mut request = invite();
    request
        .headers
        .push(Header::build(HeaderName::Supported, "histinfo").unwrap());
    let mut response = answer(&request, 200, "b");
    assert_eq!(response.headers.count(&HeaderName::HistoryInfo), 1);
    response.headers.remove_all(&HeaderName::HistoryInfo);
    assert_eq!(response.headers.count(&HeaderName::HistoryInfo), 0);
}

#[test]
fn trap_public_fields_of_a_parsed_message_do_not_reach_the_wire() {
    let mut request = parse_request(INVITE);
    request.method = Method::Bye;
    request.uri = uri("sip:other@example.org");
    assert!(
        Message::Request(request.clone())
            .to_bytes()
            .starts_with(b"INVITE sip:+4930123456@")
    );
    request.set_uri(uri("sip:other@example.org")).unwrap();
    assert!(
        Message::Request(request)
            .to_bytes()
            .starts_with(b"INVITE sip:other@example.org ")
    );
}

#[test]
fn trap_set_body_leaves_the_old_content_length() {
    let mut request = parse_request(INVITE);
    request.set_body(Bytes::from_static(b"longer than five"));
    assert_eq!(reparse(&Message::Request(request)).body().len(), 5);
}

#[test]
fn trap_numbers_with_a_hash_and_display_names_outside_ascii_are_refused() {
    // Legal SIP writes `#` as %23; phones that dial `*31#...` unescaped get a 400 from us.
    assert!(Uri::parse(Bytes::from_static(b"sip:*31#12@example.org")).is_err());
    assert!(Uri::parse(Bytes::from_static(b"sip:*31%2312@example.org")).is_ok());
    let from = |value: &str| {
        let header = Header::build(HeaderName::From, value.to_owned()).unwrap();
        let mut request = invite();
        request.headers.remove_all(&HeaderName::From);
        request.headers.push(header);
        request.headers.typed::<From>().unwrap().is_ok()
    };
    assert!(from("\"J\u{f6}rg\" <sip:a@example.org>;tag=1"));
    assert!(!from("J\u{f6}rg <sip:a@example.org>;tag=1"));
    assert!(!from("<sip:*31#12@example.org>;tag=1"));
}

#[test]
fn trap_no_limit_covers_the_start_line() {
    let user = "1".repeat(60_000);
    let datagram = TORTURE.replacen("sip:a@", &format!("sip:{user}@"), 1);
    assert_eq!(verdict(datagram.as_bytes()), "ok");
}

#[test]
fn trap_a_parameter_value_is_a_token_so_a_branch_or_tag_may_not_hold_an_equals_or_at_sign() {
    for sign in ["=", "@"] {
        let branch = TORTURE.replacen("z9hG4bK1", &format!("z9hG4bK1{sign}x"), 1);
        assert_eq!(
            verdict(branch.as_bytes()),
            "MalformedRequiredHeader(\"Via\") 400"
        );
        let tag = TORTURE.replacen("tag=1", &format!("tag=1{sign}x"), 1);
        assert_eq!(
            verdict(tag.as_bytes()),
            "MalformedRequiredHeader(\"From\") 400"
        );
    }
}
