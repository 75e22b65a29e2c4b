//! What is around the node fails; calls get an end, the node goes on.

use maskline_net::NetLimits;
use maskline_store::JournalOptions;
use maskline_switch::sip::Transport;
use tokio::net::TcpListener;

use crate::phone::{Datagrams, Phone, Stream, invite, options};
use crate::world::{A, B, Customer, PATIENCE, Plan, World, statuses};

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_that_takes_no_connection_ends_the_call_at_once() {
    // Bound and then gone: nobody listens there.
    let gone = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = Plan::to(gone.local_addr().unwrap());
    drop(gone);
    plan.outbound.0 = Transport::Tcp;
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "fault1");
    a.say(&request).await;
    a.expect("SIP/2.0 500 ").await;
    let story = world.story().await;
    assert_eq!(story.last().unwrap().1["payload"]["sessionStatus"], "ERROR");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_that_resets_its_connection_ends_the_call_at_once() {
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = Plan::to(carrier.local_addr().unwrap());
    plan.outbound.0 = Transport::Tcp;
    let world = World::start(plan).await;
    let mut a = Stream::open(A, world.tcp).await;
    let request = invite(&a.via(), a.local(), "fault2");
    a.say(&request).await;
    let (accepted, _) = tokio::time::timeout(PATIENCE, carrier.accept())
        .await
        .unwrap()
        .unwrap();
    let mut b = Stream::over(accepted);
    b.expect("INVITE ").await;
    b.reset();
    a.expect("SIP/2.0 500 ").await;
    let story = world.story().await;
    assert_eq!(
        statuses(&story),
        [
            "CALL_RECEIVED",
            "CALL_INITIATED",
            "CALL_DISCONNECTED",
            "CALL_DISCONNECTED",
            "SUMMARY"
        ]
    );
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_request_that_panics_ends_its_own_call_only() {
    let mut plan = Plan::quiet();
    plan.customer = Customer::Panics;
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "fault3");
    a.say(&request).await;
    a.expect("SIP/2.0 500 ").await;
    let story = world.story().await;
    let summary = &story.last().unwrap().1["payload"];
    assert_eq!(summary["errorDetails"]["errorCode"], -2002);
    let mut other = Datagrams::at(A).await.towards(world.udp);
    let request = options(&other.via(), "alive");
    other.say(&request).await;
    other.expect("SIP/2.0 200 ").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_takes_nothing_has_new_calls_refused_and_what_is_decided_kept() {
    let mut plan = Plan::quiet();
    plan.journal = JournalOptions {
        tail_entries: 0,
        ..JournalOptions::default()
    };
    let world = World::start(plan).await;
    // One call on each shard, held back.
    let mut held = Vec::new();
    while world.node.sessions() < 2 || held.len() < 8 {
        let mut a = Datagrams::at(A).await.towards(world.udp);
        let request = invite(&a.via(), a.local(), &format!("held{}", held.len()));
        a.say(&request).await;
        a.expect("SIP/2.0 ").await;
        held.push(a);
        assert!(held.len() < 64, "both shards get calls");
    }
    world.journal_is_down().await;
    assert_eq!(world.node.sessions(), 2, "the first call of each shard");
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "refused");
    a.say(&request).await;
    a.expect("SIP/2.0 503 ").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_can_neither_be_journalled_nor_held_back_is_refused() {
    let mut plan = Plan::quiet();
    plan.journal = JournalOptions {
        tail_entries: 0,
        ..JournalOptions::default()
    };
    plan.limits = NetLimits {
        held_commits: 0,
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let mut a = Datagrams::at(A).await.towards(world.udp);
    let request = invite(&a.via(), a.local(), "lost");
    a.say(&request).await;
    a.expect("SIP/2.0 5").await;
    world.node.stop().await;
}
