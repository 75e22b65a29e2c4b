//! Which trunks may carry a call, in the order in which they are tried.

use maskline_events::Msisdn;
use rand::RngCore;

use crate::config::{SwitchConfig, TrunkId};
use crate::targets::in_weighted_order;

/// A way out for the calls of numbers that have no trunk of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the callee's number begins with: `+` and digits. `+` alone is every number.
    pub prefix: String,
    /// The trunk.
    pub trunk: TrunkId,
    /// Lower ones are tried first among those of the same prefix.
    pub priority: u16,
    /// The share of the calls among those of the same prefix and priority.
    pub weight: u16,
}

/// Why no trunk carries a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The number's trunk is not configured, or there is none at all.
    #[error("the number has no trunk")]
    NoTrunk,
    /// Routes are configured, and none fits the callee.
    #[error("no route leads to the destination")]
    NoRoute,
}

impl SwitchConfig {
    /// The trunks for a call, each once: the number's own one and its overflow; else those of the
    /// routes, longest prefix first, then by priority, then at random by weight; else, without any
    /// route, the first trunk and its overflow.
    ///
    /// # Errors
    /// [`NoWay`].
    pub fn ways_out(
        &self,
        own: Option<&str>,
        destination: &Msisdn,
        rng: &mut dyn RngCore,
    ) -> Result<Vec<TrunkId>, NoWay> {
        let mut ways = match own {
            None if !self.routes.is_empty() => self.routed(destination, rng),
            own => {
                let first = self.outbound(own).ok_or(NoWay::NoTrunk)?;
                let overflow = self.trunk(first).map(|trunk| trunk.overflow.as_slice());
                let mut ways = vec![first];
                ways.extend(overflow.unwrap_or_default());
                ways
            }
        };
        let mut seen = std::collections::BTreeSet::new();
        ways.retain(|trunk| seen.insert(*trunk));
        if ways.is_empty() {
            return Err(NoWay::NoRoute);
        }
        Ok(ways)
    }

    fn routed(&self, destination: &Msisdn, rng: &mut dyn RngCore) -> Vec<TrunkId> {
        let mut fitting: Vec<&Route> = self
            .routes
            .iter()
            .filter(|route| destination.as_str().starts_with(&route.prefix))
            .collect();
        fitting.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        fitting
            .chunk_by(|one, other| one.prefix.len() == other.prefix.len())
            .flat_map(|same| {
                let ranked = same
                    .iter()
                    .map(|route| (route.priority, route.weight, route.trunk))
                    .collect();
                in_weighted_order(ranked, rng)
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::config::Trunk;

    fn config(routes: Vec<Route>) -> SwitchConfig {
        let trunk = |name: &str| Trunk::new(name, "192.0.2.1:5060".parse().unwrap());
        let mut trunks = ["a", "b", "c", "d"].map(trunk);
        trunks[1].overflow = vec![TrunkId(3), TrunkId(1), TrunkId(0)];
        SwitchConfig {
            trunks: trunks.into(),
            routes: routes.into(),
            ..SwitchConfig::default()
        }
    }

    fn route(prefix: &str, trunk: u16, priority: u16, weight: u16) -> Route {
        Route {
            prefix: prefix.to_owned(),
            trunk: TrunkId(trunk),
            priority,
            weight,
        }
    }

    fn ways(config: &SwitchConfig, own: Option<&str>, to: &str) -> Result<Vec<u16>, NoWay> {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let to = Msisdn::parse(to).unwrap();
        let ways = config.ways_out(own, &to, &mut rng)?;
        Ok(ways.into_iter().map(|trunk| trunk.0).collect())
    }

    #[test]
    fn a_number_leaves_by_its_own_trunk_and_by_what_that_names_and_by_no_route() {
        let config = config(vec![route("+", 2, 1, 1)]);
        assert_eq!(ways(&config, Some("a"), "+6591112222"), Ok(vec![0]));
        assert_eq!(ways(&config, Some("b"), "+6591112222"), Ok(vec![1, 3, 0]));
        assert_eq!(ways(&config, Some("x"), "+6591112222"), Err(NoWay::NoTrunk));
    }

    #[test]
    fn without_routes_the_first_trunk_takes_what_has_none() {
        assert_eq!(ways(&config(Vec::new()), None, "+6591112222"), Ok(vec![0]));
        let none = SwitchConfig::default();
        assert_eq!(ways(&none, None, "+6591112222"), Err(NoWay::NoTrunk));
    }

    #[test]
    fn the_longest_prefix_comes_first_and_then_the_priority() {
        let config = config(vec![
            route("+65", 0, 2, 1),
            route("+65", 1, 1, 1),
            route("+659", 2, 9, 1),
            route("+44", 3, 1, 1),
            route("+65", 2, 0, 1),
        ]);
        assert_eq!(ways(&config, None, "+6591112222"), Ok(vec![2, 1, 0]));
        assert_eq!(ways(&config, None, "+6561112222"), Ok(vec![2, 1, 0]));
        assert_eq!(ways(&config, None, "+442071112222"), Ok(vec![3]));
        assert_eq!(ways(&config, None, "+4930123456"), Err(NoWay::NoRoute));
    }

    #[test]
    fn two_hundred_calls_share_two_trunks_by_weight() {
        let config = config(vec![route("+65", 0, 1, 30), route("+65", 1, 1, 10)]);
        let to = Msisdn::parse("+6591112222").unwrap();
        let mut rng = ChaCha12Rng::seed_from_u64(5);
        let first = (0..200)
            .filter(|_| config.ways_out(None, &to, &mut rng).unwrap()[0] == TrunkId(0))
            .count();
        assert!((130..=170).contains(&first), "{first} of 200");
    }

    proptest! {
        #[test]
        fn every_fitting_trunk_is_a_way_once_and_no_other(
            routes in proptest::collection::vec(("\\+[0-9]{0,3}", 0..4_u16, 0..3_u16, 0..9_u16), 1..12),
            to in "\\+[1-9][0-9]{7,12}",
            seed in any::<u64>(),
        ) {
            let routes: Vec<_> = routes
                .iter()
                .map(|(prefix, trunk, priority, weight)| route(prefix, *trunk, *priority, *weight))
                .collect();
            let fitting: std::collections::BTreeSet<_> = routes
                .iter()
                .filter(|route| to.starts_with(&route.prefix))
                .map(|route| route.trunk)
                .collect();
            let longest = routes
                .iter()
                .filter(|route| to.starts_with(&route.prefix))
                .map(|route| route.prefix.len())
                .max();
            let config = config(routes.clone());
            let found = Msisdn::parse(&to).ok().map(|to| {
                config.ways_out(None, &to, &mut ChaCha12Rng::seed_from_u64(seed))
            });
            match found {
                None => {}
                Some(Err(NoWay::NoRoute)) => prop_assert!(fitting.is_empty()),
                Some(Err(NoWay::NoTrunk)) => prop_assert!(false, "there are trunks"),
                Some(Ok(ways)) => {
                    prop_assert_eq!(ways.iter().copied().collect::<std::collections::BTreeSet<_>>(), fitting.clone());
                    prop_assert_eq!(ways.len(), fitting.len());
                    let first = routes.iter().any(|route| {
                        route.trunk == ways[0]
                            && Some(route.prefix.len()) == longest
                            && to.starts_with(&route.prefix)
                    });
                    prop_assert!(first);
                }
            }
        }
    }
}
