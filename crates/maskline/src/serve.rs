//! `maskline serve`: one node until it is told to end, and the drain.

use std::io::IsTerminal as _;

use anyhow::Context;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config};
use crate::node::{Node, Secrets};
use crate::open_files;

/// Runs a node until SIGTERM or SIGINT; a second one ends the drain at once. SIGHUP reads TLS
/// certificates again.
///
/// # Errors
/// What kept it from starting.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_filter)
        .map_err(|error| config.fault("[log] filter", error))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    open_files::allow_for(&config);
    // Webhooks and the API have threads of their own: no endpoint keeps a call from being answered.
    let web = runtime("web", config::web_threads())?;
    runtime("sip", config::sip_threads())?.block_on(serve(config, web.handle().clone()))
}

fn runtime(name: &'static str, threads: usize) -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .context("the runtime can't be started")
}

async fn serve(config: Config, web: Handle) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let drain_deadline = config.drain_deadline;
    let secrets = Secrets::from_environment()?;
    let node = Node::start(config, secrets, None, web).await?;
    if let Some(admin_key) = node.new_admin_key() {
        println!("Admin key, shown this once: {admin_key}");
    }
    tracing::info!(http = %node.http_address(), sip = ?node.sip_addresses(), "ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => node.reload_certificates(),
        }
    }
    tracing::info!(
        calls = node.sessions(),
        deadline_seconds = drain_deadline.as_secs(),
        "draining: no new calls; a second signal ends live ones at once"
    );
    node.start_drain();
    tokio::select! {
        () = node.calls_over() => {}
        () = tokio::time::sleep(drain_deadline) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    node.end().await;
    Ok(())
}
