//! Places step by step, and real connections on loopback.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use maskline_events::WebhookType;
use maskline_store::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::client::{Answer, EgressClient, Post, SendError, Target};
use crate::egress::EgressPolicy;
use crate::network::{Later, Network, SystemNetwork};

fn name(owner: &str) -> Arc<str> {
    Arc::from(owner)
}

/// Takes as many as there are for one owner.
fn all(connections: &Connections, owner: &str) -> Vec<Place> {
    std::iter::from_fn(|| connections.try_take(&name(owner))).collect()
}

/// The answer over it is whole.
fn rest(place: &Place) {
    place.seat.rest(place.seat.writes());
}

fn is_given_up(place: &mut Place) -> bool {
    place.ended.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

#[test]
fn the_more_a_webhook_uses_the_more_must_be_free() {
    let connections = Connections::new(160);
    let held: Vec<Vec<Place>> = ["a", "b", "c", "d"]
        .map(|owner| all(&connections, owner))
        .into();
    let counts: Vec<usize> = held.iter().map(Vec::len).collect();
    assert_eq!(counts, [80, 10, 10, 10]);
    let more: Vec<Vec<Place>> = (0..20)
        .map(|n| all(&connections, &format!("more{n}")))
        .collect();
    let counts: Vec<usize> = more.iter().map(Vec::len).collect();
    assert_eq!(counts[..4], [10, 4, 4, 4]);
    assert_eq!(counts.iter().sum::<usize>(), 50, "all 160 in all");
    drop(held);
    assert_eq!(all(&connections, "a").len(), 30);
    drop(more);
    assert!(connections.lock().owners.is_empty() && connections.lock().open.is_empty());
}

#[test]
fn another_address_of_a_name_is_tried_beside_the_first_only_while_half_is_free() {
    let connections = Connections::new(16);
    let mut held: Vec<Place> = (0..7)
        .map(|n| connections.try_take(&name(&format!("w{n}"))).unwrap())
        .collect();
    held.extend(connections.try_take_another(&name("w0")));
    assert_eq!(held.len(), 8);
    assert!(connections.try_take_another(&name("w0")).is_none());
    assert!(connections.try_take_another(&name("w9")).is_none());
    assert!(connections.try_take(&name("w0")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nothing_is_asked_over_is_kept_after_a_second() {
    let connections = Connections::new(8);
    let [unused, used] = ["a", "b"].map(|it| connections.try_take(&name(it)).unwrap());
    let resting = [&unused, &used].map(|it| tokio::spawn(it.seat.clone().rest_unless_used()));
    tokio::task::yield_now().await;
    assert!(used.seat.begin());
    for resting in resting {
        resting.await.unwrap();
    }
    let levels = connections.levels();
    assert_eq!((levels.used, levels.kept), (1, 1));
    assert!(connections.lock().owners.contains_key("b"));
    assert!(unused.seat.begin(), "its first request goes out over it");
    assert_eq!(connections.levels().kept, 0);
}

#[test]
fn what_is_kept_gives_way_one_of_its_own_first_and_then_the_oldest() {
    let connections = Connections::new(8);
    let of = |owner: &str| connections.try_take(&name(owner)).unwrap();
    let mut kept = [of("a"), of("b"), of("a"), of("b"), of("c"), of("c")];
    for place in &kept {
        rest(place);
    }
    let busy = [of("c"), of("a")];
    let given_up =
        |kept: &mut [Place; 6]| -> Vec<bool> { kept.iter_mut().map(is_given_up).collect() };
    assert_eq!(given_up(&mut kept), [false; 6]);
    let mut held = vec![of("b")];
    assert_eq!(
        given_up(&mut kept),
        [false, true, false, false, false, false]
    );
    held.push(of("d"));
    assert_eq!(
        given_up(&mut kept),
        [true, true, false, false, false, false]
    );
    assert!(kept[2].seat.begin(), "one that is used again");
    held.extend([of("a"), of("d")]);
    assert_eq!(given_up(&mut kept), [true, true, false, true, true, false]);
    held.push(of("d"));
    assert_eq!(given_up(&mut kept), [true, true, false, true, true, true]);
    for place in &kept {
        let lost = !place.seat.begin();
        assert_eq!(lost, place.seat.0.id != kept[2].seat.0.id);
    }
    assert!(
        connections.try_take(&name("e")).is_none(),
        "what is used never does"
    );
    drop(busy);
    assert!(connections.try_take(&name("e")).is_some());
    drop((held, kept));
    let table = connections.lock();
    assert!(table.open.is_empty() && table.owners.is_empty());
    assert!(table.kept.is_empty() && table.kept_of.is_empty());
}

#[test]
fn a_connection_over_which_the_next_request_went_out_is_not_kept() {
    let connections = Connections::new(8);
    let place = connections.try_take(&name("a")).unwrap();
    assert!(place.seat.begin());
    let writes = place.seat.writes();
    assert!(place.seat.begin());
    place.seat.rest(writes);
    assert!(connections.lock().kept.is_empty());
    rest(&place);
    rest(&place);
    assert_eq!(connections.lock().kept.len(), 1);
    assert!(connections.lock().owners.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_finds_none_waits_for_two_seconds_and_is_served_when_one_is_free() {
    let connections = Connections::new(1);
    let owner = |webhook| Owner::new(name(webhook), Duration::from_secs(10));
    let only = connections.take(&owner("a")).await.unwrap();
    let began = Instant::now();
    let hasty = Owner::new(name("b"), Duration::from_millis(100));
    assert!(matches!(connections.take(&hasty).await, Err(Full)));
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    let began = Instant::now();
    assert!(matches!(connections.take(&owner("b")).await, Err(Full)));
    assert_eq!(began.elapsed(), WAIT);
    let waits = tokio::spawn({
        let connections = connections.clone();
        let owner = owner("b");
        async move { connections.take(&owner).await.map(drop) }
    });
    sleep(WAIT / 2).await;
    rest(&only);
    assert_eq!(waits.await.unwrap(), Ok(()));
    assert_eq!(began.elapsed(), WAIT + WAIT / 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_waits_for_has_one_end() {
    let connections = Connections::new(1);
    let owner = Owner::new(name("b"), Duration::from_secs(3));
    let only = connections.try_take(&name("a"));
    let began = Instant::now();
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(connections.take(&owner).await, Err(Full)));
    assert!(matches!(connections.take(&owner).await, Err(Full)));
    assert_eq!(began.elapsed(), Duration::from_millis(1_500));
    drop(only);
    assert!(connections.take(&owner).await.is_ok(), "there is one");
}

/// A socket whose buffers are small, so that there is soon no room for more.
fn small() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.set_send_buffer_size(4_096).unwrap();
    socket
}

fn small_listener() -> TcpListener {
    let socket = small();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(8).unwrap()
}

/// More than any of their buffers hold.
const MUCH: usize = 4 << 20;

#[tokio::test]
async fn a_write_that_is_not_taken_within_thirty_seconds_fails_however_little_is_read_meanwhile() {
    let listener = small_listener();
    let place = Connections::new(1).try_take(&name("a")).unwrap();
    let to = listener.local_addr().unwrap();
    let (tcp, accepted) = tokio::join!(small().connect(to), listener.accept());
    let mut stream = place.filled(tcp.unwrap());
    let (mut peer, _) = accepted.unwrap();
    tokio::time::pause();
    let began = Instant::now();
    let much = vec![0; MUCH];
    let reads = async {
        let mut buffer = vec![0; 10_000];
        loop {
            sleep(Duration::from_secs(1)).await;
            peer.read_exact(&mut buffer).await.unwrap();
        }
    };
    tokio::select! {
        written = stream.write_all(&much) => {
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        () = reads => {}
        () = sleep(STALLED * 4) => panic!("it goes on"),
    }
    // The wheel of timers is a millisecond coarse.
    assert_eq!(began.elapsed().as_secs(), STALLED.as_secs());
}

#[tokio::test]
async fn a_write_that_is_taken_in_time_leaves_as_long_for_the_next() {
    let listener = small_listener();
    let place = Connections::new(1).try_take(&name("a")).unwrap();
    let to = listener.local_addr().unwrap();
    let (tcp, accepted) = tokio::join!(small().connect(to), listener.accept());
    let mut stream = place.filled(tcp.unwrap());
    let (mut peer, _) = accepted.unwrap();
    tokio::time::pause();
    let much = vec![0; MUCH];
    for _ in 0..3 {
        let reads = async {
            sleep(STALLED / 2).await;
            let mut buffer = vec![0; MUCH];
            peer.read_exact(&mut buffer).await.unwrap();
        };
        let both = async { tokio::join!(stream.write_all(&much), reads).0 };
        timeout(STALLED, both).await.unwrap().unwrap();
    }
}

/// Leads every connection to one server, over a socket with small buffers.
#[derive(Debug)]
struct Small(std::net::SocketAddr);

impl Network for Small {
    fn resolve(&self, _name: String) -> Later<Vec<std::net::IpAddr>> {
        Box::pin(std::future::ready(Ok(vec![self.0.ip()])))
    }

    fn connect(&self, _to: std::net::SocketAddr) -> Later<TcpStream> {
        Box::pin(small().connect(self.0))
    }
}

#[tokio::test]
async fn a_server_that_stops_reading_has_no_connection_half_a_minute_later() {
    let listener = small_listener();
    let to = listener.local_addr().unwrap();
    let client = EgressClient::over(Arc::new(Small(to)), OPEN, &[]).unwrap();
    let host = Host {
        url: "http://hook.example/".to_owned(),
        open: Arc::default(),
        requests: Arc::default(),
    };
    let much = vec![b' '; MUCH];
    let request = tokio::spawn(post_body(&client, "a", &host, much, STALLED / 2));
    let (_peer, _) = listener.accept().await.unwrap();
    tokio::time::pause();
    let began = Instant::now();
    let late = request.await.unwrap();
    assert!(matches!(late, Err(SendError::Timeout(_))), "{late:?}");
    assert_eq!(client.connections().used, 1, "it is being flushed");
    while client.connections().used > 0 {
        assert!(began.elapsed() < STALLED * 2, "it stays");
        sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= STALLED + Duration::from_secs(1));
}

/// A server on loopback that answers each request, or none.
struct Host {
    url: String,
    open: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Host {
    async fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            open: Arc::default(),
            requests: Arc::default(),
        };
        let (open, requests) = (Arc::clone(&host.open), Arc::clone(&host.requests));
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (open, requests) = (Arc::clone(&open), Arc::clone(&requests));
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    let mut buffer = vec![0; 4_096];
                    while let Ok(1..) = tcp.read(&mut buffer).await {
                        requests.fetch_add(1, Ordering::SeqCst);
                        if answers {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            tcp.write_all(answer).await.unwrap();
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        host
    }
}

const OPEN: EgressPolicy = EgressPolicy {
    allow_private_targets: true,
};

fn post(
    client: &EgressClient,
    owner: &str,
    host: &Host,
) -> impl Future<Output = Result<Answer, SendError>> + Send + use<> {
    let deadline = Duration::from_secs(30);
    post_body(client, owner, host, b"{}".to_vec(), deadline)
}

fn post_body(
    client: &EgressClient,
    owner: &str,
    host: &Host,
    body: Vec<u8>,
    deadline: Duration,
) -> impl Future<Output = Result<Answer, SendError>> + Send + use<> {
    let endpoint = Endpoint {
        url: host.url.clone(),
        ..Endpoint::default()
    };
    let target = Target::new(endpoint, &OPEN).unwrap();
    let target = target.owned_by(owner, WebhookType::Vcs);
    let post = Post {
        event_id: Uuid::nil(),
        body: Bytes::from(body),
        gap: false,
        unix_seconds: 0,
    };
    client.post(&target, post, 100, deadline)
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let ends = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < ends, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn connections_to_one_host_after_the_other_are_never_more_than_there_may_be() {
    let client = EgressClient::at_most(4, OPEN).unwrap();
    let mut hosts = Vec::new();
    for _ in 0..20 {
        hosts.push(Host::start(true).await);
    }
    for round in 1..=2 {
        for host in &hosts {
            assert_eq!(post(&client, "a", host).await.unwrap().status, 200);
            assert_eq!(post(&client, "a", host).await.unwrap().status, 200);
        }
        let requests = |host: &Host| host.requests.load(Ordering::SeqCst);
        assert!(hosts.iter().all(|host| requests(host) == 2 * round));
    }
    let open = || hosts.iter().map(|host| host.open.load(Ordering::SeqCst));
    until("four are left", || open().sum::<usize>() == 4).await;
    let left: Vec<usize> = open().collect();
    assert_eq!(left[16..], [1; 4], "those that were used last: {left:?}");
}

#[tokio::test]
async fn clients_apart_count_together() {
    let client = EgressClient::at_most(4, OPEN).unwrap();
    let other = client.apart(Arc::new(SystemNetwork::default()));
    let mut hosts = Vec::new();
    for n in 0..8 {
        let host = Host::start(true).await;
        let by = if n < 4 { &client } else { &other };
        post(by, "a", &host).await.unwrap();
        hosts.push(host);
    }
    let open = || hosts.iter().map(|host| host.open.load(Ordering::SeqCst));
    until("four are left", || open().sum::<usize>() == 4).await;
    assert_eq!(open().skip(4).sum::<usize>(), 4);
    for client in [&client, &other] {
        let levels = client.connections();
        assert_eq!((levels.used, levels.kept), (0, 4));
    }
}

#[tokio::test]
async fn requests_of_one_webhook_that_hang_keep_another_from_no_connection() {
    let client = EgressClient::at_most(16, OPEN).unwrap();
    let (hangs, well) = (Host::start(false).await, Host::start(true).await);
    let mut hung = JoinSet::new();
    for _ in 0..40 {
        hung.spawn(post(&client, "a", &hangs));
    }
    until("half are in use", || hangs.open.load(Ordering::SeqCst) == 8).await;
    for _ in 0..50 {
        let (one, other) = tokio::join!(post(&client, "b", &well), post(&client, "b", &well));
        assert_eq!((one.unwrap().status, other.unwrap().status), (200, 200));
    }
    // The rest fails for want of a connection, and only they.
    for _ in 0..32 {
        let error = hung.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, SendError::Full), "{error}");
    }
    assert_eq!(hangs.open.load(Ordering::SeqCst), 8);
    drop(hung);
    until("all are closed", || hangs.open.load(Ordering::SeqCst) == 0).await;
}
