//! Finding servers by a made-up name server on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use maskline_switch::Target;
use maskline_switch::sip::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::client::{Client, DnsError};
use super::locate::{Wanted, locate};

/// Records by name and type: the time to live in seconds and the data of each.
type Records = HashMap<(String, u16), Vec<(u32, Vec<u8>)>>;

/// What a server knows; without any record it can't tell.
#[derive(Debug, Default)]
struct Zone {
    records: Mutex<Records>,
    questions: AtomicUsize,
}

const A: u16 = 1;
const SRV: u16 = 33;
const NAPTR: u16 = 35;

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| {
            let length = u8::try_from(label.len()).unwrap();
            std::iter::once(length).chain(label.bytes())
        })
        .collect();
    bytes.push(0);
    bytes
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, weight, port];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_be_bytes()).collect();
    bytes.extend(name(target));
    bytes
}

fn naptr(order: u16, preference: u16, flags: &str, service: &str, to: &str) -> Vec<u8> {
    let mut bytes = order.to_be_bytes().to_vec();
    bytes.extend(preference.to_be_bytes());
    for text in [flags, service, ""] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.bytes());
    }
    bytes.extend(name(to));
    bytes
}

fn zone(records: &[(&str, u16, u32, Vec<u8>)]) -> Arc<Zone> {
    let zone = Arc::<Zone>::default();
    for (of, kind, ttl, data) in records {
        let key = ((*of).to_owned(), *kind);
        let mut zone = zone.records.lock().unwrap();
        zone.entry(key).or_default().push((*ttl, data.clone()));
    }
    zone
}

fn answer(zone: &Zone, question: &[u8], may_cut: bool) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let mut bytes = question.to_vec();
    bytes[2] = 0x81;
    zone.questions.fetch_add(1, Ordering::Relaxed);
    let zone = zone.records.lock().unwrap();
    if zone.is_empty() {
        // SERVFAIL.
        bytes[3] = 0x82;
        return bytes;
    }
    bytes[3] = 0x80;
    let records = zone.get(&(labels.join("."), kind));
    let records = records.map_or(&[][..], Vec::as_slice);
    bytes[7] = u8::try_from(records.len()).unwrap();
    for (ttl, data) in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    if may_cut && bytes.len() > 512 {
        bytes.truncate(question.len());
        bytes[2] |= 2;
        bytes[7] = 0;
    }
    bytes
}

/// Serves a zone over UDP and TCP on one port.
async fn serve(zone: Arc<Zone>) -> Client {
    let (socket, listener, address) = loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        if let Ok(listener) = TcpListener::bind(address).await {
            break (socket, listener, address);
        }
    };
    let of_streams = Arc::clone(&zone);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let reply = answer(&zone, &buffer[..length], true);
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await.unwrap();
            let reply = answer(&of_streams, &question, false);
            let length = u16::try_from(reply.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    Client::new(vec![address])
}

fn wanted(host: &str, port: Option<u16>, transport: Option<Transport>) -> Wanted {
    Wanted {
        host: host.to_owned(),
        port,
        any_transport: transport.is_none(),
        transport: transport.unwrap_or(Transport::Udp),
        usable: vec![(Transport::Udp, true), (Transport::Tcp, true)],
    }
}

fn address(last: u8) -> Vec<u8> {
    vec![192, 0, 2, last]
}

fn target(last: u8, port: u16, transport: Transport, rank: (u16, u16)) -> Target {
    Target {
        priority: rank.0,
        weight: rank.1,
        addr: SocketAddr::from(([192, 0, 2, last], port)),
        transport,
    }
}

/// What the records of a carrier lead to: with SRV of both transports, and NAPTR if `naptr`.
fn carrier(with_naptr: bool) -> Arc<Zone> {
    let mut records = vec![
        ("c.test", A, 60, address(9)),
        ("_sip._udp.c.test", SRV, 300, srv(20, 5, 5070, "one.c.test")),
        ("_sip._udp.c.test", SRV, 300, srv(10, 7, 5080, "two.c.test")),
        ("_sip._udp.c.test", SRV, 300, srv(5, 0, 5080, "gone.c.test")),
        ("_sip._tcp.c.test", SRV, 300, srv(1, 0, 5090, "one.c.test")),
        ("one.c.test", A, 90, address(1)),
        ("two.c.test", A, 45, address(2)),
        ("two.c.test", A, 45, address(3)),
    ];
    if with_naptr {
        for row in [
            naptr(10, 10, "s", "SIPS+D2T", "_sips._tcp.c.test"),
            naptr(30, 10, "s", "SIP+D2U", "_sip._udp.c.test"),
            naptr(20, 10, "S", "sip+d2t", "_sip._tcp.c.test"),
            naptr(1, 10, "u", "E2U+sip", ""),
        ] {
            records.push(("c.test", NAPTR, 300, row));
        }
    }
    zone(&records)
}

