//! What the dispatcher is told from outside its task, of endpoints and of committed events that did
//! not get to it: nothing of it is lost, and an endpoint that is told of often takes no more room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::EndpointPolicy;
use super::lanes::Input;
use super::turns::EndpointKey;

#[derive(Debug, Default)]
pub(super) struct Told {
    of: Mutex<BTreeMap<EndpointKey, Said>>,
    missed: AtomicBool,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Said {
    changed: bool,
    policy: Option<Option<EndpointPolicy>>,
}

impl Told {
    pub(super) fn changed(&self, endpoint: EndpointKey) {
        self.say(endpoint, |said| said.changed = true);
    }

    pub(super) fn policy(&self, endpoint: EndpointKey, policy: Option<EndpointPolicy>) {
        self.say(endpoint, |said| said.policy = Some(policy));
    }

    /// Committed events did not get to the dispatcher: the store has them. Takes no lock, since a
    /// committer calls it.
    pub(super) fn missed(&self) {
        self.missed.store(true, Ordering::Release);
        // It may be the last thing to be said for long: the batches before it may have been taken
        // meanwhile.
        self.notify.notify_one();
    }

    fn say(&self, endpoint: EndpointKey, what: impl FnOnce(&mut Said)) {
        // Nothing panics while it is held.
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        what(of.entry(endpoint).or_default());
        drop(of);
        self.notify.notify_one();
    }

    /// What was said since the last call.
    pub(super) fn take(&self) -> impl Iterator<Item = Input> + use<> {
        let of = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *of)
        };
        let missed = self.missed.swap(false, Ordering::AcqRel);
        let missed = missed.then_some(Input::Missed);
        let said = of.into_iter().flat_map(|(at, said)| said.inputs(at));
        said.chain(missed)
    }

    /// Waits until something is said, if it was not since this was waited for last.
    pub(super) async fn said(&self) {
        self.notify.notified().await;
    }
}

impl Said {
    fn inputs(self, endpoint: EndpointKey) -> impl Iterator<Item = Input> {
        let policy = self
            .policy
            .map(|policy| Input::Policy(endpoint.clone(), policy));
        let changed = self.changed.then_some(Input::EndpointChanged(endpoint));
        policy.into_iter().chain(changed)
    }
}
