//! Snapshots of earlier versions: a shard goes on with the call or ends it, but never leaves it.
//! `connected.json` was written by a running node; it stays as it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

mod going_on;

use std::net::SocketAddr;
use std::time::Duration;

use maskline_events::Timestamp;
use maskline_media::{MediaCommand, Tick};
use maskline_switch::sip::compose::SentBy;
use maskline_switch::sip::{Message, Peer, Transport, wire};
use maskline_switch::{Action, Arrival, Input, Listener, Now, Shard, SwitchConfig, Trunk, TrunkId};
use serde_json::{Value, json};

/// What a node wrote of a call that had been connected for a moment.
fn snapshot() -> Value {
    serde_json::from_str(include_str!("connected.json")).unwrap()
}

fn config() -> SwitchConfig {
    let bound: SocketAddr = "127.0.0.1:5060".parse().unwrap();
    let listener = |transport| Listener {
        sent_by: SentBy {
            host_port: bound.to_string(),
            transport,
        },
        bound,
    };
    SwitchConfig {
        listeners: [listener(Transport::Tcp), listener(Transport::Udp)].into(),
        trunks: [
            Trunk::new("another", "192.0.2.1:5060".parse().unwrap()),
            Trunk::new("carrier", "127.0.0.3:5060".parse().unwrap()),
        ]
        .into(),
        ..SwitchConfig::default()
    }
}

/// What the shard does with it: its orders, in short.
fn adopt(config: SwitchConfig, snapshot: &Value, away: Option<Duration>) -> Vec<String> {
    let (mut shard, now) = (Shard::new(config, [7; 32]), after(40_000));
    let snapshot = serde_json::to_vec(snapshot).unwrap();
    shard.handle(now, Input::SessionFound { snapshot, away });
    orders(&mut shard)
}

/// So long after the answer.
fn after(ms: i64) -> Now {
    let connected = snapshot()["a"]["connected"].clone();
    let connected: Timestamp = serde_json::from_value(connected).unwrap();
    Now {
        tick: Tick::ZERO,
        wall: connected.plus_ms(ms),
    }
}

fn orders(shard: &mut Shard) -> Vec<String> {
    let mut orders = Vec::new();
    while let Some(action) = shard.poll() {
        orders.extend(in_short(&action));
    }
    orders
}

/// A message from this address.
fn arriving(shard: &mut Shard, now: Now, from: &str, transport: Transport, text: &str) {
    let peer = Peer {
        listener: u16::from(transport == Transport::Udp),
        transport,
        addr: from.parse().unwrap(),
    };
    let raw = text.replace('\n', "\r\n").into_bytes();
    let message: Message = wire::read_datagram(&raw, peer).unwrap();
    let arrival = Arrival {
        peer,
        trunk: TrunkId(1),
        message,
        raw: raw.into(),
    };
    shard.handle(now, Input::MessageArrived(Box::new(arrival)));
}

fn in_short(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { peer, bytes } => {
            let text = String::from_utf8_lossy(bytes);
            let mut words = text.split(' ');
            let method = match words.next().unwrap() {
                version @ "SIP/2.0" => format!("{version} {}", words.next().unwrap()),
                method => method.to_owned(),
            };
            format!("{method} to {} by socket {}", peer.addr, peer.listener)
        }
        Action::Occupy { trunk } => format!("place of trunk {}", trunk.0),
        Action::Media(MediaCommand::Resume {
            caller_port,
            callee_port,
            ..
        }) => format!("ports {caller_port} {callee_port}"),
        Action::Commit { record, .. } => {
            let errors = |event: &&maskline_switch::RecordedEvent| event.body.contains("-2001");
            let errors = record.events.iter().filter(errors).count();
            format!(
                "commit of {} events, {errors} with -2001",
                record.events.len()
            )
        }
        _ => return None,
    })
}

const GOES_ON: [&str; 6] = [
    "place of trunk 1",
    "place of trunk 1",
    "ports 34556 34558",
    "commit of 0 events, 0 with -2001",
    "OPTIONS to 127.0.0.2:5060 by socket 1",
    "OPTIONS to 127.0.0.3:5060 by socket 1",
];
const IS_ENDED: [&str; 3] = [
    "commit of 3 events, 3 with -2001",
    "BYE to 127.0.0.2:5060 by socket 1",
    "BYE to 127.0.0.3:5060 by socket 1",
];

