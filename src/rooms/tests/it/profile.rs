//! A new profile in the rooms of its user.

use myelin_data::rooms::UserRooms;
use myelin_rooms::Profile;
use serde_json::json;

use crate::support::{ALICE, BOB, Server, state, user};

#[tokio::test]
async fn joined_rooms_show_the_new_profile_and_keep_the_rest() {
    let server = Server::new().await;
    let first = server.public_room().await;
    let second = server.public_room().await;
    let left = server.public_room().await;
    for room in [&first, &second, &left] {
        server.join(room, BOB).await;
    }
    server
        .rooms
        .leave(&left, &user(BOB), None)
        .await
        .expect("left");
    let content = json!({
        "membership": "join",
        "displayname": "Bob",
        "org.example.extra": {"kept": true},
        "reason": "dropped",
    });
    server
        .rooms
        .send_state(state(&second, BOB, "m.room.member", BOB, content))
        .await
        .expect("Bob may");
    let handle = server.handle(&second);
    let bob = server
        .rooms
        .interner()
        .find_user(&server.view(), &user(BOB));
    let bob = bob.expect("read").expect("known");
    let row = || {
        server
            .view()
            .get::<UserRooms>(&(bob, handle.num))
            .expect("read")
            .expect("there is a row")
    };
    let before = row();

    let profile = Profile {
        displayname: Some("Robert".to_owned()),
        avatar_url: Some("mxc://here.org/face".to_owned()),
    };
    for _ in 0..2 {
        server
            .rooms
            .update_profile(&user(BOB), &profile)
            .await
            .expect("updated");
    }
    let robert = json!({
        "membership": "join",
        "displayname": "Robert",
        "avatar_url": "mxc://here.org/face",
    });
    assert_eq!(server.content(&first, "m.room.member", BOB), robert);
    let mut extra = robert.clone();
    extra["org.example.extra"] = json!({"kept": true});
    assert_eq!(server.content(&second, "m.room.member", BOB), extra);
    assert_eq!(server.membership(&left, BOB), "leave");
    let after = row();
    assert_eq!(after.pos, before.pos, "he did not join again");
    assert_ne!(after.event, before.event);
    let sent = server.types(&first).len();

    server
        .rooms
        .update_profile(&user(BOB), &Profile::default())
        .await
        .expect("updated");
    let nothing = json!({"membership": "join"});
    assert_eq!(server.content(&first, "m.room.member", BOB), nothing);
    assert_eq!(server.types(&first).len(), sent + 1);
    server
        .rooms
        .update_profile(&user(ALICE), &Profile::default())
        .await
        .expect("updated");
    for room in [&first, &second, &left] {
        server.check_chain(room);
    }
}
