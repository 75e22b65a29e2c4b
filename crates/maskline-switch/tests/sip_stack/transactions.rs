//! The four transaction machines of RFC 3261 §17: what they resend, when they give up and what
//! they tell their user.

use sipx_sip::{Header, HeaderName, Method, Reliability, Timer, TransactionKey, validate_request};

use crate::messages::{answer, branch_of, cancel_of, cseq_of, invite, label, options, to_tag_of};
use crate::world::Side::{Alice, Bob};
use crate::world::World;
use Reliability::Reliable;

#[test]
fn an_unanswered_invite_is_resent_by_timer_a_and_given_up_by_timer_b() {
    let mut world = World::udp();
    world.losing = Some(Alice);
    world.send(Alice, invite());
    world.run_to(60_000);
    assert_eq!(
        world.times_sent(Alice, "INVITE"),
        [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500]
    );
    assert_eq!(world.fired(Timer::B), [32_000]);
    assert_eq!(world.told(Alice), ["TIMEOUT"]);
    assert!(world.idle());
}

#[test]
fn a_provisional_response_stops_timers_a_and_b() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 180, "b"));
    world.run_to(600_000);
    assert_eq!(world.times_sent(Alice, "INVITE"), [0]);
    assert_eq!(world.told(Alice), ["180 INVITE"]);
    assert!(
        world.armed.is_empty(),
        "ringing has no timeout of its own: the caller keeps Timer C"
    );
}

#[test]
fn a_non_2xx_is_acknowledged_by_the_client_machine_and_absorbed_by_the_server_machine() {
    let mut world = World::udp();
    let mut sent = invite();
    sent.headers
        .push(Header::build(HeaderName::Route, "<sip:p.example;lr>").unwrap());
    world.send(Alice, sent);
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 486, "b"));
    world.run_to(40_000);

    let ack = world.messages.iter().find(|m| label(m) == "ACK").unwrap();
    assert_eq!(branch_of(ack), "z9hG4bKinv");
    assert_eq!(to_tag_of(ack).as_deref(), Some("b"));
    assert_eq!(cseq_of(ack).sequence, 1);
    assert_eq!(
        ack.headers().value(&HeaderName::Route).unwrap(),
        &b"<sip:p.example;lr>"[..]
    );
    assert_eq!(validate_request(ack.as_request().unwrap()), []);
    assert_eq!(world.told(Bob), ["INVITE"]);
    assert!(world.stray.is_empty());
    // I ends the server's machine, D the client's.
    assert_eq!(world.fired, [(5_000, Timer::I), (32_000, Timer::D)]);
    assert!(world.idle());
}

