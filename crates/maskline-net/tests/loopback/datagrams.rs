//! SIP over UDP.

use std::time::Duration;

use maskline_net::NetLimits;

use crate::phone::{Datagrams, Phone, options};
use crate::world::{A, PATIENCE, Plan, STRANGER, World};

#[tokio::test(flavor = "multi_thread")]
async fn an_options_is_answered_to_where_it_came_from() {
    let world = World::start(Plan::quiet()).await;
    let mut phone = Datagrams::at(A).await.towards(world.udp);
    let request = options(&phone.via(), "o1");
    phone.say(&request).await;
    let response = phone.expect("SIP/2.0 200 ").await;
    let port = phone.local().port();
    assert!(response.contains(&format!("rport={port}")), "{response}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_hears_nothing_at_all() {
    let world = World::start(Plan::quiet()).await;
    let mut stranger = Datagrams::at(STRANGER).await.towards(world.udp);
    let request = options(&stranger.via(), "o2");
    stranger.say(&request).await;
    stranger.say("OPTIONS sip:#;:: SIP/2.0\r\n\r\n").await;
    // Both sockets of the listener have answered someone else by then.
    for at in 0..16 {
        let mut phone = Datagrams::at(A).await.towards(world.udp);
        let request = options(&phone.via(), &format!("k{at}"));
        phone.say(&request).await;
        phone.expect("SIP/2.0 200 ").await;
    }
    let silence = tokio::time::timeout(Duration::from_millis(100), stranger.hear()).await;
    assert!(silence.is_err(), "{silence:?}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_refused_with_400() {
    let world = World::start(Plan::quiet()).await;
    let mut phone = Datagrams::at(A).await.towards(world.udp);
    let broken = options(&phone.via(), "o3").replacen("sip:", "sip:#;::", 1);
    phone.say(&broken).await;
    phone.expect("SIP/2.0 400 Bad Request").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_and_noise_leaves_the_node_answering() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        shard_queue: 4,
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    for source in [A, STRANGER] {
        let flooder = Datagrams::at(source).await.towards(world.udp);
        for at in 0..3_000 {
            let request = options(&flooder.via(), &format!("f{at}"));
            flooder.say_bytes(request.as_bytes()).await;
            flooder.say_bytes(&[0xff; 1_400]).await;
            flooder
                .say_bytes(b"INVITE sip:x SIP/2.0\r\nVia: ;;;\r\n\r\n")
                .await;
        }
    }
    // As any sender on UDP: until an answer comes. Who is to come back later, does.
    let mut phone = Datagrams::at(A).await.towards(world.udp);
    let asking = async {
        for at in 0.. {
            let request = options(&phone.via(), &format!("after{at}"));
            phone.say(&request).await;
            match tokio::time::timeout(Duration::from_millis(200), phone.hear()).await {
                Ok(answer) if !answer.starts_with("SIP/2.0 503 ") => return answer,
                Ok(_) | Err(_) => {}
            }
        }
        unreachable!("it is asked until it is answered")
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_share_of_a_queue_a_trunk_hears_503_with_retry_after_at_once() {
    let mut plan = Plan::quiet();
    plan.limits = NetLimits {
        shard_queue: 4,
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut phone = Datagrams::at(A).await.towards(world.udp);
    let asking = async {
        for at in 0.. {
            // More at once than a shard takes between two looks at the socket.
            for one in 0..64 {
                let request = options(&phone.via(), &format!("burst{at}.{one}"));
                phone.say_bytes(request.as_bytes()).await;
            }
            while let Ok(answer) =
                tokio::time::timeout(Duration::from_millis(50), phone.hear()).await
            {
                if answer.starts_with("SIP/2.0 503 ") {
                    return answer;
                }
                assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
            }
        }
        unreachable!("it is asked until it is refused")
    };
    let refusal = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    assert!(refusal.contains("\r\nRetry-After: 5\r\n"), "{refusal}");
    world.node.stop().await;
}
