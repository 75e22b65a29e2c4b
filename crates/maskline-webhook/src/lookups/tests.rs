//! Lookups step by step over a resolver that answers when it is told, and through the client.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use maskline_events::WebhookType;
use maskline_store::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::client::{Answer as Answered, EgressClient, Post, SendError, Target};
use crate::egress::EgressPolicy;
use crate::network::Later;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
type Found = io::Result<Vec<IpAddr>>;

/// Names that begin with `dead` get an answer when the test gives one, all others at once.
#[derive(Debug, Default)]
struct Resolver {
    asked: Mutex<Vec<String>>,
    silent: Mutex<BTreeMap<String, oneshot::Sender<Found>>>,
    /// Where all connections lead.
    port: u16,
}

impl Resolver {
    fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|it| *it == name).count()
    }

    fn answer(&self, name: &str, found: Found) {
        let waits = self.silent.lock().unwrap().remove(name);
        waits.unwrap().send(found).unwrap();
    }
}

impl Network for Resolver {
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.clone());
        if !name.starts_with("dead") {
            return Box::pin(std::future::ready(Ok(vec![ADDRESS])));
        }
        let (answer, answered) = oneshot::channel();
        let before = self.silent.lock().unwrap().insert(name, answer);
        assert!(before.is_none(), "asked for twice at once");
        Box::pin(async move { answered.await.expect("the resolver gives up, badly") })
    }

    fn connect(&self, _to: SocketAddr) -> Later<TcpStream> {
        Box::pin(TcpStream::connect((ADDRESS, self.port)))
    }
}

struct World {
    lookups: Lookups,
    resolver: Arc<Resolver>,
}

impl World {
    fn new(most: usize) -> Self {
        Self {
            lookups: Lookups::new(most),
            resolver: Arc::default(),
        }
    }

    /// A request of this webhook that waits for a place for two seconds.
    fn resolve(
        &self,
        webhook: &str,
        name: &str,
    ) -> impl Future<Output = Result<Arc<[IpAddr]>, LookupFault>> + Send + use<> {
        let (lookups, name) = (self.lookups.clone(), name.to_owned());
        let network = Arc::clone(&self.resolver) as Arc<dyn Network>;
        let owner = Owner::new(Arc::from(webhook), Duration::from_secs(30));
        async move {
            let found = lookups.resolve(&network, &name, &owner);
            let found = timeout(Duration::from_secs(60), found).await;
            found.expect("it waits for no longer than its request may")
        }
    }

    /// The same, of a request that is given up at once.
    async fn abandon(&self, webhook: &str, name: &str) {
        let mut asking = pin!(self.resolve(webhook, name));
        let answered = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_ready())).await;
        assert!(!answered);
    }

    fn is_idle(&self) -> bool {
        let table = self.lookups.lock();
        table.under_way.is_empty() && table.owners.is_empty() && self.lookups.under_way() == 0
    }
}

