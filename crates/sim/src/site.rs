//! The made-up site: addresses, numbers, trunks, and who the people are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maskline_events::{Action, Callflow, EarlyMedia, Msisdn};
use maskline_media::{MediaAddresses, Side};
use maskline_phone::{Asks, Identity, Part, PhoneConfig};
use maskline_switch::sdp::SrtpPolicy;
use maskline_switch::sip::compose::SentBy;
use maskline_switch::sip::{Peer, SipTimers, Transport};
use maskline_switch::{
    Directory, IdentityRules, InboundAuth, Keepalive, Listener, NumberEntry, OutboundAuth,
    Password, SwitchConfig, Target, TraceLimits, Trunk, TrunkAuth, TrunkId, TrunkRegistration,
    TrunkTargets,
};

use crate::network::Wire;
use crate::numbering::Numbering;
use crate::parameters;
use crate::registrar;
use crate::scenario::{CallPlan, OtherWay, Sabotage, Scenario, VcaAnswer};

/// The sub-account of every number.
const SUB_ACCOUNT: &str = "sim-account";
/// Who every party says it is when it is asked, and how it proves that.
const USERNAME: &str = "trunk-user";
const PASSWORD: &str = "trunk-password";
/// The same, for the registrars.
pub(crate) const CREDENTIALS: (&str, &str) = (USERNAME, PASSWORD);
/// Calls from this number on stand for registrars, whose wires are like those of callees.
pub(crate) const REGISTRARS: usize = 10_000;
/// Longer than any call may last: what a user's patience measures.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where the switch listens, over every transport.
pub(crate) fn switch_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), 5060)
}

/// What the switch says of its media.
fn our_media(both_families: bool) -> MediaAddresses {
    let first = switch_address().ip();
    let second = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let both = MediaAddresses::both(first, second.into());
    both.filter(|_| both_families)
        .unwrap_or_else(|| first.into())
}

/// Where a phone's media are that has IPv6.
#[must_use]
pub fn ipv6_media(call: usize, side: Side) -> SocketAddr {
    let net = match side {
        Side::Caller => 0xa,
        Side::Callee => 0xb,
    };
    let last = u16::try_from(call).unwrap_or(0) + 1;
    let ip = Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last);
    SocketAddr::new(ip.into(), 40_000)
}

/// Where a phone is.
pub(crate) fn wire_address(wire: Wire) -> SocketAddr {
    let mut addr = phone_address(wire.call, wire.side);
    let line = u16::try_from(wire.line).unwrap_or(0);
    addr.set_port(addr.port() + line);
    addr
}

pub(crate) fn phone_address(call: usize, side: Side) -> SocketAddr {
    if let Some(registrar) = call.checked_sub(REGISTRARS) {
        let last = u8::try_from(registrar).unwrap_or(0);
        return SocketAddr::from(([198, 51, 100, last], 5060));
    }
    let last = u8::try_from(call % 200).unwrap_or(0) + 10;
    let ip = match side {
        Side::Caller => Ipv4Addr::new(192, 0, 2, last),
        Side::Callee => Ipv4Addr::new(203, 0, 113, last),
    };
    SocketAddr::new(IpAddr::V4(ip), 5060)
}

fn number(text: &str) -> Option<Msisdn> {
    Msisdn::parse(text).ok()
}

/// The number of a person.
pub(crate) fn phone_number(call: usize, side: Side) -> String {
    match side {
        Side::Caller => format!("+6591234{call:03}"),
        Side::Callee => format!("+6581987{call:03}"),
    }
}

/// The virtual number that a call's caller dials.
pub(crate) fn virtual_number(call: usize) -> String {
    format!("+6568330{call:03}")
}

/// The Request-URI that a caller dials.
pub(crate) fn dialled_uri(call: usize, plan: &CallPlan, numbering: Numbering) -> String {
    let number = if plan.unassigned {
        "+6568339999".to_owned()
    } else {
        virtual_number(call)
    };
    numbering.dialled(&number)
}

/// The switch as a phone sees it.
pub(crate) fn switch_as_peer(transport: Transport) -> Peer {
    Peer {
        listener: 0,
        transport,
        addr: switch_address(),
    }
}

