//! SIP over TCP: framing, limits, ends.

use std::time::{Duration, Instant};

use maskline_net::NetLimits;

use crate::phone::{Phone, Stream, header, options};
use crate::world::{A, PATIENCE, Plan, STRANGER, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_understood_wherever_its_stream_is_split() {
    let world = World::start(Plan::quiet()).await;
    let mut phone = Stream::open(A, world.tcp).await;
    let request = options(&phone.via(), "bytewise");
    for byte in request.as_bytes() {
        phone.say_bytes(&[*byte]).await.unwrap();
    }
    phone.expect("SIP/2.0 200 ").await;
    for at in (1..request.len()).step_by(7) {
        let call_id = format!("split{at}");
        let request = options(&phone.via(), &call_id);
        let (head, tail) = request.split_at(at);
        phone.say(head).await;
        tokio::task::yield_now().await;
        phone.say(tail).await;
        let response = phone.expect("SIP/2.0 200 ").await;
        assert_eq!(header(&response, "Call-ID"), call_id);
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_in_one_write_get_two_answers_and_a_ping_gets_its_pong() {
    let world = World::start(Plan::quiet()).await;
    let mut phone = Stream::open(A, world.tcp).await;
    phone.say("\r\n\r\n").await;
    assert_eq!(phone.hear_bytes(2).await, b"\r\n");
    let both = options(&phone.via(), "one") + &options(&phone.via(), "two");
    phone.say(&both).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(header(&phone.expect("SIP/2.0 200 ").await, "Call-ID"));
    }
    answered.sort();
    assert_eq!(answered, ["one", "two"]);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_within_a_message_leaves_the_others_alone() {
    let world = World::start(Plan::quiet()).await;
    let mut staying = Stream::open(A, world.tcp).await;
    let mut leaving = Stream::open(A, world.tcp).await;
    let request = options(&leaving.via(), "half");
    leaving.say(&request[..request.len() / 2]).await;
    drop(leaving);
    let request = options(&staying.via(), "whole");
    staying.say(&request).await;
    staying.expect("SIP/2.0 200 ").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_framed_is_closed_and_a_message_that_is_no_sip_is_not() {
    let world = World::start(Plan::quiet()).await;
    for noise in [
        &[b'x'; 40_000][..],
        b"OPTIONS sip:a SIP/2.0\r\nTo: x\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 99999999\r\n\r\n",
    ] {
        let mut hostile = Stream::open(A, world.tcp).await;
        // The other side may have closed before everything was taken.
        let _ = hostile.say_bytes(noise).await;
        hostile.is_closed().await;
    }
    let mut phone = Stream::open(A, world.tcp).await;
    let broken = options(&phone.via(), "broken").replacen("sip:", "sip:#;::", 1);
    phone.say(&broken).await;
    phone.expect("SIP/2.0 400 Bad Request").await;
    let request = options(&phone.via(), "good");
    phone.say(&request).await;
    phone.expect("SIP/2.0 200 ").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_connections_above_the_limit_are_closed_and_a_place_is_free_again() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        connections_per_address: 2,
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut stranger = Stream::open(STRANGER, world.tcp).await;
    stranger.is_closed().await;
    let mut kept = Vec::new();
    for at in 0..2 {
        let mut phone = Stream::open(A, world.tcp).await;
        let request = options(&phone.via(), &format!("kept{at}"));
        phone.say(&request).await;
        phone.expect("SIP/2.0 200 ").await;
        kept.push(phone);
    }
    for _ in 0..20 {
        Stream::open(A, world.tcp).await.is_closed().await;
    }
    kept.pop();
    loop {
        let mut phone = Stream::open(A, world.tcp).await;
        let request = options(&phone.via(), "again");
        // Until the node has seen that a place is free, it closes this one too.
        if phone.say_bytes(request.as_bytes()).await.is_ok()
            && let Ok(answer) = tokio::spawn(async move { phone.hear().await }).await
        {
            assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
            break;
        }
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_brings_no_whole_message_is_closed_in_the_end() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        idle: Duration::from_millis(200),
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut phone = Stream::open(A, world.tcp).await;
    phone.say("OPTIONS sip:slow SIP/2.0\r\n").await;
    phone.is_closed().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_begun_and_not_ended_closes_its_connection_and_a_resting_one_stays() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        message: Duration::from_millis(200),
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut resting = Stream::open(A, world.tcp).await;
    let request = options(&resting.via(), "resting");
    resting.say(&request).await;
    resting.expect("SIP/2.0 200 ").await;
    // Half a ping begins no message.
    resting.say("\r\n").await;
    let mut halving = Stream::open(A, world.tcp).await;
    let request = options(&halving.via(), "halving");
    halving.say(&request).await;
    halving.expect("SIP/2.0 200 ").await;
    halving.say("OPTIONS sip:slow SIP/2.0\r\n").await;
    halving.is_closed().await;
    let request = options(&resting.via(), "rested");
    resting.say(&request).await;
    resting.expect("SIP/2.0 200 ").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_and_never_reads_stops_only_itself() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        connection_queue: 8,
        write: Duration::from_millis(200),
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut phone = Stream::open(A, world.tcp).await;
    // One is answered by a shard, the other by the connection itself.
    for broken in [false, true] {
        let mut deaf = Stream::open(A, world.tcp).await;
        let mut request = options(&deaf.via(), "deaf");
        if broken {
            request = request.replacen("sip:", "sip:#;::", 1);
        }
        let requests = request.repeat(100);
        // Until the node has closed.
        let asking = async { while deaf.say_bytes(requests.as_bytes()).await.is_ok() {} };
        let asking = tokio::time::timeout(PATIENCE, asking);
        let other = async {
            let mut answered = 0;
            let deadline = Instant::now() + PATIENCE;
            for at in 0.. {
                let request = options(&phone.via(), &format!("hearing{broken}{at}"));
                phone.say(&request).await;
                let answer = phone.expect("SIP/2.0 ").await;
                // It shares its trunk's part of the queue with the other: who is to come back
                // later, does.
                if answer.starts_with("SIP/2.0 200 ") {
                    answered += 1;
                } else {
                    assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
                    assert!(Instant::now() < deadline, "{answered} were answered");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if answered == 20 {
                    break;
                }
            }
        };
        let (closed, ()) = tokio::join!(asking, other);
        closed.unwrap();
    }
    world.node.stop().await;
}
