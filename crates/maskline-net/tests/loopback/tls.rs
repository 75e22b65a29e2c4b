//! SIP over TLS: who is believed, both ways, and a new certificate in the middle of a call.

use std::net::IpAddr;
use std::time::Duration;

use maskline_net::{NetLimits, TlsConfig, TlsServer, TlsTrunk};
use maskline_switch::sip::Transport;
use maskline_switch::{Fingerprint, TrunkTls};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::calls::{WHOLE_CALL, answered, hung_up};
use crate::certificates::{Authority, Files, Pair, Secured};
use crate::phone::{Datagrams, Phone, Stream, header, invite, options};
use crate::world::{A, B, Plan, STRANGER, World, statuses};

const SWITCH: &str = "switch.example";

/// A node whose TLS listener shows a certificate for [`SWITCH`].
fn plan(files: &Files, authority: &Authority) -> Plan {
    let mut plan = Plan::quiet();
    plan.tls.server = Some(TlsServer {
        identity: files.identity("switch", &authority.sign(&[SWITCH])),
        hosts: Vec::new(),
        client_ca: None,
    });
    plan
}

async fn opened(world: &World, from: IpAddr, authority: &Authority) -> Secured {
    Secured::open(from, world.tls.unwrap(), SWITCH, authority, None)
        .await
        .unwrap()
}

/// Asks and is answered.
async fn is_served(phone: &mut Secured, call_id: &str) -> String {
    phone.say(&options(&phone.via(), call_id)).await;
    phone.expect("SIP/2.0 200 ").await
}

