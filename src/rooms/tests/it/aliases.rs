//! Aliases and the directory.

use myelin_rooms::{
    CreateAliasError, DeleteAliasError, ListAliasesError, Preset, SetVisibilityError, Visibility,
};
use myelin_rules::RoomVersion;
use ruma::{RoomAliasId, owned_room_id, room_alias_id};
use serde_json::json;

use crate::support::{ALICE, BOB, CHARLIE, Server, state, user};

const ALIAS: &str = "#alias:here.org";

fn alias() -> &'static RoomAliasId {
    <&RoomAliasId>::try_from(ALIAS).expect("well-formed")
}

#[tokio::test]
async fn an_alias_is_made_once_by_a_member() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let create = |who, name| {
        let room = room.clone();
        let rooms = server.rooms.clone();
        async move { rooms.create_alias(name, &room, &user(who)).await }
    };
    assert!(matches!(
        create(BOB, alias()).await,
        Err(CreateAliasError::NotInRoom)
    ));
    assert!(matches!(
        create(ALICE, room_alias_id!("#a:away.org")).await,
        Err(CreateAliasError::Remote)
    ));
    create(ALICE, alias()).await.expect("free");
    assert!(matches!(
        create(ALICE, alias()).await,
        Err(CreateAliasError::Exists)
    ));
    let nowhere = owned_room_id!("!nowhere:here.org");
    assert!(matches!(
        server
            .rooms
            .create_alias(room_alias_id!("#b:here.org"), &nowhere, &user(ALICE))
            .await,
        Err(CreateAliasError::RoomNotFound)
    ));
    let list = server.rooms.list_aliases(&room, &user(ALICE)).await;
    assert_eq!(list.expect("a member may"), [alias()]);
    assert!(matches!(
        server.rooms.list_aliases(&room, &user(BOB)).await,
        Err(ListAliasesError::NotInRoom)
    ));
    let open = json!({"history_visibility": "world_readable"});
    let open = state(&room, ALICE, "m.room.history_visibility", "", open);
    server.rooms.send_state(open).await.expect("Alice may");
    let list = server.rooms.list_aliases(&room, &user(BOB)).await;
    assert_eq!(list.expect("everybody may"), [alias()]);
}

#[tokio::test]
async fn its_maker_and_moderators_delete_an_alias() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    server.join(&room, CHARLIE).await;
    let rooms = &server.rooms;
    assert!(matches!(
        rooms.delete_alias(alias(), &user(ALICE), false).await,
        Err(DeleteAliasError::NotFound)
    ));
    rooms
        .create_alias(alias(), &room, &user(BOB))
        .await
        .expect("free");
    let listed = json!({"alias": ALIAS});
    let canonical = state(&room, ALICE, "m.room.canonical_alias", "", listed.clone());
    rooms.send_state(canonical).await.expect("Alice may");
    assert!(matches!(
        rooms.delete_alias(alias(), &user(CHARLIE), false).await,
        Err(DeleteAliasError::NotAllowed)
    ));
    rooms
        .delete_alias(alias(), &user(BOB), false)
        .await
        .expect("his own");
    let content = server.content(&room, "m.room.canonical_alias", "");
    assert_eq!(content, listed, "Bob may not change the room's state");

    rooms
        .create_alias(alias(), &room, &user(BOB))
        .await
        .expect("free again");
    rooms
        .delete_alias(alias(), &user(ALICE), false)
        .await
        .expect("a moderator");
    assert_eq!(
        server.content(&room, "m.room.canonical_alias", ""),
        json!({})
    );
    let gone = rooms.resolve_alias(&server.view(), alias()).expect("read");
    assert!(gone.is_none());

    rooms
        .create_alias(alias(), &room, &user(BOB))
        .await
        .expect("free again");
    rooms
        .delete_alias(alias(), &user("@admin:here.org"), true)
        .await
        .expect("an admin");
    server.check_chain(&room);
}

#[tokio::test]
async fn the_directory_lists_what_moderators_publish() {
    let server = Server::new().await;
    let room = server.room(Preset::PublicChat, RoomVersion::V12).await;
    server.join(&room, BOB).await;
    let set = |who, visibility| {
        let (rooms, room) = (server.rooms.clone(), room.clone());
        async move {
            rooms
                .set_visibility(&room, &user(who), visibility, false)
                .await
        }
    };
    let num = server.handle(&room).num;
    let visibility = || server.rooms.visibility(&server.view(), num).expect("read");
    assert_eq!(visibility(), Visibility::Private);
    assert!(matches!(
        set(BOB, Visibility::Public).await,
        Err(SetVisibilityError::NotAllowed)
    ));
    for _ in 0..2 {
        set(ALICE, Visibility::Public).await.expect("Alice may");
        assert_eq!(visibility(), Visibility::Public);
    }
    set(ALICE, Visibility::Private).await.expect("Alice may");
    assert_eq!(visibility(), Visibility::Private);
}
