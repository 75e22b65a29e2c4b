//! Where a trunk's calls can be sent: its addresses in the order in which a call tries them.
//!
//! Names are resolved elsewhere, ahead of any call; this file holds what came of it.

use std::net::{IpAddr, SocketAddr};

use rand::{Rng, RngCore};

use crate::config::{Trunk, TrunkId};
use crate::sip::Transport;

/// Most addresses that are kept of one trunk.
pub const MAX_TARGETS: usize = 32;

/// The far end of a trunk, as it is configured (RFC 3263 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrunkAddress {
    /// An address; nothing is looked up.
    Fixed(SocketAddr),
    /// A host name.
    Name {
        /// The name, without a dot at its end.
        host: String,
        /// Its port. With one, only addresses are looked up; without, SRV records first.
        port: Option<u16>,
        /// Whether NAPTR records, or else what SRV records there are, decide the transport.
        any_transport: bool,
    },
}

impl TrunkAddress {
    /// The address, when nothing is to be looked up.
    #[must_use]
    pub const fn fixed(&self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(addr) => Some(*addr),
            Self::Name { .. } => None,
        }
    }
}

impl TrunkAddress {
    /// As it stands in URIs: a carrier that is configured by its name is addressed by it.
    #[must_use]
    pub fn in_uri(&self) -> String {
        match self {
            Self::Fixed(addr) => addr.to_string(),
            Self::Name {
                host,
                port: Some(port),
                ..
            } => format!("{host}:{port}"),
            Self::Name {
                host, port: None, ..
            } => host.clone(),
        }
    }
}

impl From<SocketAddr> for TrunkAddress {
    fn from(addr: SocketAddr) -> Self {
        Self::Fixed(addr)
    }
}

/// One address of a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// SRV priority: lower ones are tried first (RFC 2782).
    pub priority: u16,
    /// SRV weight: the share of the calls among those of the same priority.
    pub weight: u16,
    /// The address.
    pub addr: SocketAddr,
    /// How messages travel to it.
    pub transport: Transport,
}

/// One address of one trunk, without what its records say of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// The trunk.
    pub trunk: TrunkId,
    /// The address.
    pub addr: SocketAddr,
    /// How messages travel to it.
    pub transport: Transport,
}

/// The known addresses of every trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkTargets {
    by_trunk: Vec<Vec<Target>>,
}

impl TrunkTargets {
    /// Those of trunks that are configured by an address; none of the others yet.
    #[must_use]
    pub fn configured(trunks: &[Trunk]) -> Self {
        let of = |trunk: &Trunk| {
            let addr = trunk.address.fixed()?;
            Some(Target {
                priority: 0,
                weight: 0,
                addr,
                transport: trunk.transport,
            })
        };
        Self {
            by_trunk: trunks
                .iter()
                .map(|trunk| of(trunk).into_iter().collect())
                .collect(),
        }
    }

    /// A trunk's addresses.
    #[must_use]
    pub fn of(&self, trunk: TrunkId) -> &[Target] {
        self.by_trunk
            .get(usize::from(trunk.0))
            .map_or(&[], Vec::as_slice)
    }

    /// Takes what was found for a trunk, [`MAX_TARGETS`] at most.
    pub fn set(&mut self, trunk: TrunkId, mut targets: Vec<Target>) {
        targets.truncate(MAX_TARGETS);
        if let Some(of) = self.by_trunk.get_mut(usize::from(trunk.0)) {
            *of = targets;
        }
    }

    /// Whether an IP address is one of a trunk's.
    #[must_use]
    pub fn has(&self, trunk: TrunkId, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.of(trunk)
            .iter()
            .any(|target| target.addr.ip().to_canonical() == ip)
    }

