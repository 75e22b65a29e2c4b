//! Names of trunks, resolved ahead of any call and again when their records grow old.
//!
//! Four record types of one question each are all that is needed, so this is a small client of our
//! own and not a whole resolver. A call never waits for it: the shards hear what was found.

mod client;
mod locate;
mod message;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_docs_in_private_items,
    reason = "a test that cannot go on fails where it stands"
)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use maskline_switch::{SwitchConfig, TrunkAddress, TrunkId, TrunkTargets};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use client::Client;
use locate::{Wanted, locate};

/// How often names are looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Not more often, however short the records' time to live; also the longest time between two
    /// tries while DNS fails.
    pub(crate) shortest: Duration,
    /// At least so often.
    pub(crate) longest: Duration,
    /// The first try again after a failure.
    pub(crate) retry: Duration,
    /// For how long the last good answer is used while DNS fails.
    pub(crate) stale: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shortest: Duration::from_secs(30),
            longest: Duration::from_secs(3_600),
            retry: Duration::from_secs(2),
            stale: Duration::from_secs(24 * 3_600),
        }
    }
}

/// What is told when the addresses of trunks change.
pub(crate) type Tell = Arc<dyn Fn(Arc<TrunkTargets>) + Send + Sync>;

struct Named {
    trunk: TrunkId,
    name: String,
    wanted: Wanted,
    /// When it is to be looked up next.
    due: Instant,
    found: Option<Instant>,
    failures: u32,
}

/// Resolves the names of trunks until `stop`. Ends at once if there is none.
pub(crate) async fn follow(
    config: SwitchConfig,
    client: Client,
    limits: Limits,
    tell: Tell,
    stop: CancellationToken,
) {
    let mut targets = TrunkTargets::configured(&config.trunks);
    let mut names = names_of(&config);
    while let Some(next) = names.iter_mut().min_by_key(|named| named.due) {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next.due) => {}
        }
        let located = tokio::select! {
            () = stop.cancelled() => return,
            located = locate(&client, &next.wanted) => located,
        };
        let now = Instant::now();
        let before = targets.of(next.trunk).to_vec();
        match located {
            Ok(located) => {
                next.failures = 0;
                next.found = Some(now);
                let ttl = Duration::from_secs(u64::from(located.ttl));
                next.due = now + ttl.clamp(limits.shortest, limits.longest);
                if located.targets != before {
                    tracing::info!(
                        trunk = next.name,
                        targets = located.targets.len(),
                        "a trunk's name was resolved"
                    );
                }
                targets.set(next.trunk, located.targets);
            }
            Err(error) => {
                next.failures = next.failures.saturating_add(1);
                let wait = limits.retry * next.failures.min(60);
                next.due = now + wait.min(limits.shortest);
                metrics::counter!("maskline_dns_failures_total").increment(1);
                let stale = next
                    .found
                    .is_none_or(|found| now.duration_since(found) > limits.stale);
                tracing::warn!(trunk = next.name, %error, stale, "a trunk's name can't be resolved");
                if stale {
                    targets.set(next.trunk, Vec::new());
                }
            }
        }
        if targets.of(next.trunk) != before {
            tell(Arc::new(targets.clone()));
        }
    }
}

fn names_of(config: &SwitchConfig) -> Vec<Named> {
    let usable: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| (listener.sent_by.transport, listener.bound.is_ipv4()))
        .collect();
    (0..=u16::MAX)
        .zip(config.trunks.iter())
        .filter_map(|(at, trunk)| match &trunk.address {
            TrunkAddress::Fixed(_) => None,
            TrunkAddress::Name {
                host,
                port,
                any_transport,
            } => Some(Named {
                trunk: TrunkId(at),
                name: trunk.name.clone(),
                wanted: Wanted {
                    host: host.clone(),
                    port: *port,
                    any_transport: *any_transport,
                    transport: trunk.transport,
                    usable: usable.clone(),
                },
                due: Instant::now(),
                found: None,
                failures: 0,
            }),
        })
        .collect()
}
