//! A process that is killed in the middle of its commits.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{directory, entry, events_of, id, open, try_open};
use crate::journal::{CommittedEvents, Journal, JournalOptions, JournalReport, Submission};
use crate::model::EventRow;
use crate::store::Store;

/// Set for the child: the database that it writes.
const CHILD: &str = "MASKLINE_TEST_CRASH_CHILD";
const SESSIONS: u64 = 32;

struct Nowhere;

impl CommittedEvents for Nowhere {
    fn committed(&self, _: Vec<EventRow>) {}
}

/// The child: commits through the journal for ever and prints each id that was reported committed.
#[tokio::test]
async fn crash_child_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Arc::new(open(path.as_ref()));
    let (reports, mut told) = mpsc::channel(64);
    let journal = Journal::start(
        store,
        vec![reports],
        Arc::new(Nowhere),
        JournalOptions::default(),
    );
    let mut next = 0_u64;
    let mut submit = || {
        let (session, ordinal) = (next % SESSIONS + 1, next / SESSIONS + 1);
        let submission = Submission {
            shard: 0,
            commit_id: next,
            entry: entry(session, ordinal..=ordinal),
        };
        next += 1;
        journal.submit(submission).unwrap();
    };
    (0..SESSIONS).for_each(|_| submit());
    while let Some(report) = told.recv().await {
        let JournalReport::Committed { commit_ids, .. } = report else {
            panic!("{report:?}");
        };
        let mut out = std::io::stdout().lock();
        for id in commit_ids {
            writeln!(out, "committed {id}").unwrap();
            submit();
        }
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn what_was_reported_committed_survives_a_kill_and_nothing_is_there_twice() {
    let (_directory, path) = directory();
    for round in 1..=3_u64 {
        let path = path.with_file_name(format!("round-{round}.db"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::tests::crash::crash_child_commits_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reported = Vec::new();
        for line in lines {
            let line = line.unwrap();
            let Some(id) = line.strip_prefix("committed ") else {
                continue;
            };
            reported.push(id.parse::<u64>().unwrap());
            if reported.len() == 200 {
                // It is running: a second process gets no access to its database.
                let error = try_open(&path).err().unwrap();
                assert!(error.to_string().contains("another process"), "{error}");
            }
            if reported.len() as u64 == 300 * round {
                // SIGKILL, while the next group is being written. The rest of the pipe is read after it.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(reported.len() as u64 >= 300 * round);

        let store = open(&path);
        let mut found = 0;
        for session in 1..=SESSIONS {
            let events = events_of(&store, id(0, session)).await;
            let ordinals: Vec<_> = events.iter().map(|(event, _)| event.ordinal).collect();
            let expected: Vec<_> = (1..=ordinals.len() as u64).collect();
            assert_eq!(ordinals, expected, "session {session}");
            found += ordinals.len();
        }
        for commit_id in &reported {
            let (session, ordinal) = (commit_id % SESSIONS + 1, commit_id / SESSIONS + 1);
            let events = events_of(&store, id(0, session)).await;
            let there = events
                .iter()
                .any(|(event, _)| event.event_id == id(session, ordinal));
            assert!(
                there,
                "event {ordinal} of session {session} was reported and is lost"
            );
        }
        assert!(found >= reported.len());
        // Each snapshot is the one of the last event that is there.
        for open in store.open_sessions(None, 100).await.unwrap() {
            let events = events_of(&store, open.session_id).await;
            let last = events.last().unwrap().0.ordinal;
            assert_eq!(open.snapshot, format!("after {last}").into_bytes());
        }
        tokio::time::timeout(Duration::from_secs(5), store.ping())
            .await
            .unwrap()
            .unwrap();
    }
}
