//! Our own addresses for media: one, or one of each family.
//!
//! What lives elsewhere: the sockets on them ([`crate::engine`]), and which party is told of which
//! (`maskline-switch`).

use std::net::IpAddr;

/// One address, or one of each family; the first is told to whoever gave no hint of its own family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaAddresses {
    first: IpAddr,
    second: Option<IpAddr>,
}

impl From<IpAddr> for MediaAddresses {
    fn from(first: IpAddr) -> Self {
        Self {
            first,
            second: None,
        }
    }
}

impl MediaAddresses {
    /// One of each family; `None`: both are of the same.
    #[must_use]
    pub fn both(first: IpAddr, second: IpAddr) -> Option<Self> {
        (!are_alike(first, second)).then_some(Self {
            first,
            second: Some(second),
        })
    }

    /// The first address.
    #[must_use]
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// That of the other family, if there is one.
    #[must_use]
    pub const fn second(self) -> Option<IpAddr> {
        self.second
    }

    /// All of them, the first one first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.first).chain(self.second)
    }

    /// That of the same family as another.
    #[must_use]
    pub fn like(self, other: IpAddr) -> Option<IpAddr> {
        self.iter().find(|ours| are_alike(*ours, other))
    }

    /// The same, with that of another's family first, if there is one.
    #[must_use]
    pub fn preferring(self, other: IpAddr) -> Self {
        match self.second {
            Some(second) if are_alike(second, other) => Self {
                first: second,
                second: Some(self.first),
            },
            Some(_) | None => self,
        }
    }
}

/// Whether two addresses are of one family.
#[must_use]
pub const fn are_alike(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn each_family_has_one_address_at_most_and_is_found() {
        assert_eq!(MediaAddresses::both(V4, V4), None);
        assert_eq!(MediaAddresses::both(V6, V6), None);
        let alone = MediaAddresses::from(V4);
        assert_eq!((alone.like(V4), alone.like(V6)), (Some(V4), None));
        assert_eq!(alone.preferring(V6), alone);
        let both = MediaAddresses::both(V4, V6);
        let turned = both.map(|both| both.preferring(V6));
        assert_eq!(turned, MediaAddresses::both(V6, V4));
        assert_eq!(turned.map(|it| it.preferring(V6)), turned);
        assert_eq!(both.and_then(|both| both.like(V6)), Some(V6));
        let all: Vec<_> = both.into_iter().flat_map(MediaAddresses::iter).collect();
        assert_eq!(all, [V4, V6]);
    }
}
