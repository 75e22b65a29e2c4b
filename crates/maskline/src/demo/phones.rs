//! The built-in phones on real sockets: a thin shell around [`maskline_phone::Phone`].

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use maskline_media::Tick;
use maskline_phone::{
    Audio, Identity, Manners, Part, Phone, PhoneAction, PhoneConfig, PhoneEvent, PhoneInput, Report,
};
use maskline_switch::sip::compose::SentBy;
use maskline_switch::sip::{Peer, SipTimers, Transport};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::receiver::Receipt;

/// The rider's and the driver's tones.
const TONES: (f64, f64) = (440.0, 620.0);

/// What the demo hears of.
pub(super) enum Heard {
    /// Of the rider's phone.
    Rider(PhoneEvent),
    /// Of the driver's phone.
    Driver(PhoneEvent),
    /// Of the receiver.
    Webhook(Receipt),
}

/// A phone before its sockets are known.
pub(super) struct Plan {
    number: &'static str,
    part: Part,
}

/// A phone with this number that plays this part.
pub(super) const fn plan(number: &'static str, part: Part) -> Plan {
    Plan { number, part }
}

enum Order {
    Input(PhoneInput),
    Report(oneshot::Sender<Report>),
}

/// A running phone.
#[derive(Clone)]
pub(super) struct PhoneHandle {
    address: SocketAddr,
    orders: mpsc::Sender<Order>,
}

impl PhoneHandle {
    /// Starts a phone on free ports of the loopback interface.
    pub(super) async fn ring(
        start: Instant,
        plan: Plan,
        tells: fn(PhoneEvent) -> Heard,
        heard: mpsc::Sender<Heard>,
    ) -> anyhow::Result<Self> {
        let signalling = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let media = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = signalling.local_addr()?;
        let (says_hz, hears_hz) = match plan.part {
            Part::Caller(_) => TONES,
            Part::Callee(_) => (TONES.1, TONES.0),
        };
        let config = PhoneConfig {
            sent_by: SentBy {
                host_port: address.to_string(),
                transport: Transport::Udp,
            },
            media: media.local_addr()?,
            identity: Identity {
                user: plan.number.to_owned(),
                domain: address.ip().to_string(),
                user_agent: "Maskline demo phone".to_owned(),
                mark: "demo".to_owned(),
                ..Identity::default()
            },
            timers: SipTimers::default(),
            audio: Some(Audio { says_hz, hears_hz }),
            part: plan.part,
            credentials: None,
            asks: None,
            manners: Manners::default(),
            patience: Duration::from_secs(20),
        };
        let phone = Phone::new(config, rand::random());
        let (orders, order) = mpsc::channel(16);
        tokio::spawn(run(start, phone, signalling, media, order, tells, heard));
        Ok(Self { address, orders })
    }

    /// Its signalling address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has its user do something.
    pub(super) async fn tell(&self, input: PhoneInput) -> anyhow::Result<()> {
        self.orders
            .send(Order::Input(input))
            .await
            .ok()
            .context("a phone is gone")
    }

    /// What it knows of its call.
    pub(super) async fn report(&self) -> anyhow::Result<Report> {
        let (answer, report) = oneshot::channel();
        self.orders
            .send(Order::Report(answer))
            .await
            .ok()
            .context("a phone is gone")?;
        report.await.context("a phone is gone")
    }
}

async fn run(
    start: Instant,
    mut phone: Phone,
    signalling: UdpSocket,
    media: UdpSocket,
    mut orders: mpsc::Receiver<Order>,
    tells: fn(PhoneEvent) -> Heard,
    heard: mpsc::Sender<Heard>,
) {
    let mut message = vec![0; 65_535];
    let mut packet = vec![0; 2_048];
    loop {
        let deadline = phone.deadline().map(|at| start + at.since_start());
        let input = tokio::select! {
            received = signalling.recv_from(&mut message) => match received {
                Ok((size, addr)) => PhoneInput::MessageArrived {
                    peer: Peer { listener: 0, transport: Transport::Udp, addr },
                    bytes: Bytes::copy_from_slice(message.get(..size).unwrap_or_default()),
                },
                Err(_) => continue,
            },
            received = media.recv_from(&mut packet) => match received {
                Ok((size, from)) => PhoneInput::RtpArrived {
                    from,
                    bytes: Bytes::copy_from_slice(packet.get(..size).unwrap_or_default()),
                },
                Err(_) => continue,
            },
            () = sleep_until(deadline) => PhoneInput::DeadlineReached,
            order = orders.recv() => match order {
                Some(Order::Input(input)) => input,
                Some(Order::Report(answer)) => {
                    // Whoever asked may have given up.
                    let _ = answer.send(phone.report());
                    continue;
                }
                None => return,
            },
        };
        phone.handle(Tick::from_start(start.elapsed()), input);
        while let Some(action) = phone.poll() {
            // What the kernel does not take is lost, as on any network.
            match action {
                PhoneAction::Send { peer, bytes } => {
                    let _ = signalling.send_to(&bytes, peer.addr).await;
                }
                PhoneAction::SendRtp { to, bytes } => {
                    let _ = media.send_to(&bytes, to).await;
                }
                PhoneAction::Notice(event) => {
                    let _ = heard.send(tells(event)).await;
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
