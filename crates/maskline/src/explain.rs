//! `maskline trace`: shows how a call went, from a running node's API or from the trace file.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use maskline_store::{SqliteLocation, TraceFile, TraceFilter};
use maskline_trace::{Entry, Shown, ladder, story};
use serde_json::Value;
use uuid::Uuid;

/// How long the API may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer that is read: 200 messages of 8 kB, as JSON.
const MOST_BYTES: u64 = 64 << 20;

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

/// One GET by plain HTTP: this is for the node's own machine. Whoever is elsewhere has an HTTP client.
fn get(question: &Question, path: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
    let key = std::env::var("MASKLINE_ADMIN_KEY")
        .ok()
        .filter(|key| !key.is_empty())
        .context("environment MASKLINE_ADMIN_KEY: set the admin key, or use --store")?;
    let Some(authority) = question.url.strip_prefix("http://") else {
        bail!("--url: only http:// to the node itself; elsewhere, use an HTTPS client on the API");
    };
    let authority = authority.trim_end_matches('/');
    let address = authority
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .with_context(|| format!("--url: {authority:?} is not HOST:PORT"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| {
        format!("{authority}: is the node up? --store reads the file without it")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: {accept}\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .context("the answer is no HTTP")?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let fault: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = fault.get("statusMessage").and_then(Value::as_str);
        let message = message.unwrap_or("no reason given");
        bail!("{authority} answered {status}: {message}");
    }
    Ok(body)
}
