//! What branches come to that did not know each other, as all servers of the room must see it.

use myelin_rules::{Pdu, RoomVersion};
use myelin_types::Millis;
use serde_json::{Value, json};

use super::{DORA, Shared};
use crate::support::{ALICE, state};

/// An event of Dora's from a moment ago that follows another.
fn earlier(shared: &mut Shared, kind: &str, content: Value, prev: &Pdu) -> Pdu {
    let mut builder = shared.build(DORA, kind, Some(""), content, &[prev]);
    builder.origin_server_ts = Millis(prev.origin_server_ts().0 - 1_000);
    let pdu = builder
        .sign(shared.version, &shared.signer)
        .expect("a small event");
    shared.note(&pdu);
    pdu
}

/// Two with the same power set the same entries while their servers do not reach each other: what was set last stays, whoever
/// of them made the room. Dora's join is part of both states, and that only her own events rest on it must not have them
/// counted as newer: Synapse and others would disagree.
#[tokio::test]
async fn of_entries_set_in_two_branches_the_latest_stays() {
    for version in [RoomVersion::V6, RoomVersion::V10, RoomVersion::V11] {
        let mut shared = Shared::new(version).await;
        let set = async |shared: &Shared, kind: &str, content: Value| {
            let event = state(&shared.room, ALICE, kind, "", content);
            let id = shared.server.rooms.send_state(event).await;
            let id = id.expect("Alice may do that");
            let event = shared.stored(id.as_str()).expect("just sent");
            event.pdu.clone()
        };
        let levels = shared.state[&("m.room.power_levels".to_owned(), String::new())].clone();
        let mut levels = Value::Object(levels.content().clone());
        levels["users"][DORA] = 100.into();
        let base = set(&shared, "m.room.power_levels", levels.clone()).await;
        shared.note(&base);

        let with_invite = |level: i64| {
            let mut levels = levels.clone();
            levels["invite"] = level.into();
            levels
        };
        set(&shared, "m.room.power_levels", with_invite(1)).await;
        set(&shared, "m.room.topic", json!({ "topic": "Alice" })).await;
        let hers = earlier(&mut shared, "m.room.power_levels", with_invite(2), &base);
        let topic = earlier(
            &mut shared,
            "m.room.topic",
            json!({ "topic": "Dora" }),
            &hers,
        );
        shared.accept(&hers).await;
        shared.accept(&topic).await;

        let content = |kind: &str| shared.server.content(&shared.room, kind, "");
        assert_eq!(content("m.room.power_levels")["invite"], 1, "{version}");
        assert_eq!(content("m.room.topic")["topic"], "Alice", "{version}");
    }
}
