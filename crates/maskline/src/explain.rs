//! `maskline trace`: shows how a call went, from a running node's API or from the trace file.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use maskline_store::{SqliteLocation, TraceFile, TraceFilter};
use maskline_trace::{Entry, Shown, ladder, story};
use serde_json::Value;
use uuid::Uuid;

use crate::node_api::NodeApi;

/// What is asked for.
#[derive(Debug, Args)]
pub(crate) struct Question {
    /// The session, as the log and every webhook name it.
    #[arg(value_name = "SESSION", required_unless_present_any = ["last", "number"])]
    session: Option<Uuid>,
    /// List the newest sessions instead.
    #[arg(long, value_name = "COUNT", conflicts_with = "session")]
    last: Option<u32>,
    /// List only sessions with this number, on either side.
    #[arg(long, value_name = "+65…", conflicts_with = "session")]
    number: Option<String>,
    /// The node's API. The admin key comes from MASKLINE_ADMIN_KEY.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Read the trace file beside this database instead; the node may be down.
    #[arg(long, value_name = "sqlite:FILE", conflicts_with = "url")]
    store: Option<String>,
    /// Show phone numbers and whole messages. A node's API logs that.
    #[arg(long)]
    full: bool,
    /// Print the API's JSON.
    #[arg(long, conflicts_with = "pcap")]
    json: bool,
    /// Write a packet capture, which shows everything.
    #[arg(long, value_name = "FILE", requires = "session")]
    pcap: Option<PathBuf>,
}

/// Answers it on standard output.
///
/// # Errors
/// What keeps the answer from being had.
pub(crate) fn run(question: &Question) -> anyhow::Result<()> {
    let answer = match &question.store {
        Some(url) => from_file(question, url)?,
        None => from_node(question)?,
    };
    match &question.pcap {
        Some(path) => {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(path)
                .with_context(|| path.display().to_string())?;
            file.write_all(&answer)
                .with_context(|| path.display().to_string())?;
            eprintln!("{}: written", path.display());
        }
        // A reader that has seen enough is no failure.
        None => drop(std::io::stdout().lock().write_all(&answer)),
    }
    Ok(())
}

fn shown(question: &Question) -> Shown {
    if question.full {
        Shown::Full
    } else {
        Shown::Redacted
    }
}

fn from_file(question: &Question, url: &str) -> anyhow::Result<Vec<u8>> {
    let SqliteLocation::File(path) = SqliteLocation::parse(url)? else {
        bail!("--store: a database in memory is gone with its node");
    };
    let file = TraceFile::open_to_read(&path)?;
    let Some(session) = question.session else {
        let filter = TraceFilter {
            limit: question.last.unwrap_or(20),
            number: question.number.clone(),
        };
        let list = maskline_http::session_list(file.sessions(&filter)?, shown(question));
        let list = serde_json::to_value(&list)?;
        return Ok(list_text(question, &list).into_bytes());
    };
    let parts = file.entries(session)?;
    let entries: Vec<Entry> = parts
        .iter()
        .flat_map(|(run, blob)| maskline_trace::decode(*run, blob))
        .collect();
    if question.pcap.is_some() {
        return Ok(maskline_trace::pcap(&entries, &[]));
    }
    let story = story::tell(session, &entries, shown(question))
        .with_context(|| format!("nothing is kept of session {session}"))?;
    if question.json {
        let mut text = serde_json::to_string_pretty(&story)?;
        text.push('\n');
        return Ok(text.into_bytes());
    }
    Ok(ladder::draw(&story).into_bytes())
}

fn from_node(question: &Question) -> anyhow::Result<Vec<u8>> {
    let full = if question.full { "full=true" } else { "" };
    let Some(session) = question.session else {
        let limit = question.last.unwrap_or(20);
        let number = question.number.as_deref().unwrap_or_default();
        let number: String = number.bytes().map(|b| format!("%{b:02X}")).collect();
        let number = match number.as_str() {
            "" => String::new(),
            number => format!("&number={number}"),
        };
        let path = format!("/api/v1/sessions?limit={limit}{number}&{full}");
        let body = get(question, &path, "application/json")?;
        let list: Value = serde_json::from_slice(&body).context("the API's answer")?;
        return Ok(list_text(question, &list).into_bytes());
    };
    if question.pcap.is_some() {
        let path = format!("/api/v1/sessions/{session}/trace.pcap");
        return get(question, &path, "*/*");
    }
    let kind = if question.json {
        "application/json"
    } else {
        "text/plain"
    };
    get(
        question,
        &format!("/api/v1/sessions/{session}/trace?{full}"),
        kind,
    )
}

/// The list, one session a line.
fn list_text(question: &Question, list: &Value) -> String {
    if question.json {
        return format!("{list:#}\n");
    }
    let mut out = String::new();
    for session in list["sessions"].as_array().into_iter().flatten() {
        let text = |name: &str| session[name].as_str().unwrap_or("-").to_owned();
        let duration = session["durationMs"].as_f64();
        let duration = duration.map_or_else(|| "-".to_owned(), ladder::duration);
        let numbers = [text("caller"), text("called"), text("callee")].join(" → ");
        out.push_str(&format!(
            "{}  {}\n    {:<10} {:>8}  {}  {numbers}\n",
            text("startTime"),
            text("sessionId"),
            session["sessionStatus"].as_str().unwrap_or("open"),
            duration,
            text("subAccountId"),
        ));
    }
    if out.is_empty() {
        out.push_str("no session is kept\n");
    }
    out
}

/// One GET; what to do without the node is said.
fn get(question: &Question, path: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
    let node = NodeApi::new(&question.url).context("--store reads the file without a node")?;
    node.get(path, accept)
}
