//! `maskline bench webhooks`: what it costs to accept an event durably and to deliver it, how many
//! a second this machine holds, and how long one takes.
//!
//! The shipped program runs as a process of its own, with a durable store, signatures and the log of
//! attempts; this process reports the calls by HTTP, and receives the webhooks. The same load can be
//! posted to another sender's API, to have its figures from the same run.

mod floors;
mod load;
mod receiver;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use maskline_events::WebhookType;
use maskline_events::signing::parse_secret;
use maskline_store::{NewSubAccount, NewWebhook, SqliteStore, Store};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use self::floors::Floor;
use self::load::{Api, Plan, Posted, UPDATES};
use self::receiver::{Book, Receiver};
use super::subject::Subject;
use super::usage::{self, Usage};
use crate::node::wall;

/// Connections that carry one update at a time, and those that carry many.
const SINGLE_CONNECTIONS: u32 = 32;
const ARRAY_CONNECTIONS: u32 = 4;
/// Connections of the measurement of latencies.
const STEADY_CONNECTIONS: u32 = 8;
/// Most POSTs and inserts of the floor.
const FLOOR: u32 = 100_000;
/// How long the last webhooks may take.
const LAST_WEBHOOKS: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Calls that are reported as fast as they are taken, seven updates each.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Updates of one request; several are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1],
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    per_post: Vec<u32>,
    /// Most updates that are posted and not yet delivered.
    #[arg(long, default_value_t = 5_000)]
    outstanding: u64,
    /// Sub-accounts, each with endpoints of its own.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    endpoints: u32,
    /// Updates per second while latencies are measured.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// For how long latencies are measured; 0: not at all.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    seconds: u32,
    /// Leave out the receiver behind TLS.
    #[arg(long)]
    no_tls: bool,
    /// Post to this URL of another sender (http only), which is to deliver to the receiver, instead of
    /// starting a switch.
    #[arg(long, requires = "body")]
    post_to: Option<String>,
    /// A header of these posts, `name: value`; several are possible.
    #[arg(long, requires = "post_to")]
    header: Vec<String>,
    /// The body of one of these posts, a file in which {{sessionId}}, {{sequence}} and {{status}} are
    /// replaced. The webhook is to hold `"sessionId":"…"` and `"sequence":…`.
    #[arg(long, requires = "post_to")]
    body: Option<PathBuf>,
    /// Where the receiver listens, if another sender is to find it.
    #[arg(long)]
    receiver: Option<SocketAddr>,
    /// Processes of another sender whose CPU time is counted, with those that they started.
    #[arg(long, value_delimiter = ',', requires = "post_to")]
    processes: Vec<u32>,
}

/// The id of a session of a run.
fn session_id(run: u32, session: u32) -> String {
    format!("{run:08x}-0000-7000-8000-{session:012x}")
}

