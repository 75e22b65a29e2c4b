//! Pauses after connections that could not be made.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use maskline_switch::sip::Peer;

/// Most peers whose failures are remembered.
const MAX_PEERS: usize = 1_024;

/// Who could not be connected to.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failed: HashMap<Peer, Failed>,
}

#[derive(Debug)]
struct Failed {
    pause: Duration,
    until: Instant,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failed: HashMap::new(),
        }
    }

    /// Whether a peer may not be tried yet.
    pub(super) fn holds(&self, peer: &Peer, now: Instant) -> bool {
        self.failed
            .get(peer)
            .is_some_and(|failed| now < failed.until)
    }

    pub(super) fn failed(&mut self, peer: Peer, now: Instant) {
        let earlier = self.failed.get(&peer).map(|failed| failed.pause);
        let pause = earlier.map_or(self.first, |pause| pause.saturating_mul(2).min(self.most));
        if earlier.is_none() && self.failed.len() >= MAX_PEERS {
            self.failed.retain(|_, failed| now < failed.until);
            if self.failed.len() >= MAX_PEERS {
                return;
            }
        }
        let until = now + pause;
        self.failed.insert(peer, Failed { pause, until });
    }

    pub(super) fn connected(&mut self, peer: &Peer) {
        self.failed.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use maskline_switch::sip::Transport;

    use super::*;

    fn peer(port: u16) -> Peer {
        Peer {
            listener: 0,
            transport: Transport::Tls,
            addr: ([192, 0, 2, 9], port).into(),
        }
    }

    #[test]
    fn pauses_double_up_to_the_most_and_a_connection_ends_them() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(300));
        let mut backoff = Backoff::new(first, most);
        let now = Instant::now();
        assert!(!backoff.holds(&peer(1), now));
        for pause in [100, 200, 300, 300] {
            let pause = Duration::from_millis(pause);
            backoff.failed(peer(1), now);
            assert!(backoff.holds(&peer(1), now + pause - first / 100));
            assert!(!backoff.holds(&peer(1), now + pause));
        }
        assert!(!backoff.holds(&peer(2), now));
        backoff.connected(&peer(1));
        assert!(!backoff.holds(&peer(1), now));
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_is_room_for() {
        let most = Duration::from_secs(1);
        let mut backoff = Backoff::new(most, most);
        let now = Instant::now();
        for port in 0..2_000 {
            backoff.failed(peer(port), now);
        }
        assert_eq!(backoff.failed.len(), MAX_PEERS);
        backoff.failed(peer(3_000), now + most);
        assert_eq!(backoff.failed.len(), 1);
    }
}
