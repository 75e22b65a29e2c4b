//! What an operator configures of the switch, resolved to plain values.

mod keepalive;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maskline_media::MediaAddresses;

use crate::credentials::TrunkAuth;
use crate::identity::IdentityRules;
use crate::registration::TrunkRegistration;
use crate::routes::Route;
use crate::sdp::{SrtpPolicy, Transcoding};
use crate::sip::compose::SentBy;
use crate::sip::{Peer, SipTimers, Transport};
use crate::targets::TrunkAddress;
use crate::trace::TraceLimits;

pub use keepalive::Keepalive;
pub use tls::{Fingerprint, PeerCertificate, TrunkTls};

/// Index of a trunk in the configuration's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrunkId(pub u16);

/// One carrier connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Its name; numbers refer to it.
    pub name: String,
    /// Where calls go out.
    pub address: TrunkAddress,
    /// How they travel, unless DNS decides.
    pub transport: Transport,
    /// Who may send calls in.
    pub allow: Vec<IpNet>,
    /// Addresses beside the negotiated one from which media may come.
    pub media_sources: Vec<IpAddr>,
    /// Whether keys are listened for in the audio of a party that knows no telephone-event.
    pub inband_keys: bool,
    /// Most legs at the same time, in and out.
    pub max_calls: u32,
    /// Most new calls per second, in and out; short bursts up to one second's worth.
    pub max_calls_per_second: u32,
    /// Most new calls per second that one address of the trunk may bring; `None`: as many as the
    /// trunk.
    pub max_calls_per_source_per_second: Option<u32>,
    /// How it writes numbers and names callers.
    pub identity: IdentityRules,
    /// TLS, where `transport` is TLS or the carrier is known by its certificate.
    pub tls: TrunkTls,
    /// Digest credentials, in both directions.
    pub auth: TrunkAuth,
    /// Where and as whom it registers; `None`: it needs not.
    pub registration: Option<TrunkRegistration>,
    /// What keeps its way open.
    pub keepalive: Keepalive,
    /// Whether its media are protected. Keys travel in SDP, and so only by TLS.
    pub srtp: SrtpPolicy,
    /// Trunks that may carry the calls of this one's numbers, in order, when it does not.
    pub overflow: Vec<TrunkId>,
}

impl Default for Trunk {
    /// As [`Self::new`], without a name and an address.
    fn default() -> Self {
        Self::new("", SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
    }
}

impl Trunk {
    /// A trunk over UDP that takes calls from nobody yet, with the limits of the reference
    /// configuration.
    #[must_use]
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            transport: Transport::Udp,
            allow: Vec::new(),
            media_sources: Vec::new(),
            inband_keys: false,
            max_calls: 1000,
            max_calls_per_second: 100,
            max_calls_per_source_per_second: None,
            identity: IdentityRules::default(),
            tls: TrunkTls::default(),
            auth: TrunkAuth::default(),
            registration: None,
            overflow: Vec::new(),
            keepalive: Keepalive::default(),
            srtp: SrtpPolicy::default(),
        }
    }

    /// Whether this address may send calls in: those that are allowed to, and the registrars that
    /// have a binding of ours.
    #[must_use]
    pub fn allows(&self, source: IpAddr) -> bool {
        let registrars = self.registration.as_ref();
        self.allow.iter().any(|net| net.contains(&source))
            || registrars.is_some_and(|registration| registration.is_at(source))
    }
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What we write into `Via` and `Contact` for messages through it.
    pub sent_by: SentBy,
    /// The address that it is bound to, for its family.
    pub bound: SocketAddr,
}