/// The number of a session that belongs to this run.
fn session_of(text: &[u8], run: u32) -> Option<u32> {
    let part = |range: std::ops::Range<usize>| {
        let digits = std::str::from_utf8(text.get(range)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    (part(0..8)? == run).then(|| part(28..36))?
}

/// Runs the measurement and prints its table.
///
/// # Errors
/// What kept it from running, and events that were lost or came out of order.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let with_tls = !options.no_tls && options.post_to.is_none();
    let certificate = with_tls
        .then(|| certificate(folder.path()))
        .transpose()
        .context("making the receiver's certificate")?;
    let (acceptor, authority) = certificate.unzip();
    let receiver = Receiver::start(options.receiver, acceptor)?;
    head(options);
    floor(options, &receiver)?;
    Table::head();
    let mut run = Runs {
        options,
        receiver: &receiver,
        number: 0,
        faults: Vec::new(),
    };
    if let Some(url) = &options.post_to {
        run.all("peer", &mut || Sender::peer(options, url))?;
    } else {
        let plain = receiver.plain();
        run.all("maskline", &mut || {
            let url = format!("http://{plain}");
            let sender = Sender::maskline(options, &url, None);
            runtime.block_on(sender)
        })?;
        if let Some(secure) = receiver.tls() {
            run.all("maskline, TLS", &mut || {
                let url = format!("https://localhost:{}", secure.port());
                let sender = Sender::maskline(options, &url, authority.as_deref());
                runtime.block_on(sender)
            })?;
        }
    }
    let (checked, forged) = receiver.signatures();
    println!("\n{checked} signatures were checked, {forged} did not fit");
    ensure!(forged == 0, "signatures did not fit");
    ensure!(run.faults.is_empty(), "{}", run.faults.join("; "));
    Ok(())
}

fn head(options: &Options) {
    let profile = if cfg!(debug_assertions) {
        "debug build: figures say little, use cargo run --release"
    } else {
        "release build"
    };
    println!("maskline {} ({profile})", env!("CARGO_PKG_VERSION"));
    println!("machine   {}", usage::machine());
    if options.post_to.is_some() {
        println!(
            "method    {} calls of {UPDATES} updates to another sender, load and receiver on the same machine; accepted = answered 2xx;\n          \
             CPU of --processes from /proc; latency from when a post was due until its webhook was there, at {} updates/s, one a post",
            options.calls, options.rate
        );
        return;
    }
    println!(
        "method    {} calls of {UPDATES} updates (and a summary) over {} endpoints, load and receiver on the same machine;\n          \
         accepted = answered 202 once durable; SQLite synchronous=FULL, HMAC, log of attempts;\n          \
         CPU of the switch's process from /proc, load and receiver not counted; latency from when a post was due until\n          \
         its webhook was there, at {} updates/s, one a post",
        options.calls, options.endpoints, options.rate
    );
}

fn floor(options: &Options, receiver: &Receiver) -> anyhow::Result<()> {
    let per_ten_thousand = |floor: &Floor| usage::per(floor.cpu, 10_000.0, floor.count.into());
    let count = (options.calls * UPDATES).min(FLOOR);
    let posts = floors::posts(receiver.plain(), count)?;
    let inserts = floors::inserts(count)?;
    println!(
        "floor     per 10,000: {} CPU-s of bare POSTs over kept connections to the same receiver + {} CPU-s of bare inserts, 100 a commit\n",
        per_ten_thousand(&posts),
        per_ten_thousand(&inserts)
    );
    Ok(())
}

/// A certificate of `localhost`, and the file of the authority that vouches for it.
fn certificate(folder: &Path) -> anyhow::Result<(TlsAcceptor, PathBuf)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let file = folder.join("authority.pem");
    let text = base64::engine::general_purpose::STANDARD.encode(made.cert.der());
    let text = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(&file, text)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), file))
}

/// What is measured, ready to be posted to.
struct Sender {
    api: Api,
    processes: Vec<u32>,
    secrets: Vec<Vec<u8>>,
    /// Whether a summary follows each call's last update.
    sums_up: bool,
    /// Ends with it.
    _subject: Option<Subject>,
}

impl Sender {
    async fn maskline(
        options: &Options,
        receiver: &str,
        authority: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut doors = Vec::new();
        let mut secrets = Vec::new();
        let subject = Subject::serve(authority, async |store| {
            for number in 0..options.endpoints {
                let door = provision(store, number, receiver, &mut secrets).await?;
                doors.push(door);
            }
            Ok(())
        })
        .await?;
        Ok(Self {
            api: Api {
                address: subject.http().context("a switch without an API")?,
                doors,
                template: None,
            },
            processes: subject.processes(),
            secrets,
            sums_up: true,
            _subject: Some(subject),
        })
    }

