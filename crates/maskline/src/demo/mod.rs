//! `maskline demo`: one masked call on this machine, from the dialling to the summary.
//!
//! A whole node with an ephemeral store, a receiver as a customer would write it, and two phones
//! that signal and speak for real. Nothing leaves the loopback interface.

mod phones;
mod receiver;
mod show;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use maskline_events::WebhookType;
use maskline_phone::{Callee, Caller, Outcome, Part, PhoneEvent, PhoneInput, Report};
use maskline_switch::Trunk;
use maskline_switch::sip::{Peer, Transport};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::node::{Node, Secrets};
use crate::sample_site::SampleSite;
use phones::{Heard, PhoneHandle};
use show::Show;

/// The caller: a rider.
const RIDER: &str = "+6591110001";
/// The callee: a driver.
const DRIVER: &str = "+6598887777";
/// What both of them see.
const VIRTUAL: &str = "+6531580001";
const SUB_ACCOUNT: &str = "demo";
/// The whole demo, at the most.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long they talk.
const TALK: Duration = Duration::from_millis(2_500);
/// When the driver presses a key.
const KEY_AFTER: Duration = Duration::from_millis(1_200);
/// A tone counts as heard from this share of the received power on.
const HEARD_SHARE: f64 = 0.5;

/// Runs the demo. `json`: webhook bodies on standard output, and nothing else there.
///
/// # Errors
/// What kept it from starting, or what did not work in it.
pub(crate) fn run(json: bool) -> anyhow::Result<()> {
    let filter = std::env::var("MASKLINE_LOG_FILTER").unwrap_or_else(|_| "error".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, demo(Show::new(json)))
            .await
            .context("the demo did not end in time")?
    })
}

async fn demo(show: Show) -> anyhow::Result<()> {
    let start = Instant::now();
    let (heard, mut hear) = mpsc::channel(256);
    let driver = PhoneHandle::ring(
        start,
        phones::plan(
            DRIVER,
            Part::Callee(Callee {
                ring_after: Some(Duration::from_millis(300)),
                outcome: Outcome::Answer(Duration::from_millis(1_000)),
                hang_up_after: None,
            }),
        ),
        Heard::Driver,
        heard.clone(),
    )
    .await?;
    let rider = PhoneHandle::ring(
        start,
        phones::plan(
            RIDER,
            Part::Caller(Caller {
                cancel_after: None,
                hang_up_after: Some(TALK),
            }),
        ),
        Heard::Rider,
        heard.clone(),
    )
    .await?;
    let node = Node::start(
        configuration(driver.address())?,
        Secrets::default(),
        None,
        Handle::current(),
    )
    .await?;
    let receiver = receiver::start(heard).await?;
    provision(&node, receiver.address()).await?;
    let switch = *node.sip_addresses().first().context("a SIP socket")?;

    show.opening(node.http_address(), switch, receiver.address());
    rider
        .tell(PhoneInput::Dial {
            peer: Peer {
                listener: 0,
                transport: Transport::Udp,
                addr: switch,
            },
            uri: format!("sip:{VIRTUAL}@{switch}"),
        })
        .await?;
    let mut summary = None;
    while summary.is_none() {
        match hear.recv().await.context("everything went quiet")? {
            Heard::Rider(event) => show.phone(start, "the rider", "the driver", &event),
            Heard::Driver(event) => {
                show.phone(start, "the driver", "the rider", &event);
                if event == PhoneEvent::Talking {
                    let driver = driver.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(KEY_AFTER).await;
                        // The phone is gone only if the call is.
                        let _ = driver.tell(PhoneInput::Press('5')).await;
                    });
                }
            }
            Heard::Webhook(receipt) => {
                show.webhook(start, &receipt);
                if receipt.kind == WebhookType::Vss {
                    summary = Some(receipt);
                }
            }
        }
    }
    let (rider, driver) = (rider.report().await?, driver.report().await?);
    node.end().await;
    let verdicts = verdicts(&rider, &driver);
    if let Some(summary) = &summary {
        show.closing(summary, &verdicts);
    }
    match verdicts.iter().find(|verdict| !verdict.holds) {
        Some(failed) => bail!("the demo found a fault: not true that {}", failed.claim),
        None => Ok(()),
    }
}

/// Something that the demo claims, and whether it was so.
struct Verdict {
    claim: String,
    holds: bool,
}

fn verdicts(rider: &Report, driver: &Report) -> Vec<Verdict> {
    let heard = |report: &Report| report.tone_share >= HEARD_SHARE;
    vec![
        Verdict {
            claim: format!(
                "the driver heard the rider's 440 Hz tone ({} packets)",
                driver.packets_received
            ),
            holds: heard(driver),
        },
        Verdict {
            claim: format!(
                "the rider heard the driver's 620 Hz tone ({} packets)",
                rider.packets_received
            ),
            holds: heard(rider),
        },
        Verdict {
            claim: format!("the driver's display showed {VIRTUAL}, not the rider's number"),
            holds: driver.shows.as_deref() == Some(VIRTUAL),
        },
        Verdict {
            claim: "the key that the driver pressed arrived at the rider".to_owned(),
            holds: rider.digits == "5",
        },
    ]
}

fn configuration(driver: SocketAddr) -> anyhow::Result<Config> {
    let mut config = Config::load(None)?;
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.place = "maskline demo".to_owned();
    config.http_listen = anywhere;
    config
        .sip_listen
        .retain(|spec| spec.transport == Transport::Udp);
    for spec in &mut config.sip_listen {
        spec.address = anywhere;
    }
    "sqlite::memory:".clone_into(&mut config.store_url);
    config.store_reserve_bytes = 0;
    config.shards = 1;
    config.allow_private_targets = true;
    config.trunks = vec![Trunk {
        allow: vec![std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into()],
        ..Trunk::new("loopback", driver)
    }];
    Ok(config)
}

/// What a platform team does by the API: a sub-account, its number, its webhooks.
async fn provision(node: &Node, receiver: SocketAddr) -> anyhow::Result<()> {
    let site = SampleSite {
        sub_account_id: SUB_ACCOUNT,
        number: VIRTUAL,
        reference_id: "booking-line",
        receiver,
    };
    site.provision(node.store()).await?;
    node.reload_directory().await;
    Ok(())
}
