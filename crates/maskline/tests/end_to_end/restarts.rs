//! What a start says of the run before it: sessions that it can't read, calls that it ends.

use crate::support::client::request;
use crate::support::sipp::Transport;
use crate::support::site::{Options, Site};
use crate::support::switch::ADMIN_KEY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_be_read_is_named_in_the_log_and_counted() {
    let mut site = Site::open("restarts-unreadable", Options::new(Transport::Udp)).await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let store = rusqlite::Connection::open(site.folder.join("maskline.db")).unwrap();
    let id = |last: usize| format!("01920000-0000-7000-8000-00000000000{last}");
    let snapshots = ["", "{\"version\":1,", "\"+6591234567\"", "{\"version\":2}"];
    for (at, snapshot) in snapshots.iter().enumerate() {
        store
            .execute(
                "INSERT INTO sessions (session_id, sub_account_id, snapshot, updated) VALUES (?1, 'acme', ?2, 0)",
                (id(at), snapshot.as_bytes()),
            )
            .unwrap();
    }
    drop(store);
    site.restart().await;
    let log = site.switch.as_ref().unwrap().log();
    for at in 0..snapshots.len() {
        let said = log.lines().filter(|line| line.contains(&id(at)));
        let said: Vec<&str> = said.collect();
        assert_eq!(said.len(), 1, "{log}");
        assert!(
            said[0].contains("ERROR") && said[0].contains("acme"),
            "{log}"
        );
    }
    assert!(!log.contains("91234567"), "{log}");
    let metrics = request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None).await;
    let metrics = metrics.unwrap().body;
    assert!(
        metrics.contains("maskline_sessions_unreadable 4"),
        "{metrics}"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
}
