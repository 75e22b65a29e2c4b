//! What keeps ways open, and what notices that one is not.

use std::time::Duration;

use maskline_net::NetLimits;
use maskline_switch::Keepalive;
use maskline_switch::sip::Transport;
use maskline_switch::sip::framing::Frame;
use tokio::net::TcpListener;

use crate::phone::{Datagrams, Phone, Stream, answer, header, invite, options};
use crate::world::{A, B, PATIENCE, Plan, World};

fn every(millis: u64) -> Keepalive {
    Keepalive {
        crlf: Some(Duration::from_millis(millis)),
        ..Keepalive::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_udp_trunk_is_pinged_and_a_ping_of_a_peer_on_udp_is_not_answered() {
    let callee = Datagrams::at(B).await;
    let mut plan = Plan::to(callee.local());
    plan.keepalive = every(50);
    let world = World::start(plan).await;
    let mut b = callee.towards(world.udp);
    for _ in 0..3 {
        assert_eq!(b.hear().await, "\r\n\r\n");
    }
    let mut a = Datagrams::at(A).await.towards(world.udp);
    a.say("\r\n\r\n").await;
    a.say(&options(&a.via(), "after")).await;
    assert!(a.hear().await.starts_with("SIP/2.0 200 "));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_connection_is_pinged_and_ended_when_a_pong_is_missing() {
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = Plan::to(carrier.local_addr().unwrap());
    plan.outbound.0 = Transport::Tcp;
    plan.keepalive = every(50);
    plan.limits = NetLimits {
        pong: Duration::from_secs(2),
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "pinged");
    a.say(&request).await;
    let (accepted, _) = tokio::time::timeout(PATIENCE, carrier.accept())
        .await
        .unwrap()
        .unwrap();
    let mut b = Stream::over(accepted);
    let (mut pings, mut refused) = (0, false);
    while pings < 3 || !refused {
        match tokio::time::timeout(PATIENCE, b.frame()).await.unwrap() {
            Frame::Ping => {
                pings += 1;
                b.say("\r\n").await;
            }
            Frame::Message(message) => {
                let message = String::from_utf8(message.to_vec()).unwrap();
                if message.starts_with("INVITE ") {
                    let at = b.local();
                    b.say(&answer(&message, "486 Busy Here", at)).await;
                }
                refused |= message.starts_with("ACK ");
            }
            Frame::Pong => {}
        }
    }
    a.expect("SIP/2.0 486 ").await;
    // The next ping is not answered.
    b.is_closed().await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_trunk_serves_all_its_calls_and_a_lost_one_is_made_again() {
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = Plan::to(carrier.local_addr().unwrap());
    plan.outbound.0 = Transport::Tcp;
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let mut b: Option<Stream> = None;
    for at in 0..4 {
        if at == 2 {
            b = None;
        }
        let request = invite(&a.via(), a.local(), &format!("kept{at}"));
        a.say(&request).await;
        let mut stream = match b.take() {
            Some(stream) => stream,
            None => Stream::over(carrier.accept().await.unwrap().0),
        };
        let called = stream.expect("INVITE ").await;
        let local = stream.local();
        stream.say(&answer(&called, "486 Busy Here", local)).await;
        stream.expect("ACK ").await;
        let refused = a.expect("SIP/2.0 486 ").await;
        assert_eq!(header(&refused, "Call-ID"), format!("kept{at}"));
        b = Some(stream);
    }
    world.calls_over().await;
    world.node.stop().await;
}