#[tokio::test]
async fn naptr_srv_and_addresses_lead_to_the_servers() {
    use Transport::{Tcp, Udp};
    let by_udp = vec![
        target(2, 5080, Udp, (10, 7)),
        target(3, 5080, Udp, (10, 7)),
        target(1, 5070, Udp, (20, 5)),
    ];
    let by_tcp = vec![target(1, 5090, Tcp, (1, 0))];
    for (with_naptr, port, transport, expected) in [
        // NAPTR: the best service that we have a socket for.
        (true, None, None, by_tcp.clone()),
        // No NAPTR: SRV of UDP first.
        (false, None, None, by_udp.clone()),
        (true, None, Some(Udp), by_udp),
        (true, None, Some(Tcp), by_tcp),
        (
            true,
            Some(5066),
            Some(Tcp),
            vec![target(9, 5066, Tcp, (0, 0))],
        ),
    ] {
        let client = serve(carrier(with_naptr)).await;
        let located = locate(&client, &wanted("c.test", port, transport)).await;
        let located = located.unwrap();
        assert_eq!(
            located.targets, expected,
            "{with_naptr} {port:?} {transport:?}"
        );
    }
}

#[tokio::test]
async fn a_name_without_srv_is_an_address_at_the_usual_port() {
    let client = serve(zone(&[("c.test", A, 77, address(9))])).await;
    let located = locate(&client, &wanted("c.test", None, None))
        .await
        .unwrap();
    assert_eq!(located.targets, [target(9, 5060, Transport::Udp, (0, 0))]);
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_asked_for_by_tcp() {
    let records: Vec<_> = (0..60)
        .map(|last| ("c.test", A, 77, address(last)))
        .collect();
    let client = serve(zone(&records)).await;
    let wanted = wanted("c.test", Some(5060), Some(Transport::Udp));
    let located = locate(&client, &wanted).await.unwrap();
    assert_eq!(located.targets.len(), 8, "as many as are kept");
    assert_eq!(located.ttl, 77);
}

#[tokio::test]
async fn a_failing_server_and_a_name_without_an_address_are_errors() {
    let client = serve(Arc::default()).await;
    let asked = wanted("c.test", Some(5060), Some(Transport::Udp));
    assert_eq!(
        locate(&client, &asked).await,
        Err(DnsError::Unanswered("c.test".to_owned()))
    );
    let client = serve(zone(&[("x.test", A, 1, address(1))])).await;
    assert_eq!(
        locate(&client, &asked).await,
        Err(DnsError::NoAddress("c.test".to_owned()))
    );
}

mod following {
    use std::time::Duration;

    use maskline_switch::sip::compose::SentBy;
    use maskline_switch::{Listener, SwitchConfig, Trunk, TrunkAddress, TrunkId, TrunkTargets};
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::dns::{Limits, Tell, follow};

    /// Waits for so many more questions.
    async fn questions(zone: &Zone, more: usize) {
        let until = zone.questions.load(Ordering::Relaxed) + more;
        while zone.questions.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_last_good_answer_is_used_while_dns_fails_and_a_new_one_when_it_works_again() {
        let records = zone(&[("c.test", A, 0, address(1))]);
        let client = serve(Arc::clone(&records)).await;
        let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
        let listener = Listener {
            sent_by: SentBy {
                host_port: bound.to_string(),
                transport: Transport::Udp,
            },
            bound,
        };
        let trunk = Trunk {
            address: TrunkAddress::Name {
                host: "c.test".to_owned(),
                port: Some(5060),
                any_transport: false,
            },
            ..Trunk::default()
        };
        let config = SwitchConfig {
            listeners: [listener].into(),
            trunks: [trunk].into(),
            ..SwitchConfig::default()
        };
        let (told, mut tells) = mpsc::channel::<Arc<TrunkTargets>>(64);
        let tell: Tell = Arc::new(move |targets| drop(told.try_send(targets)));
        let stop = CancellationToken::new();
        let quick = Limits {
            shortest: Duration::from_millis(20),
            retry: Duration::from_millis(10),
            ..Limits::default()
        };
        let following = tokio::spawn(follow(config, client, quick, tell, stop.clone()));
        let addresses = |targets: &TrunkTargets| {
            let of = targets.of(TrunkId(0));
            of.iter().map(|it| it.addr.ip()).collect::<Vec<_>>()
        };
        let first = tells.recv().await.unwrap();
        assert_eq!(addresses(&first), [Ipv4Addr::new(192, 0, 2, 1)]);
        // Nothing is told of a failure, and nothing of an answer that is the same.
        let good = std::mem::take(&mut *records.records.lock().unwrap());
        questions(&records, 6).await;
        *records.records.lock().unwrap() = good;
        questions(&records, 3).await;
        assert!(tells.try_recv().is_err());
        let key = ("c.test".to_owned(), A);
        records
            .records
            .lock()
            .unwrap()
            .insert(key, vec![(0, address(2))]);
        let second = tells.recv().await.unwrap();
        assert_eq!(addresses(&second), [Ipv4Addr::new(192, 0, 2, 2)]);
        stop.cancel();
        following.await.unwrap();
    }
}
