//! Whole calls, over each transport.

use std::time::Duration;

use maskline_store::Store;
use maskline_switch::sip::Transport;
use tokio::net::TcpListener;

use crate::phone::{Datagrams, Phone, Stream, answer, header, in_dialog, invite, options};
use crate::world::{A, B, CALLER, PATIENCE, Plan, VIRTUAL, World, statuses};

pub const WHOLE_CALL: [&str; 8] = [
    "CALL_RECEIVED",
    "CALL_INITIATED",
    "CALL_UPDATED",
    "CALL_CONNECTED",
    "CALL_CONNECTED",
    "CALL_DISCONNECTED",
    "CALL_DISCONNECTED",
    "SUMMARY",
];

/// B takes the call that A has begun; returns A's 200 and what B was called with.
pub async fn answered(a: &mut impl Phone, via: &str, b: &mut impl Phone) -> (String, String) {
    a.expect("SIP/2.0 100 ").await;
    let at = b.local();
    let called = b.expect("INVITE ").await;
    assert!(header(&called, "From").contains(VIRTUAL), "{called}");
    assert!(!called.contains(&CALLER[1..]), "{called}");
    b.say(&answer(&called, "180 Ringing", at)).await;
    a.expect("SIP/2.0 180 ").await;
    b.say(&answer(&called, "200 OK", at)).await;
    b.expect("ACK ").await;
    let ok = a.expect("SIP/2.0 200 ").await;
    a.say(&in_dialog("ACK", 1, via, &ok)).await;
    (ok, called)
}