/// Whether the node serves a connection that shows this.
async fn serves(world: &World, from: IpAddr, authority: &Authority, shows: Option<&Pair>) -> bool {
    let tls = world.tls.unwrap();
    let Ok(mut phone) = Secured::open(from, tls, SWITCH, authority, shows).await else {
        return false;
    };
    // Each a call of its own: the same one by another way would be a copy.
    let call_id = format!("who{}", phone.local().port());
    let request = invite(&phone.via(), phone.local(), &call_id);
    // The last of the handshake may come back as an error of the first reading.
    let asking = tokio::spawn(async move {
        phone.say(&request).await;
        phone.hear().await
    });
    asking
        .await
        .is_ok_and(|answer| answer.starts_with("SIP/2.0 100 "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_call_goes_in_and_out_over_tls_and_says_so_in_via_and_contact() {
    let (files, authority, carriers) = (Files::new(), Authority::new(), Authority::new());
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = plan(&files, &authority);
    plan.outbound = (Transport::Tls, carrier.local_addr().unwrap());
    plan.trunk_tls.sips = true;
    plan.tls.trunks = vec![TlsTrunk {
        server_name: Some("sip.carrier.example".to_owned()),
        ca: Some(files.file("carriers.pem", &carriers.pem)),
        identity: Some(files.identity("ours", &carriers.sign(&["us.example"]))),
    }];
    let world = World::start(plan).await;
    let mut a = opened(&world, A, &authority).await;
    let via = a.via();
    a.say(&invite(&via, a.local(), "tls1")).await;
    let shows = carriers.sign(&["sip.carrier.example"]);
    let mut b = Secured::take(&carrier, &shows, Some(&carriers))
        .await
        .unwrap();
    let (ok, called) = answered(&mut a, &via, &mut b).await;
    let tls = world.tls.unwrap();
    assert_eq!(header(&ok, "Contact"), format!("<sip:{tls};transport=tls>"));
    assert!(
        header(&called, "Via").starts_with(&format!("SIP/2.0/TLS {tls};")),
        "{called}"
    );
    assert_eq!(header(&called, "Contact"), format!("<sips:{tls}>"));
    assert!(called.starts_with("INVITE sips:"), "{called}");
    assert!(header(&called, "To").starts_with("<sips:"), "{called}");
    hung_up(&mut a, &via, &ok, &mut b).await;
    assert_eq!(statuses(&world.story().await), WHOLE_CALL);
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_dials_sips_is_answered_with_a_sips_contact() {
    let (files, authority) = (Files::new(), Authority::new());
    let callee = Datagrams::at(B).await;
    let mut plan = plan(&files, &authority);
    plan.outbound.1 = callee.local();
    let world = World::start(plan).await;
    let mut b = callee.towards(world.udp);
    let mut a = opened(&world, A, &authority).await;
    let via = a.via();
    let request = invite(&via, a.local(), "sips1").replacen("INVITE sip:", "INVITE sips:", 1);
    a.say(&request).await;
    let (ok, called) = answered(&mut a, &via, &mut b).await;
    assert_eq!(
        header(&ok, "Contact"),
        format!("<sips:{}>", world.tls.unwrap())
    );
    assert!(called.starts_with("INVITE sip:"), "{called}");
    hung_up(&mut a, &via, &ok, &mut b).await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_shown_the_certificate_of_the_host_that_it_names() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut plan = plan(&files, &authority);
    let other = authority.sign(&["other.example"]);
    if let Some(server) = &mut plan.tls.server {
        server.hosts = vec![("other.example".to_owned(), files.identity("other", &other))];
    }
    let world = World::start(plan).await;
    let tls = world.tls.unwrap();
    let phone = Secured::open(A, tls, "Other.example", &authority, None)
        .await
        .unwrap();
    assert_eq!(phone.shown(), other.der());
    assert_ne!(opened(&world, A, &authority).await.shown(), other.der());
    let unknown = Secured::open(A, tls, "third.example", &authority, None).await;
    assert!(unknown.is_err(), "the default is for another name");
    world.node.stop().await;
}

/// What the callee's side looks like when its certificate is not accepted.
async fn is_refused(shown: &Pair, trunk: TlsTrunk, files: &Files, authority: &Authority) {
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = plan(files, authority);
    plan.outbound = (Transport::Tls, carrier.local_addr().unwrap());
    plan.tls.trunks = vec![trunk];
    let world = World::start(plan).await;
    let mut a = opened(&world, A, authority).await;
    a.say(&invite(&a.via(), a.local(), "refused")).await;
    let taken = Secured::take(&carrier, shown, None).await;
    assert!(taken.is_err());
    a.expect("SIP/2.0 500 ").await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_of_another_name_or_authority_gets_no_call() {
    let (files, authority, carriers) = (Files::new(), Authority::new(), Authority::new());
    let ca = Some(files.file("carriers.pem", &carriers.pem));
    let named = |name: Option<&str>| TlsTrunk {
        server_name: name.map(str::to_owned),
        ca: ca.clone(),
        identity: None,
    };
    let (files, authority) = (&files, &authority);
    let name = "sip.carrier.example";
    is_refused(
        &carriers.sign(&["elsewhere.example"]),
        named(Some(name)),
        files,
        authority,
    )
    .await;
    is_refused(
        &authority.sign(&[name]),
        named(Some(name)),
        files,
        authority,
    )
    .await;
    // Without a name, the address itself must be in the certificate.
    is_refused(&carriers.sign(&[name]), named(None), files, authority).await;
    is_refused(
        &Pair::self_signed(name),
        TlsTrunk::default(),
        files,
        authority,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_without_a_name_is_believed_by_its_address() {
    let (files, authority) = (Files::new(), Authority::new());
    let carrier = TcpListener::bind((B, 0)).await.unwrap();
    let mut plan = plan(&files, &authority);
    plan.outbound = (Transport::Tls, carrier.local_addr().unwrap());
    plan.tls.trunks = vec![TlsTrunk {
        ca: Some(files.file("ca.pem", &authority.pem)),
        ..TlsTrunk::default()
    }];
    let world = World::start(plan).await;
    let mut a = opened(&world, A, &authority).await;
    let via = a.via();
    a.say(&invite(&via, a.local(), "byaddress")).await;
    let shows = authority.sign(&["127.0.0.3"]);
    let mut b = Secured::take(&carrier, &shows, None).await.unwrap();
    let (ok, _) = answered(&mut a, &via, &mut b).await;
    hung_up(&mut a, &via, &ok, &mut b).await;
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_makes_a_stranger_s_connection_a_trunk_s() {
    let (files, authority, clients) = (Files::new(), Authority::new(), Authority::new());
    let pinned = Pair::self_signed("whatever.example");
    let mut plan = plan(&files, &authority);
    if let Some(server) = &mut plan.tls.server {
        server.client_ca = Some(files.file("clients.pem", &clients.pem));
    }
    plan.trunk_tls = TrunkTls {
        client_names: vec!["sip.carrier.example".to_owned()],
        client_fingerprints: vec![Fingerprint(Sha256::digest(pinned.der()).into())],
        ..TrunkTls::default()
    };
    let world = World::start(plan).await;
    let mut by_uri = CertificateParams::default();
    by_uri.subject_alt_names = vec![SanType::URI("sip:sip.carrier.example".try_into().unwrap())];
    by_uri.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let by_uri = clients.signed(by_uri);
    let by_name = clients.sign(&["x.example", "SIP.carrier.example"]);
    for pair in [&by_name, &by_uri, &pinned] {
        assert!(serves(&world, STRANGER, &authority, Some(pair)).await);
    }
    let other = clients.sign(&["other.example", "*.carrier.example"]);
    let forged = authority.sign(&["sip.carrier.example"]);
    for pair in [Some(&other), Some(&forged), None] {
        assert!(!serves(&world, STRANGER, &authority, pair).await);
    }
    // From an address of the trunk a certificate is not needed; but a forged one is no good.
    for (pair, served) in [(Some(&other), true), (None, true), (Some(&forged), false)] {
        assert_eq!(serves(&world, A, &authority, pair).await, served);
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_that_connected_and_proved_itself_is_called_on_its_own_connection() {
    let (files, authority, carriers) = (Files::new(), Authority::new(), Authority::new());
    let name = "sip.carrier.example";
    for by_name in [true, false] {
        let mut plan = plan(&files, &authority);
        let ca = files.file("carriers.pem", &carriers.pem);
        if let Some(server) = &mut plan.tls.server {
            server.client_ca = Some(ca.clone());
        }
        // Nobody listens there.
        plan.outbound = (Transport::Tls, (B, 9).into());
        plan.tls.trunks = vec![TlsTrunk {
            server_name: Some(name.to_owned()),
            ca: Some(ca),
            identity: None,
        }];
        if by_name {
            plan.trunk_tls.client_names = vec![name.to_owned()];
        }
        let world = World::start(plan).await;
        let tls = world.tls.unwrap();
        let pair = carriers.sign(&[name]);
        let mut b = Secured::open(B, tls, SWITCH, &authority, Some(&pair))
            .await
            .unwrap();
        is_served(&mut b, "here").await;
        // Another carrier of the authority, and one that shows nothing, are not called.
        let other = carriers.sign(&["other.example"]);
        let mut others = Vec::new();
        for shows in [Some(&other), None] {
            let mut phone = Secured::open(B, tls, SWITCH, &authority, shows)
                .await
                .unwrap();
            is_served(&mut phone, "there").await;
            others.push(phone);
        }
        let mut a = opened(&world, A, &authority).await;
        let via = a.via();
        a.say(&invite(&via, a.local(), "reused")).await;
        let (ok, _) = answered(&mut a, &via, &mut b).await;
        hung_up(&mut a, &via, &ok, &mut b).await;
        b.close().await;
        let mut late = opened(&world, A, &authority).await;
        late.say(&invite(&late.via(), late.local(), "gone")).await;
        late.expect("SIP/2.0 500 ").await;
        world.calls_over().await;
        world.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_closed_before_the_handshake_unless_certificates_tell_trunks() {
    let (files, authority) = (Files::new(), Authority::new());
    let world = World::start(plan(&files, &authority)).await;
    let mut stranger = Stream::open(STRANGER, world.tls.unwrap()).await;
    stranger.is_closed().await;
    assert!(!serves(&world, STRANGER, &authority, None).await);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_after_a_reload_and_a_broken_one_is_not_and_calls_go_on() {
    let (files, authority) = (Files::new(), Authority::new());
    let callee = Datagrams::at(B).await;
    let mut plan = plan(&files, &authority);
    plan.outbound.1 = callee.local();
    let world = World::start(plan).await;
    let mut b = callee.towards(world.udp);
    let mut a = opened(&world, A, &authority).await;
    let first = a.shown();
    let via = a.via();
    a.say(&invite(&via, a.local(), "reload")).await;
    let (ok, _) = answered(&mut a, &via, &mut b).await;

    let second = authority.sign(&[SWITCH]);
    files.file("switch.pem", &second.certificate);
    world.node.reload_tls();
    assert_eq!(
        opened(&world, A, &authority).await.shown(),
        first,
        "the key is another's"
    );
    files.file("switch.key", &second.key);
    world.node.reload_tls();
    assert_eq!(opened(&world, A, &authority).await.shown(), second.der());
    files.file("switch.pem", "no certificate");
    world.node.reload_tls();
    assert_eq!(opened(&world, A, &authority).await.shown(), second.der());
    // By itself, within a few seconds.
    let third = authority.sign(&[SWITCH]);
    files.identity("switch", &third);
    let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
    while opened(&world, A, &authority).await.shown() != third.der() {
        assert!(tokio::time::Instant::now() < deadline, "never read again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    hung_up(&mut a, &via, &ok, &mut b).await;
    assert_eq!(statuses(&world.story().await), WHOLE_CALL);
    world.calls_over().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_wordless_handshake_is_ended_and_too_many_are_not_begun() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut plan = plan(&files, &authority);
    plan.limits = NetLimits {
        handshake: Duration::from_millis(500),
        handshakes_per_address: 2,
        ..NetLimits::default()
    };
    let world = World::start(plan).await;
    let tls = world.tls.unwrap();
    let mut slow = Stream::open(A, tls).await;
    slow.say_bytes(&[0x16, 0x03]).await.unwrap();
    slow.is_closed().await;
    let mut plain = Stream::open(A, tls).await;
    plain.say(&options(&plain.via(), "plain")).await;
    plain.is_closed().await;
    let mut waiting = vec![Stream::open(A, tls).await, Stream::open(A, tls).await];
    for _ in 0..10 {
        Stream::open(A, tls).await.is_closed().await;
    }
    for stream in &mut waiting {
        stream.is_closed().await;
    }
    let mut phone = opened(&world, A, &authority).await;
    is_served(&mut phone, "after").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_stamped_and_a_ping_gets_its_pong_over_tls_as_over_tcp() {
    let (files, authority) = (Files::new(), Authority::new());
    let world = World::start(plan(&files, &authority)).await;
    let mut phone = opened(&world, A, &authority).await;
    let response = is_served(&mut phone, "stamped").await;
    let local = phone.local();
    let stamp = format!("received={};rport={}", local.ip(), local.port());
    assert!(header(&response, "Via").contains(&stamp), "{response}");
    phone.say("\r\n\r\n").await;
    assert_eq!(phone.hear_bytes(2).await, b"\r\n");
    phone.say("OPTIONS sip:a SIP/2.0\r\nTo: x\r\n\r\n").await;
    phone.is_closed().await;
    world.node.stop().await;
}

#[test]
fn a_file_that_can_not_be_used_is_named_with_its_key_and_the_reason() {
    let (files, authority) = (Files::new(), Authority::new());
    let pair = authority.sign(&[SWITCH]);
    let other = authority.sign(&[SWITCH]);
    for (certificate, key, whose, reason) in [
        (
            "",
            pair.key.as_str(),
            "c.pem",
            "holds no certificate in PEM",
        ),
        (
            &pair.certificate,
            "",
            "c.key",
            "holds no unencrypted private key in PEM",
        ),
        (
            &pair.certificate,
            &other.key,
            "c.key",
            "is not the key of the certificate",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &pair.key,
            "c.pem",
            "ertificate",
        ),
    ] {
        let identity = files.identity(
            "c",
            &Pair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
        );
        let config = TlsConfig {
            server: Some(TlsServer {
                identity,
                hosts: Vec::new(),
                client_ca: None,
            }),
            trunks: Vec::new(),
        };
        let fault = config.check(&[]).unwrap_err();
        assert_eq!(fault.key, format!("the key of {whose}"));
        let said = fault.to_string();
        assert!(said.contains(whose) && said.contains(reason), "{said}");
    }
}