#[test]
fn an_unacknowledged_non_2xx_is_resent_by_timer_g_and_given_up_by_timer_h() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.losing = Some(Bob);
    world.respond(Bob, &key, answer(&received, 486, "b"));
    world.losing = Some(Alice);
    world.run_to(31_900);
    assert_eq!(
        world.times_sent(Bob, "486 INVITE"),
        [
            0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    // The first copy was lost; the client answers each later one with the same ACK, telling once.
    assert_eq!(world.times_sent(Alice, "ACK").len(), 10);
    assert_eq!(world.told(Alice), ["486 INVITE"]);
    world.run_to(32_000);
    assert_eq!(world.fired(Timer::H), [32_000]);
    assert_eq!(world.told(Bob), ["INVITE", "TIMEOUT"]);
}

#[test]
fn an_unanswered_request_is_resent_by_timer_e_up_to_t2_and_given_up_by_timer_f() {
    let mut world = World::udp();
    world.losing = Some(Alice);
    world.send(Alice, options());
    world.run_to(60_000);
    assert_eq!(
        world.times_sent(Alice, "OPTIONS"),
        [
            0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(world.fired(Timer::F), [32_000]);
    assert_eq!(world.told(Alice), ["TIMEOUT"]);
    assert!(world.idle());
}

#[test]
fn a_resent_request_gets_the_stored_answer_until_timer_j() {
    let mut world = World::udp();
    world.send(Alice, options());
    let (key, received) = world.request_at(Bob);
    world.losing = Some(Bob);
    world.respond(Bob, &key, answer(&received, 200, "b"));
    world.run_to(600);
    world.losing = None;
    world.run_to(40_000);
    assert_eq!(world.times_sent(Bob, "200 OPTIONS"), [0, 500, 1_500]);
    assert_eq!(world.told(Bob), ["OPTIONS"]);
    assert_eq!(world.told(Alice), ["200 OPTIONS"]);
    assert_eq!(
        (world.fired(Timer::K), world.fired(Timer::J)),
        (vec![6_500], vec![32_000])
    );
    assert!(world.idle());
}

#[test]
fn a_slow_user_is_covered_by_a_100_after_200_ms() {
    let mut world = World::udp();
    world.send(Alice, invite());
    world.run_to(1_000);
    assert_eq!(world.times_sent(Bob, "100 INVITE"), [200]);
    assert_eq!(world.times_sent(Alice, "INVITE"), [0]);
    let trying = world
        .messages
        .iter()
        .find(|m| label(m) == "100 INVITE")
        .unwrap();
    assert_eq!(to_tag_of(trying), None);
}

#[test]
fn a_resent_invite_gets_the_latest_provisional_response() {
    let mut world = World::udp();
    world.losing = Some(Bob);
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 180, "b"));
    world.run_to(600);
    assert_eq!(world.times_sent(Bob, "180 INVITE"), [0, 500]);
    assert_eq!(world.told(Bob), ["INVITE"]);
}

#[test]
fn a_reliable_transport_resends_nothing_and_absorbs_for_no_time() {
    let mut world = World::new(Reliable);
    world.send(Alice, options());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 200, "b"));
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 486, "b"));
    world.run_to(0);
    let mut fired: Vec<Timer> = world.fired.iter().map(|f| f.1).collect();
    fired.sort_by_key(|timer| format!("{timer:?}"));
    assert_eq!(fired, [Timer::D, Timer::I, Timer::J, Timer::K]);
    assert!(world.idle());
}

#[test]
fn a_cancel_is_a_transaction_of_its_own_that_names_the_invite_by_branch() {
    let mut world = World::udp();
    let sent = invite();
    let cancel = cancel_of(&sent);
    let invite_key = world.send(Alice, sent);
    let (server_key, received) = world.request_at(Bob);
    world.respond(Bob, &server_key, answer(&received, 180, "b"));

    let cancel_key = world.send(Alice, cancel);
    assert_ne!(cancel_key, invite_key);
    let (key, received_cancel) = world.request_at(Bob);
    assert_eq!(received_cancel.method, Method::Cancel);
    assert_eq!(
        TransactionKey::for_cancelled_invite(&received_cancel),
        Some(server_key.clone())
    );
    assert!(world.layer(Bob).server_state(&server_key).is_some());

    world.respond(Bob, &key, answer(&received_cancel, 200, "b"));
    world.respond(Bob, &server_key, answer(&received, 487, "b"));
    world.run_to(40_000);
    assert_eq!(
        world.told(Alice),
        ["180 INVITE", "200 CANCEL", "487 INVITE"]
    );
    assert_eq!(world.times_sent(Alice, "ACK"), [0]);
    assert!(world.idle());
}

#[test]
fn a_cancel_that_matches_nothing_still_reaches_the_user_for_a_481() {
    let mut world = World::udp();
    world.send(Alice, cancel_of(&invite()));
    let (_, received) = world.request_at(Bob);
    let invite_key = TransactionKey::for_cancelled_invite(&received).unwrap();
    assert!(world.layer(Bob).server_state(&invite_key).is_none());
}

#[test]
fn a_failing_transport_ends_the_transaction_and_tells_its_user() {
    let mut world = World::udp();
    let key = world.send(Alice, invite());
    let outputs = world.layer(Alice).on_transport_error(&key);
    world.perform(Alice, &key, outputs);
    assert_eq!(world.told(Alice), ["TRANSPORT"]);
    assert!(world.layer(Alice).is_empty());
}

#[test]
fn a_timer_that_outlived_its_transaction_does_nothing() {
    let mut world = World::udp();
    let key = world.send(Alice, options());
    let (server_key, received) = world.request_at(Bob);
    world.respond(Bob, &server_key, answer(&received, 200, "b"));
    world.run_to(40_000);
    for timer in Timer::ALL {
        assert!(world.layer(Alice).on_timer(&key, timer).is_empty());
        assert!(world.layer(Bob).on_timer(&server_key, timer).is_empty());
    }
}