    fn peer(options: &Options, url: &str) -> anyhow::Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .context("--post-to: only http:// is possible")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = host
            .to_socket_addrs()
            .with_context(|| format!("--post-to: {host} does not resolve"))?
            .next()
            .with_context(|| format!("--post-to: {host} has no address"))?;
        let mut headers = String::new();
        for header in &options.header {
            if header.contains(['\r', '\n']) || !header.contains(':') {
                bail!("--header: it is to be one line, `name: value`");
            }
            headers.push_str(header);
            headers.push_str("\r\n");
        }
        let template = options
            .body
            .as_ref()
            .map(|file| {
                std::fs::read_to_string(file)
                    .with_context(|| format!("--body: reading {}", file.display()))
            })
            .transpose()?;
        let processes = options.processes.iter().flat_map(|it| usage::family(*it));
        Ok(Self {
            api: Api {
                address,
                doors: vec![(format!("/{path}"), headers)],
                template,
            },
            processes: processes.collect(),
            secrets: Vec::new(),
            sums_up: false,
            _subject: None,
        })
    }
}

/// A sub-account with webhooks, and how its updates are posted.
async fn provision(
    store: &SqliteStore,
    number: u32,
    receiver: &str,
    secrets: &mut Vec<Vec<u8>>,
) -> anyhow::Result<(String, String)> {
    let sub_account_id = format!("bench-{number}");
    let sub_account = NewSubAccount {
        sub_account_id: sub_account_id.clone(),
        countries: Vec::new(),
    };
    store.create_sub_account(sub_account, wall()).await?;
    for (webhook_type, path) in [(WebhookType::Vcs, "vcs"), (WebhookType::Vss, "vss")] {
        let webhook = NewWebhook {
            sub_account_id: sub_account_id.clone(),
            webhook_type,
            url: format!("{receiver}/{path}"),
            http_auth_header: None,
            enabled: true,
        };
        let secret = store.set_webhook(webhook, wall()).await?;
        secrets.push(parse_secret(
            &secret.context("a new webhook without a secret")?,
        )?);
    }
    let key = store.create_api_key(&sub_account_id, wall()).await?;
    Ok((
        format!("/api/v1/subaccounts/{sub_account_id}/call-events"),
        format!("authorization: Bearer {key}\r\n"),
    ))
}

/// The runs, one after the other.
struct Runs<'a> {
    options: &'a Options,
    receiver: &'a Receiver,
    /// Of the run.
    number: u32,
    /// What must not be.
    faults: Vec<String>,
}

/// What a run came to.
struct Measured {
    posted: Posted,
    book: Arc<Book>,
    took: Duration,
    usage: Usage,
}

impl Runs<'_> {
    /// All measurements of a sender, each with a new one.
    fn all(
        &mut self,
        name: &str,
        sender: &mut dyn FnMut() -> anyhow::Result<Sender>,
    ) -> anyhow::Result<()> {
        let options = self.options;
        let connections = |per_post| match per_post {
            1 => SINGLE_CONNECTIONS,
            _ => ARRAY_CONNECTIONS,
        };
        for per_post in options.per_post.iter().copied() {
            ensure!(
                per_post == 1 || options.post_to.is_none(),
                "--per-post: another sender gets one event a post: use --per-post 1"
            );
            let sender = sender()?;
            let plan = Plan {
                connections: connections(per_post),
                sessions: options.calls / per_post * per_post,
                per_post,
                most_outstanding: options.outstanding,
                rate: None,
            };
            ensure!(
                plan.sessions > 0,
                "--calls: at least as many as --per-post are needed"
            );
            let warm = Plan {
                sessions: plan.sessions.min(per_post * 4),
                ..plan
            };
            self.one(&sender, &warm)?;
            let measured = self.one(&sender, &plan)?;
            self.check(name, &sender, &plan, &measured);
            Table::load(name, &plan, &measured);
        }
        if options.seconds > 0 {
            let sender = sender()?;
            let plan = Plan {
                connections: STEADY_CONNECTIONS,
                sessions: (options.rate * options.seconds / UPDATES).max(1),
                per_post: 1,
                most_outstanding: u64::MAX,
                rate: Some(options.rate),
            };
            let warm = Plan {
                sessions: STEADY_CONNECTIONS,
                ..plan
            };
            self.one(&sender, &warm)?;
            let measured = self.one(&sender, &plan)?;
            self.check(name, &sender, &plan, &measured);
            Table::steady(name, options.rate, &measured);
        }
        Ok(())
    }

    fn one(&mut self, sender: &Sender, plan: &Plan) -> anyhow::Result<Measured> {
        self.number += 1;
        let posted = Posted::new(plan.sessions);
        let before = Usage::of(&sender.processes);
        let book = Arc::new(Book::new(self.number, plan.sessions));
        self.receiver
            .begin(Arc::clone(&book), sender.secrets.clone());
        let began = Instant::now();
        load::run(&sender.api, plan, &book, &posted)?;
        let deadline = Instant::now() + LAST_WEBHOOKS;
        let all = u64::from(plan.sessions);
        let is_all = || {
            book.events.load(Ordering::Relaxed) >= all * u64::from(UPDATES)
                && (!sender.sums_up || book.summaries.load(Ordering::Relaxed) >= all)
        };
        while !is_all() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        // What is left to be done for these events is theirs: outcomes are written a little later.
        std::thread::sleep(Duration::from_millis(200));
        Ok(Measured {
            posted,
            book,
            took,
            usage: Usage::of(&sender.processes).since(&before),
        })
    }

    fn check(&mut self, name: &str, sender: &Sender, plan: &Plan, measured: &Measured) {
        let all = u64::from(plan.sessions);
        let events = measured.book.events.load(Ordering::Relaxed);
        let summaries = measured.book.summaries.load(Ordering::Relaxed);
        let disordered = measured.book.disordered.load(Ordering::Relaxed);
        let due = all * u64::from(UPDATES);
        if events != due || (sender.sums_up && summaries != all) {
            self.faults.push(format!(
                "{name}: {events} of {due} events and {summaries} of {all} summaries came"
            ));
        }
        if disordered > 0 {
            self.faults.push(format!(
                "{name}: {disordered} events came out of order or again"
            ));
        }
    }
}

