//! What follows a 2xx: its copies, its ACK, and the second one of a forked INVITE.

use sipx_sip::{Message, Method, TuEvent};

use crate::messages::{answer, invite, request, to_tag_of};
use crate::world::Side::{Alice, Bob};
use crate::world::World;

#[test]
fn a_2xx_is_resent_only_when_its_user_resends_it_and_every_copy_reaches_the_caller() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    let ok = answer(&received, 200, "b");
    world.respond(Bob, &key, ok.clone());
    world.run_to(10_000);
    assert_eq!(
        world.times_sent(Bob, "200 INVITE"),
        [0],
        "the machine never resends a 2xx"
    );
    world.respond(Bob, &key, ok.clone());
    assert_eq!(world.times_sent(Bob, "200 INVITE"), [0, 10_000]);
    assert_eq!(world.told(Alice), ["200 INVITE", "200 INVITE"]);
    world.run_to(32_000);
    world.respond(Bob, &key, ok);
    assert_eq!(
        world.times_sent(Bob, "200 INVITE").len(),
        2,
        "after Timer L it goes nowhere"
    );
}

#[test]
fn an_invite_resent_after_the_2xx_is_absorbed_until_timer_l() {
    let mut world = World::udp();
    world.losing = Some(Bob);
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 200, "b"));
    world.run_to(20_000);
    assert!(world.times_sent(Alice, "INVITE").len() > 3);
    assert_eq!(world.told(Bob), ["INVITE"]);
    assert_eq!(world.times_sent(Bob, "200 INVITE"), [0]);
}

#[test]
fn only_the_first_final_response_of_a_user_is_sent() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    for code in [487, 200, 486] {
        world.respond(Bob, &key, answer(&received, code, "b"));
    }
    assert_eq!(world.sent.iter().filter(|s| s.1 == Bob).count(), 1);
}

#[test]
fn two_2xx_of_a_forked_invite_both_come_out_of_its_one_transaction() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 200, "first"));
    world.respond(Bob, &key, answer(&received, 200, "second"));
    let tags: Vec<_> = world
        .told
        .iter()
        .filter_map(|(_, _, event)| match event {
            TuEvent::Response(response) => to_tag_of(&Message::Response((**response).clone())),
            _ => None,
        })
        .collect();
    assert_eq!(tags, ["first", "second"]);
    assert!(
        world.times_sent(Alice, "ACK").is_empty(),
        "each ACK is the user's business"
    );
}

#[test]
fn trap_an_ack_that_reuses_the_branch_of_a_2xx_invite_arrives_inside_the_transaction() {
    let mut world = World::udp();
    world.send(Alice, invite());
    let (key, received) = world.request_at(Bob);
    world.respond(Bob, &key, answer(&received, 200, "b"));
    let ack = request(
        &Method::Ack,
        "sip:bob@bob.example",
        "z9hG4bKinv",
        1,
        Some("b"),
    );
    world.send_direct(Alice, Message::Request(ack));
    assert_eq!(world.told(Bob), ["INVITE", "ACK in transaction"]);
}