/// What one shard needs to know.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// This shard.
    pub shard: u16,
    /// Listening sockets in the configuration's order.
    pub listeners: Arc<[Listener]>,
    /// Trunks in the configuration's order.
    pub trunks: Arc<[Trunk]>,
    /// Ways out for the calls of numbers without a trunk.
    pub routes: Arc<[Route]>,
    /// When a call goes on to another address or trunk.
    pub failover: Failover,
    /// What we write into SDP.
    pub media_addresses: MediaAddresses,
    /// Whether parties without a common codec are helped out.
    pub transcoding: Transcoding,
    /// Whether the media engine has something to hear for a party on hold.
    pub plays_on_hold: bool,
    /// Whether a party is offered the other one's payload types: the media engine can't map numbers.
    pub keeps_payload_types: bool,
    /// SIP's base timers.
    pub timers: SipTimers,
    /// How long a callee may ring.
    pub no_answer: Duration,
    /// How long a call may last.
    pub max_duration: Duration,
    /// The session interval that we ask for, at least 90 s (RFC 4028); `None`: we ask for none, and
    /// take a peer's.
    pub session_expires: Option<Duration>,
    /// How long the shard waits for a callflow at most. The VCA client has its own, shorter
    /// deadline; this one only guards against a lost answer.
    pub callflow_guard: Duration,
    /// How long the node may have been away for a connected call to go on; zero: never.
    pub adopt_within: Duration,
    /// How long a BYE that is passed on waits for its commit (1 s by the contract).
    pub bye_gate: Duration,
    /// Most sessions of this shard; a call above it is refused with 503.
    pub max_sessions: usize,
    /// Most SIP transactions of this shard; a request above it is dropped, one of a call that is up
    /// above twice as many.
    pub max_transactions: usize,
    /// How much of each call is told.
    pub trace: TraceLimits,
}

/// When a call that a trunk does not take goes on to another address or trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// An INVITE that heard nothing at all for so long is given up for the next address; below
    /// 64*T1, after which it would be given up anyway.
    pub silence: Duration,
    /// No further address is begun with after so long.
    pub within: Duration,
    /// Most addresses that one call tries.
    pub attempts: usize,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(4),
            within: Duration::from_secs(12),
            attempts: 4,
        }
    }
}

impl Default for SwitchConfig {
    /// No sockets and no trunks; times and limits as in the reference configuration.
    fn default() -> Self {
        Self {
            shard: 0,
            listeners: Arc::default(),
            trunks: Arc::default(),
            routes: Arc::default(),
            failover: Failover::default(),
            media_addresses: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
            transcoding: Transcoding::default(),
            plays_on_hold: true,
            keeps_payload_types: false,
            timers: SipTimers::default(),
            no_answer: Duration::from_secs(60),
            max_duration: Duration::from_secs(14_400),
            session_expires: Some(Duration::from_secs(1_800)),
            callflow_guard: Duration::from_secs(10),
            adopt_within: Duration::from_secs(5),
            bye_gate: Duration::from_secs(1),
            max_sessions: 1_000,
            max_transactions: 10_000,
            trace: TraceLimits::default(),
        }
    }
}

impl SwitchConfig {
    /// A trunk.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&Trunk> {
        self.trunks.get(usize::from(id.0))
    }

    /// The trunk by which a number's calls go out: the named one, else the first.
    #[must_use]
    pub fn outbound(&self, name: Option<&str>) -> Option<TrunkId> {
        let at = match name {
            Some(name) => self.trunks.iter().position(|trunk| trunk.name == name)?,
            None if self.trunks.is_empty() => return None,
            None => 0,
        };
        u16::try_from(at).ok().map(TrunkId)
    }

    /// How a trunk that is configured by an address is reached.
    #[must_use]
    pub fn peer_of(&self, trunk: &Trunk) -> Option<Peer> {
        self.peer_at(trunk.transport, trunk.address.fixed()?)
    }

    /// Through which socket an address is reached: the first of its transport and family.
    #[must_use]
    pub fn peer_at(&self, transport: Transport, addr: SocketAddr) -> Option<Peer> {
        self.listeners
            .iter()
            .position(|listener| {
                listener.sent_by.transport == transport
                    && listener.bound.is_ipv4() == addr.is_ipv4()
            })
            .and_then(|at| u16::try_from(at).ok())
            .map(|listener| Peer {
                listener,
                transport,
                addr,
            })
    }

    /// What we write into `Via` and `Contact` towards a peer.
    #[must_use]
    pub fn sent_by(&self, peer: Peer) -> Option<&SentBy> {
        self.listeners
            .get(usize::from(peer.listener))
            .map(|listener| &listener.sent_by)
    }
}
