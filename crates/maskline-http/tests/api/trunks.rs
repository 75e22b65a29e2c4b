//! The list of trunks.

use serde_json::json;

use crate::support::{ADMIN_KEY, start};

#[tokio::test]
async fn the_trunks_are_listed_with_their_calls_and_registrations() {
    let api = start().await;
    let list = api.get("/api/v1/admin/trunks", ADMIN_KEY).await.expect(200);
    let targets = json!([{"address": "192.0.2.1:5060", "transport": "udp", "up": true}]);
    assert_eq!(
        list.json,
        json!({ "count": 2, "trunks": [
            { "name": "carrier", "calls": 3, "registration": { "registered": true },
              "targets": targets },
            { "name": "backup", "calls": 0, "targets": targets },
        ]})
    );
    api.get("/api/v1/admin/trunks", "not-the-key")
        .await
        .expect(401);
}