/// The table's form.
struct Table;

impl Table {
    fn head() {
        println!(
            "{:<14} {:>22} {:>10} {:>11} {:>7} | {:>22} | {:>5} {:>7} | {:>7} {:>7} {:>7}",
            "",
            "load",
            "accepted/s",
            "delivered/s",
            "put off",
            "CPU-s per 10,000: all",
            "web",
            "journal",
            "p50 ms",
            "p99 ms",
            "max ms"
        );
    }

    fn load(name: &str, plan: &Plan, measured: &Measured) {
        let load = match plan.per_post {
            1 => format!("1 a post, {} conn.", plan.connections),
            several => format!("{several} a post, {} conn.", plan.connections),
        };
        Self::row(name, &load, measured, "      -       -       -");
    }

    fn steady(name: &str, rate: u32, measured: &Measured) {
        let all = measured.posted.latencies(&measured.book);
        let ms = |permille: usize| {
            let place = (all.len() * permille / 1_000).min(all.len().saturating_sub(1));
            f64::from(all.get(place).copied().unwrap_or(0)) / 1_000.0
        };
        let latencies = format!("{:>7.1} {:>7.1} {:>7.1}", ms(500), ms(990), ms(1_000));
        Self::row(name, &format!("{rate}/s, 1 a post"), measured, &latencies);
    }

    fn row(name: &str, load: &str, measured: &Measured, latencies: &str) {
        let events = measured.book.events.load(Ordering::Relaxed);
        let webhooks = events + measured.book.summaries.load(Ordering::Relaxed);
        let accepted = measured.posted.accepted.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of a measurement, far below 2^52"
        )]
        let (accepted, webhooks) = (accepted as f64, webhooks as f64);
        let seconds = measured.took.as_secs_f64().max(0.001);
        let per_ten_thousand = |cpu| usage::per(cpu, 10_000.0, webhooks);
        let part = |name| per_ten_thousand(measured.usage.part(name));
        println!(
            "{name:<14} {load:>22} {:>10.0} {:>11.0} {:>7} | {:>22} | {:>5} {:>7} | {latencies}",
            accepted / seconds,
            webhooks / seconds,
            measured.posted.put_off.load(Ordering::Relaxed),
            per_ten_thousand(measured.usage.cpu),
            part("web"),
            part("store-writer"),
        );
    }
}
