//! How many names of customers' servers are resolved at once, and for whom.
//!
//! The operating system's resolver can't be stopped: a lookup holds a thread until it gives up, which
//! may be long after whoever asked has. So a lookup counts until then, for the webhook that began
//! it; who asks for the same name meanwhile waits for the same answer and counts for nothing. A
//! webhook has one URL, hence one name: so one whose name servers are silent has one lookup, however
//! often it asks.
//!
//! What lives elsewhere: the lookup itself (`network`), which addresses are allowed (`connector`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::connections::Owner;
use crate::network::Network;

/// Most lookups at once of the clients that share them: each takes a thread.
pub(crate) const MAX_LOOKUPS: usize = 64;
/// Most of them that one webhook began. One would do for its URL; the second is for the name of a
/// new URL while that of the last one hangs. A sub-account has four webhooks that are delivered to,
/// and so eight at most.
const OF_ONE: usize = 2;
/// A name that took longer is slow.
const SLOW: Duration = Duration::from_secs(1);
/// Most slow names that are remembered.
const MAX_SLOW: usize = 1_024;

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupFault {
    /// There was no place for the lookup for as long as its request waits.
    Full,
    /// The resolver knows none.
    Unresolved,
}

/// Nothing while the lookup is under way.
type Answer = Option<Result<Arc<[IpAddr]>, LookupFault>>;

/// All lookups of one client. Clones share them.
#[derive(Clone)]
pub(crate) struct Lookups {
    shared: Arc<Shared>,
    /// Those of all that were made apart from each other.
    under_way: Arc<AtomicUsize>,
}

struct Shared {
    most: usize,
    table: Mutex<Table>,
    /// Told when one has ended.
    ended: Notify,
}

#[derive(Default)]
struct Table {
    /// By name.
    under_way: BTreeMap<Arc<str>, watch::Receiver<Answer>>,
    /// How many of them each webhook began.
    owners: BTreeMap<Arc<str>, usize>,
    /// Names whose last lookup was slow.
    slow: BTreeSet<Arc<str>>,
}

impl Lookups {
    pub(crate) fn new(most: usize) -> Self {
        Self::counted(most, Arc::default())
    }

    /// As many again for themselves, which are counted together with these.
    pub(crate) fn apart(&self) -> Self {
        Self::counted(self.shared.most, Arc::clone(&self.under_way))
    }

    fn counted(most: usize, under_way: Arc<AtomicUsize>) -> Self {
        Self {
            shared: Arc::new(Shared {
                most,
                table: Mutex::default(),
                ended: Notify::new(),
            }),
            under_way,
        }
    }

    /// How many are under way, those that nobody waits for and those apart included.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// The addresses of a name, in the order in which they are to be tried. The lookup goes on if
    /// this is dropped. Nothing is remembered of an answer: it was asked for before it was known.
    ///
    /// # Errors
    /// See [`LookupFault`].
    pub(crate) async fn resolve(
        &self,
        network: &Arc<dyn Network>,
        name: &str,
        owner: &Owner,
    ) -> Result<Arc<[IpAddr]>, LookupFault> {
        loop {
            // Whatever ends from here on is heard.
            let ended = self.shared.ended.notified();
            if let Some(mut answer) = self.join_or_begin(network, name, &owner.webhook) {
                // Without an answer only if it panicked.
                let told = answer.wait_for(Option::is_some).await;
                let told = told.map_err(|_| LookupFault::Unresolved)?;
                return told.clone().unwrap_or(Err(LookupFault::Unresolved));
            }
            if timeout_at(owner.ends, ended).await.is_err() {
                return Err(LookupFault::Full);
            }
        }
    }

    /// The lookup of this name that is under way, else a new one if there is a place for it.
    fn join_or_begin(
        &self,
        network: &Arc<dyn Network>,
        name: &str,
        owner: &Arc<str>,
    ) -> Option<watch::Receiver<Answer>> {
        let mut table = self.lock();
        if let Some(answer) = table.under_way.get(name) {
            return Some(answer.clone());
        }
        if table.under_way.len() >= table.places(self.shared.most, name, owner) {
            return None;
        }
        let name: Arc<str> = Arc::from(name);
        let (tell, answer) = watch::channel(None);
        table.under_way.insert(Arc::clone(&name), answer.clone());
        *table.owners.entry(Arc::clone(owner)).or_default() += 1;
        drop(table);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let lookup = Lookup {
            lookups: self.clone(),
            name: Arc::clone(&name),
            owner: Arc::clone(owner),
            began: Instant::now(),
        };
        let resolving = network.resolve(name.to_string());
        tokio::spawn(async move {
            let found = resolving.await;
            // Before the answer is told, so that nobody is given one that is there already.
            drop(lookup);
            let found = found.map(Arc::from).map_err(|_| LookupFault::Unresolved);
            tell.send_replace(Some(found));
        });
        Some(answer)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        let table = self.shared.table.lock();
        table.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// How few must be under way for one of this name. Half of all are left to names that answer
    /// and to webhooks that have none: so many names whose servers fall silent together can take
    /// all for the time of one lookup, and not for as long as they are asked for.
    fn places(&self, most: usize, name: &str, owner: &Arc<str>) -> usize {
        let half = most - most / 2;
        match self.owners.get(owner) {
            None if self.slow.contains(name) => half,
            None => most,
            Some(has) if *has < OF_ONE => half,
            Some(_) => 0,
        }
    }

    fn remember(&mut self, name: &Arc<str>, took: Duration) {
        if took < SLOW {
            self.slow.remove(name);
            return;
        }
        self.slow.insert(Arc::clone(name));
        if self.slow.len() > MAX_SLOW {
            // Any will do: it is slow once more at worst.
            self.slow.pop_first();
        }
    }
}

/// One that is under way, until it is dropped.
struct Lookup {
    lookups: Lookups,
    name: Arc<str>,
    owner: Arc<str>,
    began: Instant,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let mut table = self.lookups.lock();
        table.under_way.remove(&self.name);
        if let Some(has) = table.owners.get_mut(&self.owner) {
            *has -= 1;
            if *has == 0 {
                table.owners.remove(&self.owner);
            }
        }
        table.remember(&self.name, self.began.elapsed());
        drop(table);
        self.lookups.under_way.fetch_sub(1, Ordering::Relaxed);
        self.lookups.shared.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