/// A phone as the switch sees it.
pub(crate) fn phone_as_peer(addr: SocketAddr, transport: Transport) -> Peer {
    let listener = match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
    };
    Peer {
        listener,
        transport,
        addr,
    }
}

fn word(side: Side, call: usize) -> String {
    let who = match side {
        Side::Caller => "alicia",
        Side::Callee => "benedikt",
    };
    format!("{who}{call}q")
}

fn identity(call: usize, side: Side) -> Identity {
    let word = word(side, call);
    let extra = [
        ("Subject", format!("about {word}-subject")),
        ("X-Device-Serial", format!("{word}-serial")),
        ("Organization", format!("{word}-company")),
        (
            "P-Preferred-Identity",
            format!("<sip:{word}-private@{word}.example>"),
        ),
        (
            "Call-Info",
            format!("<http://{word}.example/photo.png>;purpose=icon"),
        ),
    ];
    Identity {
        user: phone_number(call, side),
        display_name: format!("{word}-display"),
        domain: format!("{word}-host.example"),
        user_agent: format!("{word}-phone/1.0"),
        mark: format!("{word}mark"),
        extra: extra.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    }
}

/// Texts of a party that must not be in any byte towards the other.
pub(crate) fn sentinels(call: usize, side: Side) -> [String; 3] {
    [
        word(side, call),
        // The national number, so that no way of writing it is missed.
        phone_number(call, side)
            .trim_start_matches("+65")
            .to_owned(),
        format!("{}", phone_address(call, side).ip()),
    ]
}

/// The caller's display name, for the sabotage that lets it through.
pub(crate) fn display_name(call: usize) -> String {
    identity(call, Side::Caller).display_name
}

/// A phone of a call.
pub(crate) fn phone_config(wire: Wire, plan: &CallPlan, numbering: Numbering) -> PhoneConfig {
    let Wire { call, side, .. } = wire;
    let addr = wire_address(wire);
    let mut identity = identity(call, side);
    if side == Side::Caller {
        if plan.forwarded {
            identity.user = virtual_number(call);
        }
        numbering.introduce(&mut identity, plan.withholds);
    }
    let (part, manners) = match (side, other_way(plan, wire)) {
        (Side::Caller, _) => (Part::Caller(plan.caller.clone()), plan.caller_manners),
        (Side::Callee, Some(other)) => (Part::Callee(other.callee.clone()), other.manners),
        (Side::Callee, None) => (Part::Callee(plan.callee.clone()), plan.callee_manners),
    };
    let transport = transport_of(plan, wire);
    PhoneConfig {
        sent_by: SentBy {
            host_port: addr.to_string(),
            transport,
        },
        media: if side == Side::Caller && plan.caller_over_ipv6 {
            ipv6_media(call, side)
        } else {
            SocketAddr::new(addr.ip(), 40_000)
        },
        identity,
        timers: SipTimers::default(),
        audio: None,
        part,
        credentials: match side {
            Side::Caller => Some(our_credentials(!plan.caller_guesses)),
            Side::Callee => None,
        },
        asks: plan
            .callee_asks
            .filter(|_| side == Side::Callee)
            .map(|asks| Asks {
                proxy: asks.proxy,
                only_md5: asks.only_md5,
                stale_once: asks.stale_once,
                asks_bye: asks.asks_bye,
                asks_changes: asks.asks_changes,
                username: USERNAME.to_owned(),
                password: PASSWORD.to_owned(),
            }),
        manners,
        patience: PATIENCE,
    }
}

/// What somebody answers who is asked for credentials, and whether that is right.
fn our_credentials(right: bool) -> OutboundAuth {
    let password = if right { PASSWORD } else { "a guess" };
    OutboundAuth {
        username: USERNAME.to_owned(),
        password: Password::new(password.to_owned()),
        realm: None,
    }
}

/// What stands behind a phone of B's that is not the first.
pub(crate) fn other_way(plan: &CallPlan, wire: Wire) -> Option<&OtherWay> {
    plan.others.get(wire.line.checked_sub(1)?)
}

/// How a phone's messages travel.
pub(crate) fn transport_of(plan: &CallPlan, wire: Wire) -> Transport {
    match (wire.side, other_way(plan, wire)) {
        (Side::Caller, _) => plan.caller_transport,
        (Side::Callee, Some(other)) => other.transport,
        (Side::Callee, None) => plan.callee_transport,
    }
}

