//! Messages that do not fit into one packet.

use maskline_switch::IdentityRules;
use maskline_switch::identity::CallerId;
use tokio::net::TcpListener;

use crate::calls::{answered, hung_up};
use crate::phone::{Datagrams, Phone, Stream, answer, header, in_dialog, invite, options};
use crate::world::{A, B, PATIENCE, Plan, World};

/// B's INVITE is longer than 1300 bytes.
fn talkative() -> IdentityRules {
    let domain = format!("{}.example", ["x".repeat(60).as_str(); 6].join("."));
    IdentityRules {
        caller_id: CallerId::FromAndPai,
        from_domain: Some(domain.clone()),
        pai_domain: Some(domain),
        ..IdentityRules::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_invite_to_a_udp_trunk_goes_by_tcp_and_its_call_works() {
    let mut b = Datagrams::at(B).await;
    let carrier = TcpListener::bind(b.local()).await.unwrap();
    let mut plan = Plan::to(b.local());
    plan.identity = talkative();
    let world = World::start(plan).await;
    b = b.towards(world.udp);
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let via = a.via();
    a.say(&invite(&via, a.local(), "large")).await;
    let (accepted, _) = tokio::time::timeout(PATIENCE, carrier.accept())
        .await
        .unwrap()
        .unwrap();
    let mut stream = Stream::over(accepted);
    let called = stream.expect("INVITE ").await;
    assert!(called.len() > 1_300);
    assert!(
        header(&called, "Via").starts_with("SIP/2.0/TCP "),
        "{called}"
    );
    stream.say(&answer(&called, "200 OK", b.local())).await;
    let ok = a.expect("SIP/2.0 200 ").await;
    a.say(&in_dialog("ACK", 1, &via, &ok)).await;
    // What is small goes by UDP, to the Contact.
    b.expect("ACK ").await;
    hung_up(&mut a, &via, &ok, &mut b).await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_invite_goes_by_udp_where_nobody_listens_for_tcp() {
    let callee = Datagrams::at(B).await;
    let mut plan = Plan::to(callee.local());
    plan.identity = talkative();
    let world = World::start(plan).await;
    let mut b = callee.towards(world.udp);
    for at in 0..2 {
        let mut a = Datagrams::at(A).await.towards(world.udp);
        let via = a.via();
        a.say(&invite(&via, a.local(), &format!("udponly{at}")))
            .await;
        let (ok, called) = answered(&mut a, &via, &mut b).await;
        assert!(called.len() > 1_300);
        assert!(
            header(&called, "Via").starts_with("SIP/2.0/UDP "),
            "{called}"
        );
        hung_up(&mut a, &via, &ok, &mut b).await;
    }
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_invite_can_be_given_up_on_the_stream_that_it_took() {
    let b = Datagrams::at(B).await;
    let carrier = TcpListener::bind(b.local()).await.unwrap();
    let mut plan = Plan::to(b.local());
    plan.identity = talkative();
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "givenup");
    a.say(&request).await;
    let (accepted, _) = carrier.accept().await.unwrap();
    let mut stream = Stream::over(accepted);
    let called = stream.expect("INVITE ").await;
    stream.say(&answer(&called, "180 Ringing", b.local())).await;
    a.expect("SIP/2.0 180 ").await;
    let head = request.split("\r\nContent-Type").next().unwrap();
    let cancel = head
        .replacen("INVITE ", "CANCEL ", 1)
        .replacen(" INVITE", " CANCEL", 1);
    a.say(&format!("{cancel}\r\nContent-Length: 0\r\n\r\n"))
        .await;
    a.expect("SIP/2.0 487 ").await;
    let cancel = stream.expect("CANCEL ").await;
    assert_eq!(header(&cancel, "Via"), header(&called, "Via"));
    stream.say(&answer(&cancel, "200 OK", b.local())).await;
    stream
        .say(&answer(&called, "487 Request Terminated", b.local()))
        .await;
    stream.expect("ACK ").await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_of_sixty_kilobytes_is_read() {
    let world = World::start(Plan::quiet()).await;
    let mut phone = Datagrams::at(A).await.towards(world.udp);
    let body = "x".repeat(60_000);
    let request = options(&phone.via(), "sixty").replacen(
        "Content-Length: 0\r\n\r\n",
        &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        1,
    );
    phone.say(&request).await;
    phone.expect("SIP/2.0 200 ").await;
    world.node.stop().await;
}