#[test]
fn a_connected_call_goes_on_where_its_trunk_and_its_socket_are_now() {
    let away = Some(Duration::from_secs(5));
    assert_eq!(adopt(config(), &snapshot(), away), GOES_ON);
}

#[test]
fn a_call_that_lacks_anything_is_ended() {
    let away = Some(Duration::from_secs(1));
    let mut never = config();
    never.adopt_within = Duration::ZERO;
    let mut another_trunk = config();
    another_trunk.trunks = [Trunk::new("another", "192.0.2.1:5060".parse().unwrap())].into();
    let mut another_socket = config();
    let mut listeners = another_socket.listeners.to_vec();
    listeners[1].bound.set_port(5070);
    another_socket.listeners = listeners.into();
    let without = |living: Value| {
        let mut snapshot = snapshot();
        snapshot["living"] = living;
        snapshot
    };
    let mut previous = snapshot();
    previous.as_object_mut().unwrap().remove("living");
    for (why, config, snapshot, away) in [
        ("the absence is unknown", config(), snapshot(), None),
        (
            "the absence is too long",
            config(),
            snapshot(),
            Some(Duration::from_millis(5_001)),
        ),
        ("no call ever goes on", never, snapshot(), away),
        ("its trunk is gone", another_trunk, snapshot(), away),
        ("its socket is gone", another_socket, snapshot(), away),
        ("the previous version wrote it", config(), previous, away),
        (
            "another version wrote it",
            config(),
            without(json!({"ports": [1, 2]})),
            away,
        ),
    ] {
        assert_eq!(adopt(config, &snapshot, away), IS_ENDED, "{why}");
    }
}

/// Nothing of an ended call leaves by a socket that the carrier does not know.
#[test]
fn a_call_is_ended_by_the_sockets_that_it_came_by_whatever_their_numbers_are_now() {
    let mut snapshot = snapshot();
    snapshot["sockets"] = json!(["127.0.0.1:5060", "127.0.0.1:5070"]);
    snapshot["callee"]["peer"]["listener"] = json!(1);
    let mut open = snapshot["callee_invite"].clone();
    open["peer"]["listener"] = json!(1);
    open["branch"] = json!("z9hG4bK-open");
    snapshot["abandoned_invites"] = json!([{"number": 0, "parts": open}]);
    let mut config = config();
    let mut listeners = config.listeners.to_vec();
    listeners.push(listeners[1].clone());
    listeners[2].bound.set_port(5070);
    config.listeners = listeners.into();
    assert_eq!(
        adopt(config, &snapshot, None),
        [
            "commit of 3 events, 3 with -2001",
            "BYE to 127.0.0.2:5060 by socket 1",
            "BYE to 127.0.0.3:5060 by socket 2",
            "CANCEL to 127.0.0.3:5060 by socket 2",
        ]
    );
}

/// Tags carry the number of the shard that made them, whoever owns the call now.
#[test]
fn a_call_that_moved_to_another_shard_is_found_there_again() {
    let mut shard = Shard::new(
        SwitchConfig {
            shard: 0,
            ..config()
        },
        [7; 32],
    );
    let now = after(40_000);
    let found = Input::SessionFound {
        snapshot: serde_json::to_vec(&snapshot()).unwrap(),
        away: Some(Duration::ZERO),
    };
    shard.handle(now, found);
    let mut kept = None;
    while let Some(action) = shard.poll() {
        if let Action::Commit { record, .. } = action {
            kept = record.snapshot;
        }
    }
    let kept: Value = serde_json::from_slice(&kept.expect("it is written at once")).unwrap();
    assert_eq!(kept["shard"], json!(1));
    // Two restarts share no numbers.
    assert!(kept["caller"]["local_cseq"].as_u64().unwrap() > 100);
}

