//! Where a party's packets come from: its source is latched, so that NAT between it and us does not
//! matter and nobody else is heard.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::counters::DropReason;
use crate::tick::Tick;

/// How long the source of before is not taken for the new one: what was on its way when the address
/// changed has arrived, and a party that changed nothing but its words is heard again.
const OUTDATED: Duration = Duration::from_secs(2);

/// The source of one flow of one party.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    source: Option<SocketAddr>,
    before: Option<Before>,
}

/// The source that was latched before the party described another address.
#[derive(Clone, Copy, Debug)]
struct Before {
    source: SocketAddr,
    /// When it was heard first after that.
    heard: Option<Tick>,
}

impl Latch {
    /// The party described another address.
    pub(crate) fn release(&mut self) {
        if let Some(source) = self.source.take() {
            self.before = Some(Before {
                source,
                heard: None,
            });
        }
    }

    /// Whether a packet may be the party's. `told`: where it said that it is, from where it is always
    /// heard; `sources`: the hosts that its packets may come from.
    pub(crate) fn check(
        &mut self,
        now: Tick,
        from: SocketAddr,
        told: Option<SocketAddr>,
        sources: &[IpAddr],
    ) -> Result<(), DropReason> {
        if self.source.is_some_and(|latched| is_same(latched, from)) {
            return Ok(());
        }
        if !sources.contains(&from.ip()) {
            return Err(DropReason::Stranger);
        }
        if told.is_some_and(|told| is_same(told, from)) {
            return Ok(());
        }
        if self.source.is_some() {
            return Err(DropReason::NotLatched);
        }
        match &mut self.before {
            Some(before) if is_same(before.source, from) => {
                let first = *before.heard.get_or_insert(now);
                if now.since(first) < OUTDATED {
                    return Err(DropReason::NotLatched);
                }
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Latches the source of a packet that passed [`Self::check`] and is one; `true`: it is another
    /// than before.
    pub(crate) fn take(&mut self, from: SocketAddr) -> bool {
        if self.source.is_some_and(|latched| is_same(latched, from)) {
            return false;
        }
        self.source = Some(from);
        self.before = None;
        true
    }

    /// The latched source, if [`Self::check`] lets no other pass: the party is where it said.
    pub(crate) fn only(&self, told: Option<SocketAddr>) -> Option<SocketAddr> {
        self.source
            .filter(|latched| told.is_none_or(|told| is_same(told, *latched)))
    }

    pub(crate) const fn source(&self) -> Option<SocketAddr> {
        self.source
    }
}

/// Flow label and scope of an IPv6 address do not make another source.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}