/// Every other way that is a trunk of its own, in order: the call and the line.
fn other_trunks(scenario: &Scenario) -> impl Iterator<Item = (Wire, &OtherWay)> {
    scenario.calls.iter().enumerate().flat_map(|(call, plan)| {
        (1..)
            .zip(&plan.others)
            .filter(|(_, other)| other.own_trunk)
            .map(move |(line, other)| {
                let wire = Wire {
                    call,
                    side: Side::Callee,
                    line,
                };
                (wire, other)
            })
    })
}

fn trunk_id(at: usize) -> TrunkId {
    TrunkId(u16::try_from(at).unwrap_or(u16::MAX))
}

/// Where the trunks can be reached: a callee's first by its first address, then by its others in
/// order.
pub(crate) fn targets(scenario: &Scenario, trunks: &[Trunk]) -> Arc<TrunkTargets> {
    let mut targets = TrunkTargets::configured(trunks);
    for (call, plan) in scenario.calls.iter().enumerate() {
        let trunk = trunk_id(call + 1);
        let mut of = targets.of(trunk).to_vec();
        for (line, other) in (1..)
            .zip(&plan.others)
            .filter(|(_, other)| !other.own_trunk)
        {
            let side = Side::Callee;
            of.push(Target {
                priority: u16::try_from(line).unwrap_or(0),
                weight: 0,
                addr: wire_address(Wire { call, side, line }),
                transport: other.transport,
            });
        }
        targets.set(trunk, of);
    }
    Arc::new(targets)
}

/// The trunks: one for all callers, one for each callee, then those that their calls may overflow to.
pub(crate) fn trunks(scenario: &Scenario) -> Arc<[Trunk]> {
    let keepalive = Keepalive {
        crlf: None,
        options: scenario.supervision.as_ref().map(|plan| plan.every),
    };
    let trunk = |name: String, address, transport, allow: &str, max_calls| Trunk {
        transport,
        allow: allow.parse().into_iter().collect(),
        max_calls,
        identity: IdentityRules {
            reveal_withheld: scenario.sabotage == Sabotage::RevealWithheld,
            ..scenario.numbering.rules()
        },
        ..Trunk::new(name, address)
    };
    let mut inbound = trunk(
        "callers".to_owned(),
        phone_address(199, Side::Caller),
        Transport::Udp,
        "192.0.2.0/24",
        scenario.max_calls,
    );
    if scenario.callers_asked {
        inbound.auth.inbound = Some(InboundAuth::with_password(USERNAME, "masked", PASSWORD));
    }
    let outbound = scenario.calls.iter().enumerate().map(|(call, plan)| {
        let addr = phone_address(call, Side::Callee);
        let overflow = other_trunks(scenario)
            .enumerate()
            .filter(|(_, (wire, _))| wire.call == call)
            .map(|(at, _)| trunk_id(1 + scenario.calls.len() + at))
            .collect();
        let right = !plan.callee_asks.is_some_and(|asks| asks.wrong_password);
        Trunk {
            auth: TrunkAuth {
                inbound: None,
                outbound: Some(our_credentials(right)),
            },
            overflow,
            keepalive: keepalive.clone(),
            srtp: match plan.callee_manners.keys {
                Some(_) => SrtpPolicy::Required,
                None => SrtpPolicy::Off,
            },
            ..trunk(
                format!("callee{call}"),
                addr,
                plan.callee_transport,
                "",
                plan.callee_trunk_calls,
            )
        }
    });
    let registered = scenario.registrar.as_ref().map(|plan| {
        let at = |registrar| phone_address(REGISTRARS + registrar, Side::Callee);
        Trunk {
            auth: TrunkAuth {
                inbound: None,
                outbound: Some(our_credentials(true)),
            },
            registration: Some(TrunkRegistration {
                registrar: format!("sip:{}", registrar::DOMAIN),
                address_of_record: format!("sip:{USERNAME}@{}", registrar::DOMAIN),
                contact_user: USERNAME.to_owned(),
                targets: (0..plan.count).map(at).collect(),
                expires_seconds: plan.expires_seconds,
            }),
            ..Trunk::new("registered", at(0))
        }
    });
    let others = other_trunks(scenario).map(|(wire, other)| {
        let name = format!("callee{}-{}", wire.call, wire.line);
        Trunk {
            auth: TrunkAuth {
                inbound: None,
                outbound: Some(our_credentials(true)),
            },
            keepalive: keepalive.clone(),
            ..trunk(name, wire_address(wire), other.transport, "", 100)
        }
    });
    std::iter::once(inbound)
        .chain(outbound)
        .chain(others)
        .chain(registered)
        .collect()
}

