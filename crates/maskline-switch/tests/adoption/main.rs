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

use std::net::SocketAddr;
use std::time::Duration;

use maskline_events::Timestamp;
use maskline_media::{MediaCommand, Tick};
use maskline_switch::sip::Transport;
use maskline_switch::sip::compose::SentBy;
use maskline_switch::{Action, Input, Listener, Now, Shard, SwitchConfig, Trunk};
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
    let mut shard = Shard::new(config, [7; 32]);
    let connected = snapshot["a"]["connected"].as_str().unwrap();
    let connected: Timestamp = serde_json::from_value(json!(connected)).unwrap();
    let now = Now {
        tick: Tick::ZERO,
        wall: connected.plus_ms(40_000),
    };
    let snapshot = serde_json::to_vec(snapshot).unwrap();
    shard.handle(now, Input::SessionFound { snapshot, away });
    let mut orders = Vec::new();
    while let Some(action) = shard.poll() {
        orders.extend(in_short(&action));
    }
    orders
}

fn in_short(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { peer, bytes } => {
            let text = String::from_utf8_lossy(bytes);
            let method = text.split(' ').next().unwrap();
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
    "BYE to 127.0.0.2:5060 by socket 0",
    "BYE to 127.0.0.3:5060 by socket 0",
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
    let connected = snapshot()["a"]["connected"].clone();
    let connected: Timestamp = serde_json::from_value(connected).unwrap();
    let now = Now {
        tick: Tick::ZERO,
        wall: connected.plus_ms(40_000),
    };
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
