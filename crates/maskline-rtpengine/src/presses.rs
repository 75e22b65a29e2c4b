//! Key presses, which `rtpengine` logs to a UDP socket of ours (its option `--dtmf-log-dest`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use maskline_media::Side;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;
use crate::naming::Naming;
use crate::protocol::{CALLEE, CALLER, Press};

/// A press takes some 150 bytes.
const MAX_BYTES: usize = 2_048;

/// Reports what is heard from the machines of the instances, and passes over everything else.
pub(crate) async fn listen(socket: UdpSocket, shared: Arc<Shared>, stop: CancellationToken) {
    let mut room = [0; MAX_BYTES];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut room) => received,
            () = stop.cancelled() => return,
        };
        let Ok((length, from)) = received else {
            continue;
        };
        if !shared.has_instance_at(canonical(from)) {
            continue;
        }
        let press = serde_json::from_slice(room.get(..length).unwrap_or_default());
        if let Some((id, side, digit)) = press.ok().and_then(|press| read(press, shared.naming)) {
            shared.pressed(id, side, digit);
        }
    }
}

fn canonical(from: SocketAddr) -> IpAddr {
    from.ip().to_canonical()
}

/// RFC 4733 §3.2: events 0 to 15 are keys.
fn read(press: Press, naming: Naming) -> Option<(u64, Side, char)> {
    if press.kind != "DTMF" {
        return None;
    }
    let side = match press.source_tag.as_str() {
        CALLER => Side::Caller,
        CALLEE => Side::Callee,
        _ => return None,
    };
    let digit = "0123456789*#ABCD".chars().nth(usize::from(press.event))?;
    Some((naming.key_in(&press.callid)?, side, digit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_press_is_read_by_call_tag_and_event() {
        let naming = Naming { installation: 1 };
        let press = |tag: &str, event: u8, kind: &str| {
            let press = Press {
                callid: naming.call_id(7),
                source_tag: tag.to_owned(),
                kind: kind.to_owned(),
                event,
            };
            read(press, naming)
        };
        assert_eq!(press(CALLER, 5, "DTMF"), Some((7, Side::Caller, '5')));
        assert_eq!(press(CALLEE, 11, "DTMF"), Some((7, Side::Callee, '#')));
        assert_eq!(press(CALLEE, 15, "DTMF"), Some((7, Side::Callee, 'D')));
        assert_eq!(press(CALLER, 16, "DTMF"), None);
        assert_eq!(press("other", 5, "DTMF"), None);
        assert_eq!(press(CALLER, 5, "OTHER"), None);
    }
}