/// A hangs up, and B hears of it.
pub async fn hung_up(a: &mut impl Phone, via: &str, ok: &str, b: &mut impl Phone) {
    a.say(&in_dialog("BYE", 2, via, ok)).await;
    a.expect("SIP/2.0 200 ").await;
    let bye = b.expect("BYE ").await;
    let at = b.local();
    b.say(&answer(&bye, "200 OK", at)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_udp_reaches_the_callee_and_its_events_are_journalled_in_order() {
    let callee = Datagrams::at(B).await;
    let world = World::start(Plan::to(callee.local())).await;
    let mut b = callee.towards(world.udp);
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let via = a.via();
    let request = invite(&via, a.local(), "call1");
    a.say(&request).await;
    let (ok, _) = answered(&mut a, &via, &mut b).await;
    assert_eq!(world.node.sessions(), 1);
    hung_up(&mut a, &via, &ok, &mut b).await;
    let story = world.story().await;
    assert_eq!(statuses(&story), WHOLE_CALL);
    let summary = &story[7].1["payload"];
    assert_eq!(summary["sessionStatus"], "COMPLETED");
    assert_eq!(summary["callCount"], 2);
    world.calls_over().await;
    assert_eq!(world.store.open_sessions(None, 10).await.unwrap(), []);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_can_be_given_up_or_ended_while_a_flood_fills_the_transactions() {
    let callee = Datagrams::at(B).await;
    let mut plan = Plan::to(callee.local());
    plan.max_transactions = 8;
    let world = World::start(plan).await;
    let mut b = callee.towards(world.udp);
    let mut talking = Datagrams::at(A).await.towards(world.udp);
    let talking_via = talking.via();
    talking
        .say(&invite(&talking_via, talking.local(), "talking"))
        .await;
    let (ok, _) = answered(&mut talking, &talking_via, &mut b).await;
    let mut ringing = Datagrams::at(A).await.towards(world.udp);
    let ringing_via = ringing.via();
    let request = invite(&ringing_via, ringing.local(), "ringing");
    ringing.say(&request).await;
    ringing.expect("SIP/2.0 100 ").await;
    let called = b.expect("INVITE ").await;
    b.say(&answer(&called, "180 Ringing", b.local())).await;
    ringing.expect("SIP/2.0 180 ").await;
    // An answered OPTIONS lingers for 64·T1, so the first ones of the flood keep all room.
    let mut flooder = Datagrams::at(A).await.towards(world.udp);
    let mut answers = 0;
    for at in 0..100 {
        flooder
            .say(&options(&flooder.via(), &format!("flood{at}")))
            .await;
    }
    let silence = Duration::from_millis(300);
    while tokio::time::timeout(silence, flooder.hear()).await.is_ok() {
        answers += 1;
    }
    assert!(answers < 16, "{answers} of two shards' 16 places");

    let head = request.split("\r\nContent-Type").next().unwrap_or_default();
    let cancel = head
        .replacen("INVITE ", "CANCEL ", 1)
        .replacen(" INVITE", " CANCEL", 1);
    ringing
        .say(&format!("{cancel}\r\nContent-Length: 0\r\n\r\n"))
        .await;
    ringing.expect("SIP/2.0 200 ").await;
    ringing.expect("SIP/2.0 487 ").await;
    let given_up = b.expect("CANCEL ").await;
    b.say(&answer(&given_up, "200 OK", b.local())).await;
    b.say(&answer(&called, "487 Request Terminated", b.local()))
        .await;
    b.expect("ACK ").await;
    hung_up(&mut talking, &talking_via, &ok, &mut b).await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tcp_goes_out_on_a_connection_that_is_made_for_it() {
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = Plan::to(carrier.local_addr().unwrap());
    plan.outbound.0 = Transport::Tcp;
    let world = World::start(plan).await;
    let mut a = Stream::open(A, world.tcp).await;
    let via = a.via();
    let request = invite(&via, a.local(), "call2");
    a.say(&request).await;
    let (accepted, from) = tokio::time::timeout(PATIENCE, carrier.accept())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(from.ip(), world.tcp.ip(), "from the listener's address");
    let mut b = Stream::over(accepted);
    let (ok, called) = answered(&mut a, &via, &mut b).await;
    assert!(
        header(&called, "Via").starts_with("SIP/2.0/TCP "),
        "{called}"
    );
    hung_up(&mut a, &via, &ok, &mut b).await;
    let story = world.story().await;
    assert_eq!(statuses(&story), WHOLE_CALL);
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_find_their_shards_again() {
    let callee = Datagrams::at(B).await;
    let world = World::start(Plan::to(callee.local())).await;
    let mut b = callee.towards(world.udp);
    let mut calls = Vec::new();
    for at in 0..12 {
        let mut a = Datagrams::at(A).await.towards(world.udp);
        let via = a.via();
        let request = invite(&via, a.local(), &format!("many{at}"));
        a.say(&request).await;
        let (ok, _) = answered(&mut a, &via, &mut b).await;
        calls.push((a, via, ok));
    }
    assert_eq!(world.node.sessions(), 12);
    // Each BYE by a socket of its own: the kernel gives it to any of the listener's.
    for (mut a, via, ok) in calls {
        hung_up(&mut a, &via, &ok, &mut b).await;
    }
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_calls_then_ends_the_live_ones() {
    let callee = Datagrams::at(B).await;
    let world = World::start(Plan::to(callee.local())).await;
    let mut b = callee.towards(world.udp);
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let via = a.via();
    let request = invite(&via, a.local(), "drain1");
    a.say(&request).await;
    answered(&mut a, &via, &mut b).await;
    world.node.start_drain();
    let mut late = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&late.via(), late.local(), "drain2");
    late.say(&request).await;
    late.expect("SIP/2.0 503 ").await;
    assert_eq!(world.node.sessions(), 1);
    world.node.end_drain();
    for phone in [&mut a, &mut b] {
        let bye = phone.expect("BYE ").await;
        let at = phone.local();
        phone.say(&answer(&bye, "200 OK", at)).await;
    }
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlived_its_node_is_ended_by_the_next_one() {
    let callee = Datagrams::at(B).await;
    let first = World::start(Plan::to(callee.local())).await;
    let mut b = callee.towards(first.udp);
    let mut a = Datagrams::at(A).await.towards(first.udp);
    let via = a.via();
    let request = invite(&via, a.local(), "orphan");
    a.say(&request).await;
    answered(&mut a, &via, &mut b).await;
    first.node.stop().await;
    let store = first.store;
    let open = store.open_sessions(None, 10).await.unwrap();
    assert_eq!(open.len(), 1);
    let mut plan = Plan::to(b.local());
    plan.store = Some(store);
    plan.found = open.into_iter().map(|session| session.snapshot).collect();
    plan.found.push(b"no snapshot at all".to_vec());
    let second = World::start(plan).await;
    let (mut a, mut b) = (a.towards(second.udp), b.towards(second.udp));
    for phone in [&mut a, &mut b] {
        let bye = phone.expect("BYE ").await;
        let at = phone.local();
        phone.say(&answer(&bye, "200 OK", at)).await;
    }
    let story = second.story().await;
    assert_eq!(statuses(&story), WHOLE_CALL);
    let summary = &story[7].1["payload"];
    assert_eq!(summary["sessionStatus"], "ERROR");
    assert_eq!(summary["errorDetails"]["errorCode"], -2001);
    second.calls_over().await;
    second.node.stop().await;
}