    /// Every address, in the configuration's order.
    pub fn all(&self) -> impl Iterator<Item = (TargetKey, &Target)> {
        (0..=u16::MAX)
            .zip(&self.by_trunk)
            .flat_map(|(at, targets)| {
                targets.iter().map(move |target| {
                    let key = TargetKey {
                        trunk: TrunkId(at),
                        addr: target.addr,
                        transport: target.transport,
                    };
                    (key, target)
                })
            })
    }

    /// A trunk's addresses in the order in which one call tries them.
    #[must_use]
    pub fn in_order(&self, trunk: TrunkId, rng: &mut dyn RngCore) -> Vec<Target> {
        let ranked = self
            .of(trunk)
            .iter()
            .map(|target| (target.priority, target.weight, *target))
            .collect();
        in_weighted_order(ranked, rng)
    }
}

/// Sorts by priority, lower first, and those of the same priority at random by weight (RFC 2782):
/// one of weight 0 is seldom first among others.
#[must_use]
pub fn in_weighted_order<T>(ranked: Vec<(u16, u16, T)>, rng: &mut dyn RngCore) -> Vec<T> {
    let mut rest = ranked;
    // Those of weight 0 come first in the running sum, so that they keep a small chance.
    rest.sort_by_key(|(priority, weight, _)| (*priority, *weight));
    let mut ordered = Vec::with_capacity(rest.len());
    while let Some(priority) = rest.first().map(|(priority, ..)| *priority) {
        let equals = rest.iter().take_while(|(of, ..)| *of == priority);
        let (count, sum) = equals.fold((0_usize, 0_u64), |(count, sum), (_, weight, _)| {
            (count + 1, sum + u64::from(*weight))
        });
        let at = if count == 1 {
            0
        } else if sum == 0 {
            rng.random_range(0..count)
        } else {
            let drawn = rng.random_range(0..=sum);
            let mut running = 0;
            rest.iter()
                .take(count)
                .position(|(_, weight, _)| {
                    running += u64::from(*weight);
                    running >= drawn
                })
                .unwrap_or(0)
        };
        let (.., item) = rest.remove(at);
        ordered.push(item);
    }
    ordered
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    use super::*;

    #[test]
    fn weights_share_the_calls_and_priorities_come_first() {
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        let mut first = [0_u32; 4];
        for _ in 0..2_000 {
            let ranked = vec![(2, 100, 3), (1, 60, 0), (1, 30, 1), (1, 10, 2)];
            let order = in_weighted_order(ranked, &mut rng);
            first[order[0]] += 1;
            assert_eq!(order[3], 3, "a higher priority is last");
        }
        assert_eq!(first[3], 0);
        for (at, share) in [(0, 1_200), (1, 600), (2, 200)] {
            assert!(first[at].abs_diff(share) < 120, "{first:?}");
        }
    }

    #[test]
    fn one_of_weight_0_is_seldom_first_and_equal_zeros_share() {
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        let mut seldom = 0;
        let mut even = [0_u32; 2];
        for _ in 0..2_000 {
            seldom += u32::from(in_weighted_order(vec![(1, 0, 0), (1, 50, 1)], &mut rng)[0] == 0);
            even[in_weighted_order(vec![(1, 0, 0), (1, 0, 1)], &mut rng)[0]] += 1;
        }
        assert!((1..150).contains(&seldom), "{seldom}");
        assert!(even[0].abs_diff(1_000) < 120, "{even:?}");
    }

    proptest! {
        #[test]
        fn an_order_holds_everything_once_and_by_priority(
            ranked in proptest::collection::vec((0..4_u16, any::<u16>()), 0..20),
            seed in any::<u64>(),
        ) {
            let items: Vec<_> = (0..).zip(&ranked).map(|(at, (p, w))| (*p, *w, (*p, at))).collect();
            let order = in_weighted_order(items, &mut ChaCha12Rng::seed_from_u64(seed));
            prop_assert!(order.is_sorted_by_key(|(priority, _)| *priority));
            let mut places: Vec<usize> = order.iter().map(|(_, at)| *at).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..ranked.len()).collect::<Vec<_>>());
        }
    }
}
