//! OPTIONS to the addresses of trunks, by the first shard for all.

use rand::RngCore;

use super::{Purpose, Shard};
use crate::io::Action;
use crate::probing::{Step, Supervised};
use crate::sip::compose::{self, RequestParts};
use crate::sip::{HeaderName, Method, Peer, Request, tag};

impl Shard {
    /// The addresses of trunks changed.
    pub(super) fn supervise_targets(&mut self) {
        if self.config.shard != 0 {
            return;
        }
        let all: Vec<_> = self
            .targets
            .all()
            .filter_map(|(key, target)| {
                let every = self.config.trunk(key.trunk)?.keepalive.options?;
                let peer = self.config.peer_at(target.transport, target.addr)?;
                Some(Supervised { key, peer, every })
            })
            .collect();
        self.prober.supervise(self.now.tick, all);
        self.tell_down();
    }

    pub(super) fn probe(&mut self) {
        let patience = self.config.failover.silence;
        for step in self.prober.on_deadline(self.now.tick, patience) {
            match step {
                Step::Forget(tx) => self.transactions.forget(tx),
                Step::Ask { question, peer } => {
                    let purpose = Purpose::Probe(question);
                    let sent = self.options_to(peer).and_then(|request| {
                        self.transactions
                            .send_request(self.now.tick, peer, request, purpose)
                    });
                    match sent {
                        Some(tx) => self.prober.asked(question, tx),
                        None => self.prober.answered(question, None),
                    }
                }
            }
        }
        self.tell_down();
    }

    /// The drain is over.
    pub(super) fn stop_probing(&mut self) {
        for tx in self.prober.stop() {
            self.transactions.forget(tx);
        }
    }

    pub(super) fn on_probe_answered(&mut self, question: u64, status: Option<u16>) {
        self.prober.answered(question, status);
        self.tell_down();
    }

    /// Tells the other shards what changed. They ask nobody, and know nothing better.
    fn tell_down(&mut self) {
        if self.config.shard != 0 {
            return;
        }
        let down = self.prober.down();
        if *self.down != down {
            self.down = std::sync::Arc::new(down);
            self.actions
                .push_back(Action::TargetsDown(std::sync::Arc::clone(&self.down)));
        }
    }

    fn options_to(&mut self, peer: Peer) -> Option<Request> {
        let sent_by = self.sent_by(peer);
        let at = peer.addr;
        let transport = peer.transport.uri_parameter();
        compose::request(&RequestParts {
            method: Method::Options,
            uri: &format!("sip:{at}{transport}"),
            routes: &[],
            sent_by: &sent_by,
            branch: &self.branch(),
            from: &format!(
                "<sip:{}>;tag={:016x}",
                sent_by.host_port,
                self.rng.next_u64()
            ),
            to: &format!("<sip:{at}>"),
            call_id: &tag::new_call_id(&mut self.rng),
            cseq: 1,
            sdp: None,
            extra: &[(HeaderName::Accept, "application/sdp".to_owned())],
        })
    }
}
