//! A call from INVITE to BYE, and a re-INVITE inside it.

use sipx_sip::headers::{Contact, RecordRoute, Route};
use sipx_sip::{Header, HeaderName, Message, Method, Timer, TuEvent, Uri};

use crate::messages::{answer, cseq_of, invite, label, request, to_tag_of};
use crate::world::Side::{Alice, Bob};
use crate::world::World;

#[test]
fn a_whole_call_runs_from_invite_to_bye_and_leaves_nothing_behind() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    for code in [100, 180, 200] {
        world.respond(Bob, &key, answer(&received, code, "b"));
    }
    world.send_direct(
        Alice,
        Message::Request(request(
            &Method::Ack,
            "sip:bob@bob.example",
            "z9hG4bKack",
            1,
            Some("b"),
        )),
    );
    world.send(
        Alice,
        request(
            &Method::Bye,
            "sip:bob@bob.example",
            "z9hG4bKbye",
            2,
            Some("b"),
        ),
    );
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 200, "b"));
    world.run_to(40_000);

    assert_eq!(
        world.told(Alice),
        ["100 INVITE", "180 INVITE", "200 INVITE", "200 BYE"]
    );
    assert_eq!(world.told(Bob), ["INVITE", "BYE"]);
    assert_eq!(world.stray.len(), 1);
    assert_eq!(label(&world.stray[0].1), "ACK");
    // M and L end the INVITE's machines, K and J those of the BYE.
    assert_eq!(
        world.fired,
        [
            (5_000, Timer::K),
            (32_000, Timer::L),
            (32_000, Timer::M),
            (32_000, Timer::J)
        ]
    );
    assert!(world.idle());
}

#[test]
fn a_reinvite_is_a_new_transaction_sent_along_the_route_set_to_the_remote_target() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    let mut ok = answer(&received, 200, "b");
    for (name, value) in [
        (
            HeaderName::RecordRoute,
            "<sip:p2.example;lr>, <sip:p1.example;lr>",
        ),
        (HeaderName::Contact, "<sip:bob@203.0.113.5:5062>"),
    ] {
        ok.headers.push(Header::build(name, value).unwrap());
    }
    world.respond(Bob, &key, ok);

    let Some((_, _, TuEvent::Response(ok))) = world.told.last() else {
        panic!("no response")
    };
    let target = ok.headers.typed::<Contact>().unwrap().unwrap().uri.clone();
    let mut route_set: Vec<Uri> = ok
        .headers
        .typed_all::<RecordRoute>()
        .map(|r| r.unwrap().uri.clone())
        .collect();
    route_set.reverse();

    let mut again = request(
        &Method::Invite,
        "sip:replaced@invalid",
        "z9hG4bKre",
        2,
        Some("b"),
    );
    again.set_uri(target).unwrap();
    for hop in &route_set {
        again
            .headers
            .push(Header::build(HeaderName::Route, format!("<{hop}>")).unwrap());
    }
    world.send(Alice, again);

    let (again_key, received) = world.request_at(Bob);
    assert_ne!(again_key, key);
    assert_eq!(received.uri.to_string(), "sip:bob@203.0.113.5:5062");
    let routes: Vec<String> = received
        .headers
        .typed_all::<Route>()
        .map(|r| r.unwrap().uri.to_string())
        .collect();
    assert_eq!(routes, ["sip:p1.example;lr", "sip:p2.example;lr"]);
    let message = Message::Request(received.clone());
    assert_eq!(
        (cseq_of(&message).sequence, to_tag_of(&message).as_deref()),
        (2, Some("b"))
    );

    // The first INVITE's machines are still absorbing when the second is refused.
    world.respond(Bob, &again_key, answer(&received, 491, "b"));
    assert_eq!(world.told(Alice), ["200 INVITE", "491 INVITE"]);
    assert_eq!(world.layers[0].len().0, 2);
}