fn found() -> Result<Arc<[IpAddr]>, LookupFault> {
    Ok(Arc::from([ADDRESS]))
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_name_that_is_being_resolved_gets_the_same_answer() {
    let world = World::new(8);
    world.abandon("a", "dead").await;
    let mut asking = JoinSet::new();
    for webhook in ["a", "b", "b", "c", "c", "c"] {
        asking.spawn(world.resolve(webhook, "dead"));
    }
    tokio::task::yield_now().await;
    assert_eq!(world.resolver.asked("dead"), 1);
    assert_eq!(world.lookups.under_way(), 1);
    let counted = world.lookups.lock().owners.clone();
    assert_eq!(
        counted,
        BTreeMap::from([(Arc::from("a"), 1)]),
        "for nobody else"
    );
    world.resolver.answer("dead", Ok(vec![ADDRESS]));
    assert_eq!(asking.join_all().await, vec![found(); 6]);
    assert!(world.is_idle());
    // What was said then is not said again.
    let again = tokio::spawn(world.resolve("d", "dead"));
    tokio::task::yield_now().await;
    assert_eq!(world.resolver.asked("dead"), 2);
    let none = io::Error::other("no such name");
    world.resolver.answer("dead", Err(none));
    assert_eq!(again.await.unwrap(), Err(LookupFault::Unresolved));
    assert!(world.is_idle());
}

#[tokio::test(start_paused = true)]
async fn lookups_that_hang_keep_places_of_their_webhook_s_and_of_no_other() {
    let world = World::new(8);
    for name in ["dead1", "dead2"] {
        world.abandon("a", name).await;
    }
    // Nobody waits for them, and they count.
    let began = Instant::now();
    for name in ["dead3", "well"] {
        assert_eq!(world.resolve("a", name).await, Err(LookupFault::Full));
    }
    assert_eq!(began.elapsed(), Duration::from_secs(4));
    assert_eq!(world.resolver.asked("dead3"), 0);
    assert_eq!(world.resolve("b", "well").await, found());
    // A second one costs nobody their first: half is left.
    for webhook in ["b", "c"] {
        world.abandon(webhook, &format!("dead-{webhook}")).await;
    }
    assert_eq!(world.resolve("b", "well").await, Err(LookupFault::Full));
    for webhook in ["d", "e", "f", "g"] {
        world.abandon(webhook, &format!("dead-{webhook}")).await;
    }
    assert_eq!(world.lookups.under_way(), 8);
    assert_eq!(world.resolve("h", "well").await, Err(LookupFault::Full));
    world.resolver.answer("dead1", Ok(Vec::new()));
    assert_eq!(world.resolve("h", "well").await, found());
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_gets_the_next_that_is_free_or_none_in_half_of_its_deadline() {
    let world = World::new(1);
    world.abandon("a", "dead").await;
    let began = Instant::now();
    let hasty = Owner::new(Arc::from("b"), Duration::from_millis(100));
    let network = Arc::clone(&world.resolver) as Arc<dyn Network>;
    let none = world.lookups.resolve(&network, "well", &hasty).await;
    assert_eq!(none, Err(LookupFault::Full));
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    let waits = tokio::spawn(world.resolve("b", "well"));
    sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished());
    world.resolver.answer("dead", Ok(Vec::new()));
    assert_eq!(waits.await.unwrap(), found());
    assert_eq!(began.elapsed(), Duration::from_millis(1_050));
    assert!(world.is_idle());
}

#[tokio::test(start_paused = true)]
async fn names_that_are_slow_leave_half_to_those_that_are_not() {
    let world = World::new(4);
    let names: Vec<String> = (0..4).map(|n| format!("dead{n}")).collect();
    for name in &names {
        world.abandon(name, name).await;
    }
    let now = world.resolve("new", "well").await;
    assert_eq!(now, Err(LookupFault::Full), "nobody knew of any");
    for name in &names {
        world
            .resolver
            .answer(name, Err(io::Error::other("timed out")));
    }
    tokio::task::yield_now().await;
    assert!(world.is_idle());
    for name in &names[..2] {
        world.abandon(name, name).await;
    }
    assert_eq!(world.resolve("x", "dead3").await, Err(LookupFault::Full));
    assert_eq!(world.resolve("new", "well").await, found());
    // One that is quick once is slow no more.
    world.resolver.answer("dead0", Ok(vec![ADDRESS]));
    tokio::task::yield_now().await;
    world.abandon("x", "dead3").await;
    world.resolver.answer("dead3", Ok(vec![ADDRESS]));
    tokio::task::yield_now().await;
    assert_eq!(world.lookups.under_way(), 1);
    for webhook in ["x", "y"] {
        world.abandon(webhook, &format!("dead-{webhook}")).await;
    }
    world.abandon("z", "dead3").await;
    let slow = world.lookups.lock().slow.clone();
    assert_eq!(slow, ["dead0", "dead1", "dead2"].map(Arc::from).into());
}

#[test]
fn no_more_slow_names_are_remembered_than_there_is_room_for() {
    let mut table = Table::default();
    for n in 0..2 * MAX_SLOW {
        table.remember(&Arc::from(n.to_string()), SLOW);
    }
    assert_eq!(table.slow.len(), MAX_SLOW);
}

#[tokio::test]
async fn a_lookup_that_panics_gives_its_place_back() {
    let world = World::new(1);
    let asking = tokio::spawn(world.resolve("a", "dead"));
    tokio::task::yield_now().await;
    drop(world.resolver.silent.lock().unwrap().remove("dead"));
    assert_eq!(asking.await.unwrap(), Err(LookupFault::Unresolved));
    assert!(world.is_idle());
}

/// A server that answers each request, and a client of which names with it.
async fn served() -> (EgressClient, Arc<Resolver>) {
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                while let Ok(1..) = tcp.read(&mut buffer).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    tcp.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let resolver = Arc::new(Resolver {
        port,
        ..Resolver::default()
    });
    let policy = EgressPolicy {
        allow_private_targets: true,
    };
    let client = EgressClient::over(Arc::clone(&resolver) as _, policy, &[]).unwrap();
    (client, resolver)
}

fn post(
    client: &EgressClient,
    sub_account: &str,
    name: &str,
    deadline: Duration,
) -> impl Future<Output = Result<Answered, SendError>> + Send + use<> {
    let endpoint = Endpoint {
        url: format!("http://{name}/"),
        ..Endpoint::default()
    };
    let target = Target::new(endpoint, client.policy()).unwrap();
    let target = target.owned_by(sub_account, WebhookType::Vca);
    let post = Post {
        event_id: Uuid::nil(),
        body: Bytes::from_static(b"{}"),
        gap: false,
        unix_seconds: 0,
    };
    client.post(&target, post, 100, deadline)
}

#[tokio::test]
async fn a_tenant_whose_name_servers_are_silent_keeps_no_other_from_a_connection() {
    let (client, resolver) = served().await;
    let (short, long) = (Duration::from_millis(1), Duration::from_secs(30));
    let apart = client.apart(Arc::clone(&resolver) as _);
    let mut hung = JoinSet::new();
    for _ in 0..2 * MAX_LOOKUPS {
        hung.spawn(post(&client, "a", "dead1", short));
    }
    for late in hung.join_all().await {
        assert!(matches!(late, Err(SendError::Timeout(_))), "{late:?}");
    }
    // It moves, and moves again: that is its own affair, and is called what it is.
    let moved = post(&client, "a", "dead2", short).await;
    assert!(matches!(moved, Err(SendError::Timeout(_))), "{moved:?}");
    assert_eq!(client.lookups(), 2);
    let moved = post(&client, "a", "dead3", Duration::from_millis(100)).await;
    assert!(matches!(moved, Err(SendError::Full)), "{moved:?}");
    for n in 0..2 * MAX_LOOKUPS {
        let answer = post(&client, "b", &format!("well{n}"), long).await;
        assert_eq!(answer.unwrap().status, 200);
    }
    // Those of another client are counted with them and are no obstacle to either.
    let answer = post(&apart, "a", "well", long).await;
    assert_eq!(answer.unwrap().status, 200);
    let late = post(&apart, "a", "dead4", short).await;
    assert!(matches!(late, Err(SendError::Timeout(_))), "{late:?}");
    assert_eq!((client.lookups(), apart.lookups()), (3, 3));
}