/// One shard's configuration.
pub(crate) fn switch_config(
    scenario: &Scenario,
    shard: u16,
    trunks: &Arc<[Trunk]>,
) -> SwitchConfig {
    let listener = |transport| Listener {
        sent_by: SentBy {
            host_port: switch_address().to_string(),
            transport,
        },
        bound: switch_address(),
    };
    SwitchConfig {
        shard,
        listeners: [Transport::Udp, Transport::Tcp, Transport::Tls]
            .map(listener)
            .into(),
        trunks: Arc::clone(trunks),
        media_addresses: our_media(scenario.both_families),
        adopt_within: scenario.adopt_within,
        no_answer: scenario.no_answer,
        max_duration: scenario.max_duration,
        callflow_guard: Duration::from_secs(7),
        max_sessions: 100,
        max_transactions: 1_000,
        trace: TraceLimits {
            enabled: true,
            ..TraceLimits::default()
        },
        ..SwitchConfig::default()
    }
}

/// The numbers.
pub(crate) fn directory(scenario: &Scenario) -> Arc<Directory> {
    let entries = scenario
        .calls
        .iter()
        .enumerate()
        .filter_map(|(call, plan)| {
            Some(NumberEntry {
                msisdn: number(&virtual_number(call))?,
                sub_account_id: SUB_ACCOUNT.to_owned(),
                reference_id: format!("ref-{call}"),
                trunk: Some(format!("callee{call}")),
                early_media: plan.early_media,
            })
        });
    let countries = [(SUB_ACCOUNT.to_owned(), BTreeSet::from(["SG".to_owned()]))];
    let parameters = (scenario.sabotage != Sabotage::LoseParameters)
        .then(|| (SUB_ACCOUNT.to_owned(), parameters::configured()));
    Arc::new(Directory::new(entries, countries).with_parameters(parameters))
}

/// The numbers of a site whose calls leave by the first trunk.
pub(crate) fn directory_by_first_trunk(numbers: usize) -> Arc<Directory> {
    let entries = (0..numbers).filter_map(|call| {
        Some(NumberEntry {
            msisdn: number(&virtual_number(call))?,
            sub_account_id: SUB_ACCOUNT.to_owned(),
            reference_id: format!("ref-{call}"),
            trunk: None,
            early_media: EarlyMedia::default(),
        })
    });
    let countries = [(SUB_ACCOUNT.to_owned(), BTreeSet::from(["SG".to_owned()]))];
    Arc::new(Directory::new(entries, countries))
}

/// The callflow that an endpoint answers; `None`: it answers no callflow.
pub(crate) fn callflow(call: usize, answer: VcaAnswer) -> Option<Callflow> {
    let make_call = |source: &str, destination: &str| {
        Some(vec![Action::MakeCall {
            source: number(source)?,
            destination: number(destination)?,
            call_recording: false,
        }])
    };
    let own = virtual_number(call);
    let callee = phone_number(call, Side::Callee);
    let actions = match answer {
        VcaAnswer::MakeCall => make_call(&own, &callee),
        VcaAnswer::MakeCallFromElsewhere => make_call("+6568337777", &callee),
        VcaAnswer::MakeCallAbroad => make_call(&own, "+4930123456"),
        VcaAnswer::MakeCallToVirtual => make_call(&own, &own),
        VcaAnswer::Hangup => Some(vec![Action::Hangup]),
        VcaAnswer::Empty => Some(Vec::new()),
        VcaAnswer::Unsupported => Some(vec![Action::PlayFile {
            file_url: "https://files.example/a.mp3".to_owned(),
            repetition: 1,
        }]),
        VcaAnswer::Unreachable | VcaAnswer::Invalid => None,
    };
    actions.map(|actions| Callflow {
        client_action_id: None,
        actions,
    })
}
