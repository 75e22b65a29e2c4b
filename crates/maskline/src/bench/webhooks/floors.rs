//! What nobody can do for less: a bare POST over a kept connection to the same receiver, and a bare
//! grouped insert into a durable table. What a sender costs beyond their sum is its own.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::{Connection, params};

use super::load::connect;
use crate::bench::usage::Usage;

/// Connections that the POSTs go over in turn.
const CONNECTIONS: usize = 32;
/// Rows of one commit.
const ROWS: u32 = 100;
/// A body of a status event's size.
const BODY: [u8; 600] = [b'x'; 600];

/// CPU time of something done so often.
pub(super) struct Floor {
    pub(super) cpu: Duration,
    pub(super) count: u32,
}

/// So many POSTs, all connections of a round written before the first answer is read.
pub(super) fn posts(receiver: SocketAddr, count: u32) -> anyhow::Result<Floor> {
    on_a_thread("floor-posts", move || {
        let mut streams = (0..CONNECTIONS)
            .map(|_| connect(receiver))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut request = format!(
            "POST /vcs HTTP/1.1\r\nhost: {receiver}\r\ncontent-type: application/json\r\n\
             user-agent: floor\r\nwebhook-id: 0196a1c5-7f00-7000-8000-000000000000\r\n\
             webhook-timestamp: 1767694639\r\n\
             webhook-signature: v1,0000000000000000000000000000000000000000000=\r\n\
             content-length: {}\r\n\r\n",
            BODY.len()
        )
        .into_bytes();
        request.extend_from_slice(&BODY);
        let mut answer = [0; 512];
        let rounds = count / u32::try_from(CONNECTIONS)?;
        for _ in 0..rounds {
            for stream in &mut streams {
                stream.write_all(&request)?;
            }
            for stream in &mut streams {
                let length = stream.read(&mut answer)?;
                ensure!(
                    answer
                        .get(..length)
                        .is_some_and(|it| it.ends_with(b"\r\n\r\n")),
                    "the receiver's answer came in parts"
                );
            }
        }
        Ok(rounds * u32::try_from(CONNECTIONS)?)
    })
}

/// So many rows of a body, each group of a hundred in one synchronous commit.
pub(super) fn inserts(count: u32) -> anyhow::Result<Floor> {
    on_a_thread("floor-inserts", move || {
        let folder = tempfile::tempdir()?;
        let connection = Connection::open(folder.path().join("floor.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             CREATE TABLE events (position INTEGER PRIMARY KEY, body BLOB NOT NULL)",
        )?;
        for _ in 0..count / ROWS {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let mut insert = connection.prepare_cached("INSERT INTO events (body) VALUES (?1)")?;
            for _ in 0..ROWS {
                insert.execute(params![&BODY[..]])?;
            }
            connection.execute_batch("COMMIT")?;
        }
        Ok(count / ROWS * ROWS)
    })
}

/// Runs it on a thread of this name, whose CPU time is what it took.
fn on_a_thread(
    name: &'static str,
    work: impl FnOnce() -> anyhow::Result<u32> + Send + 'static,
) -> anyhow::Result<Floor> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let count = work()?;
            let usage = Usage::of(&[std::process::id()]);
            let cpu = usage.part(name);
            Ok(Floor { cpu, count })
        })?;
    let ended: anyhow::Result<Floor> = thread
        .join()
        .map_err(|_| anyhow::anyhow!("its thread ended badly"))?;
    ended.with_context(|| format!("measuring the {name}"))
}