/// A's stream died with the process and A listens nowhere: it is not given up, and what it opens
/// when it has something to say is the way to it from then on.
#[test]
fn a_party_that_can_not_be_asked_over_a_stream_is_reached_by_the_next_one_that_it_opens() {
    let text = serde_json::to_string(&snapshot()).unwrap();
    let mut snapshot: Value = serde_json::from_str(&text).unwrap();
    for place in ["caller_invite", "caller"] {
        snapshot[place]["peer"]["transport"] = json!("tcp");
        snapshot[place]["peer"]["addr"] = json!("127.0.0.2:40001");
    }
    snapshot["caller"]["target"] = json!("sip:caller@127.0.0.2:5060;transport=tcp");
    let (mut shard, now) = (Shard::new(config(), [7; 32]), after(40_000));
    let away = Some(Duration::from_secs(1));
    let snapshot = serde_json::to_vec(&snapshot).unwrap();
    shard.handle(now, Input::SessionFound { snapshot, away });
    let asked = orders(&mut shard);
    let question = "OPTIONS to 127.0.0.2:5060 by socket 0".to_owned();
    assert!(asked.contains(&question), "{asked:?}");
    let listens = Peer {
        listener: 0,
        transport: Transport::Tcp,
        addr: "127.0.0.2:5060".parse().unwrap(),
    };
    shard.handle(now, Input::TransportFailed(listens));
    assert_eq!(orders(&mut shard), [""; 0], "the call goes on");

    let in_dialog = |method: &str, from: &str, cseq: u32| {
        let (us, them) = match method {
            "BYE" => (
                "m1.b.78ab61cac43d62ee.1accdcc437fa5571",
                "b-4261-140\nCall-ID: 1652d143bef02a638a1882882c0df77d",
            ),
            _ => (
                "m1.a.78ab61cac43d62ee.d01e33686a7ad245",
                "a-4322-141\nCall-ID: 141-4322@127.0.0.2",
            ),
        };
        format!(
            "{method} sip:127.0.0.1:5060 SIP/2.0\nVia: SIP/2.0/TCP {from};branch=z9hG4bK{method}\n\
             To: <sip:us@127.0.0.1>;tag={us}\nFrom: <sip:them@{from}>;tag={them}\n\
             CSeq: {cseq} {method}\nMax-Forwards: 70\nContent-Length: 0\n\n"
        )
    };
    let from = "127.0.0.2:40002";
    arriving(
        &mut shard,
        now,
        from,
        Transport::Tcp,
        &in_dialog("INFO", from, 2),
    );
    orders(&mut shard);
    let callee = "127.0.0.3:5060";
    arriving(
        &mut shard,
        now,
        callee,
        Transport::Udp,
        &in_dialog("BYE", callee, 1),
    );
    orders(&mut shard);
    // Nothing is durable here, so the BYE waits for its second.
    let later = Now {
        tick: now.tick + Duration::from_secs(1),
        ..now
    };
    shard.handle(later, Input::DeadlineReached);
    let ended = orders(&mut shard);
    let bye = format!("BYE to {from} by socket 0");
    assert!(ended.contains(&bye), "{ended:?}");
}

/// RFC 3261 §8.2.2.2: the call was taken, if by another run.
#[test]
fn a_copy_of_the_invite_that_comes_by_another_way_is_no_new_call() {
    let copy = "INVITE sip:+6531580001@127.0.0.1:5060 SIP/2.0\n\
         Via: SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bK-another-way\n\
         From: <sip:+6591110001@127.0.0.2>;tag=a-4322-141\nTo: <sip:+6531580001@127.0.0.1:5060>\n\
         Call-ID: 141-4322@127.0.0.2\nCSeq: 1 INVITE\nMax-Forwards: 70\nContent-Length: 0\n\n";
    let answer_to = |now: Now, away| {
        let mut shard = Shard::new(config(), [7; 32]);
        let snapshot = serde_json::to_vec(&snapshot()).unwrap();
        shard.handle(now, Input::SessionFound { snapshot, away });
        orders(&mut shard);
        arriving(&mut shard, now, "127.0.0.9:5060", Transport::Udp, copy);
        let answers = orders(&mut shard);
        let refusal = "SIP/2.0 482 to 127.0.0.9:5060 by socket 1".to_owned();
        answers.contains(&refusal)
    };
    for away in [Some(Duration::from_secs(1)), None] {
        assert!(answer_to(after(20_000), away), "{away:?}");
        // Its sender repeats it for 64·T1 only.
        assert!(!answer_to(after(40_000), away), "{away:?}");
    }
}
