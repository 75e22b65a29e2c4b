//! What endpoints have set for themselves: from the store and the API to the lanes.
//!
//! What lives elsewhere: what a policy does (`turns`, `lanes`), attempts' deadlines (`attempt`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maskline_events::WebhookType;
use maskline_store::{Deliveries, EndpointSettings};

use super::told::Told;
use super::turns::EndpointKey;
use super::{EndpointPolicy, Rate};
use crate::endpoints::SettingsSeen;

/// Tells the lanes of settings, each time that their policy differs from what was said last.
pub(super) struct OwnSettings {
    /// What goes for endpoints that have set nothing.
    policy: EndpointPolicy,
    told: Arc<Told>,
    /// Those that were told.
    last: Mutex<BTreeMap<EndpointKey, EndpointPolicy>>,
}

impl OwnSettings {
    pub(super) fn new(policy: EndpointPolicy, told: Arc<Told>) -> Self {
        Self {
            policy,
            told,
            last: Mutex::default(),
        }
    }

    /// Reads what is set, before the first attempt is made. If the store fails, each endpoint's
    /// settings are seen with its first attempt.
    pub(super) async fn begin(&self, store: &dyn Deliveries) {
        match store.all_settings().await {
            Ok(all) => {
                for (owner, kind, settings) in all {
                    let key = (Arc::from(owner), kind);
                    // What was seen meanwhile is newer.
                    if !self.last().contains_key(&key) {
                        self.say(key, &settings);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the endpoints' settings can't be read yet"),
        }
    }

    fn say(&self, key: EndpointKey, settings: &EndpointSettings) {
        let policy = policy_of(settings, &self.policy);
        let mut last = self.last();
        if last.get(&key) == policy.as_ref() {
            return;
        }
        // Told while it is locked, so that two who say something are heard in their order.
        self.told.policy(key.clone(), policy.clone());
        match policy {
            Some(policy) => last.insert(key, policy),
            None => last.remove(&key),
        };
    }

    fn last(&self) -> std::sync::MutexGuard<'_, BTreeMap<EndpointKey, EndpointPolicy>> {
        // Nothing panics while it is held.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SettingsSeen for OwnSettings {
    fn seen(&self, owner: &str, kind: WebhookType, settings: &EndpointSettings) {
        self.say((Arc::from(owner), kind), settings);
    }
}

/// The policy of an endpoint with these settings; `None`: nothing of it differs from `default`, whose
/// places and rate can only become fewer by them.
fn policy_of(settings: &EndpointSettings, default: &EndpointPolicy) -> Option<EndpointPolicy> {
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    let mut policy = default.clone();
    if let Some(most) = settings.max_in_flight {
        policy.cap = policy.cap.min(most.max(1) as usize);
    }
    let rate = settings.rate_per_1000_seconds;
    if let Some(rate) = rate.and_then(Rate::per_1000_seconds) {
        policy.rate = Some(policy.rate.map_or(rate, |most| most.min(rate)));
    }
    if let Some(delays) = &settings.retry_delays_seconds {
        policy.schedule.delays = delays.iter().copied().map(seconds).collect();
    }
    if let Some(deadline) = settings.order_deadline_seconds {
        policy.schedule.order_deadline = seconds(deadline);
    }
    (policy != *default).then_some(policy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::DeliveryConfig;
    use super::super::lanes::Input;
    use super::*;

    fn said(told: &Told) -> Vec<Option<EndpointPolicy>> {
        told.take()
            .map(|input| {
                let Input::Policy((owner, WebhookType::Vcs), policy) = input else {
                    unreachable!("{input:?}");
                };
                assert_eq!(&*owner, "shop");
                policy
            })
            .collect()
    }

    #[test]
    fn what_is_set_makes_places_and_rate_fewer_and_never_more() {
        let operator = EndpointPolicy {
            cap: 32,
            rate: Rate::per_1000_seconds(20_000),
            ..DeliveryConfig::default().policy()
        };
        let own = |most, rate| {
            let settings = EndpointSettings {
                max_in_flight: Some(most),
                rate_per_1000_seconds: Some(rate),
                ..EndpointSettings::default()
            };
            policy_of(&settings, &operator).map(|policy| (policy.cap, policy.rate))
        };
        assert_eq!(own(256, 10_000_000), None);
        assert_eq!(own(33, 20_001), None);
        assert_eq!(own(4, 10_000_000), Some((4, operator.rate)));
        assert_eq!(own(256, 500), Some((32, Rate::per_1000_seconds(500))));
    }

    #[test]
    fn the_lanes_hear_of_settings_when_they_change_and_not_again() {
        let told = Arc::new(Told::default());
        let default = DeliveryConfig::default().policy();
        let own = OwnSettings::new(default.clone(), Arc::clone(&told));
        let see = |settings: &EndpointSettings| own.seen("shop", WebhookType::Vcs, settings);
        let unset = EndpointSettings::default();
        see(&unset);
        assert!(said(&told).is_empty());
        let set = EndpointSettings {
            max_in_flight: Some(3),
            rate_per_1000_seconds: Some(500),
            retry_delays_seconds: Some(vec![2, 4]),
            order_deadline_seconds: Some(7),
            ..EndpointSettings::default()
        };
        see(&set);
        see(&set);
        let mut policy = EndpointPolicy {
            cap: 3,
            rate: Rate::per_1000_seconds(500),
            ..default.clone()
        };
        policy.schedule.delays = vec![Duration::from_secs(2), Duration::from_secs(4)];
        policy.schedule.order_deadline = Duration::from_secs(7);
        assert_eq!(said(&told), [Some(policy)]);
        see(&unset);
        assert_eq!(said(&told), [None]);
        // What no lane has to know of is no policy.
        let timeout = EndpointSettings {
            attempt_timeout_ms: Some(500),
            ..EndpointSettings::default()
        };
        see(&timeout);
        assert!(said(&told).is_empty());
    }
}
