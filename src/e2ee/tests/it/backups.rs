//! Key backups.

use std::collections::BTreeSet;

use myelin_data::{
    RawJson,
    backups::{BackupKey, BackupKeys, UserBackups, forget_backups},
};
use myelin_e2ee::{
    BackupCounts, CreateBackupError, DeleteBackupError, DeleteKeysError, KeysToDelete, MAX_BACKUPS,
    PutKeysError, ReadKeysError, SessionKey, UpdateBackupError,
};
use myelin_store::{Batch, Scan};
use myelin_types::UserNum;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use crate::support::{Server, server};

const ALICE: UserNum = UserNum(1);
const BOB: UserNum = UserNum(2);
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn raw(value: &Value) -> RawJson {
    RawJson::of(value).expect("it is JSON")
}

fn room(name: &str) -> OwnedRoomId {
    RoomId::parse(format!("!{name}:hs1")).expect("a room id")
}

fn key(room_name: &str, session: &str, first_message_index: u64) -> SessionKey {
    SessionKey {
        room_id: room(room_name),
        session_id: session.to_owned(),
        key: BackupKey {
            is_verified: false,
            first_message_index,
            forwarded_count: 0,
            session_data: raw(&json!({ "ciphertext": first_message_index })),
        },
    }
}

impl Server {
    async fn backup(&self, user: UserNum) -> String {
        self.e2ee
            .create_backup(
                user,
                ALGORITHM.to_owned(),
                raw(&json!({ "public_key": "a" })),
            )
            .await
            .expect("a backup is made")
    }

    async fn put(
        &self,
        user: UserNum,
        version: &str,
        keys: Vec<SessionKey>,
    ) -> Result<BackupCounts, PutKeysError> {
        self.e2ee
            .put_backup_keys(user, version.to_owned(), keys)
            .await
    }

    async fn remove(
        &self,
        user: UserNum,
        version: &str,
        which: KeysToDelete,
    ) -> Result<BackupCounts, DeleteKeysError> {
        self.e2ee
            .delete_backup_keys(user, version.to_owned(), which)
            .await
    }

    async fn delete(&self, user: UserNum, version: &str) -> Result<(), DeleteBackupError> {
        self.e2ee.delete_backup(user, version.to_owned()).await
    }

    fn current(&self, user: UserNum) -> Option<String> {
        let current = self.e2ee.current_backup(&self.store.view(), user);
        current.expect("reads").map(|backup| backup.version)
    }

    /// What the rows say of the backup, after they were compared with the keys that are there.
    fn counts(&self, user: UserNum, version: &str) -> BackupCounts {
        let view = self.store.view();
        let backup = self.e2ee.backup(&view, user, version).expect("reads");
        let counts = backup.expect("there is such a backup").counts;
        let number: u64 = version.parse().expect("a number");
        let rows = view.keys::<BackupKeys>(Scan::prefix(&(user, number)));
        assert_eq!(counts.count, rows.count() as u64);
        let all = view.keys::<BackupKeys>(Scan::prefix(&user)).count() as u64;
        let row = view.get::<UserBackups>(&user).expect("reads");
        assert_eq!(row.expect("the user has a backup").keys, all);
        counts
    }

    fn index(&self, version: &str, room_name: &str, session: &str) -> Option<u64> {
        let view = self.store.view();
        let key = self
            .e2ee
            .backup_key(&view, ALICE, version, &room(room_name), session);
        key.expect("reads").map(|key| key.first_message_index)
    }
}

#[tokio::test]
async fn numbers_of_backups_are_given_once() {
    let server = server().await;
    assert_eq!(server.current(ALICE), None);
    assert_eq!(server.backup(ALICE).await, "1");
    assert_eq!(server.backup(ALICE).await, "2");
    assert_eq!(server.current(ALICE).as_deref(), Some("2"));
    server.delete(ALICE, "2").await.expect("it is there");
    server
        .delete(ALICE, "2")
        .await
        .expect("it is deleted already");
    assert_eq!(server.current(ALICE).as_deref(), Some("1"));
    assert_eq!(server.backup(ALICE).await, "3");
    for unknown in ["4", "0", "03", "+3", "x", "", "99999999999999999999"] {
        let deleted = server.delete(ALICE, unknown).await;
        assert!(
            matches!(deleted, Err(DeleteBackupError::NotFound)),
            "{unknown}"
        );
        let view = server.store.view();
        assert_eq!(
            server.e2ee.backup(&view, ALICE, unknown).expect("reads"),
            None
        );
    }
    let view = server.store.view();
    assert_eq!(server.e2ee.backup(&view, ALICE, "2").expect("reads"), None);
    assert_eq!(server.e2ee.backup(&view, BOB, "1").expect("reads"), None);
    for version in ["1", "3"] {
        server.delete(ALICE, version).await.expect("it is there");
    }
    assert_eq!(server.current(ALICE), None);
    assert_eq!(server.backup(ALICE).await, "4");
}

#[tokio::test]
async fn how_many_backups_a_user_has_is_bounded() {
    let server = server().await;
    for _ in 0..MAX_BACKUPS {
        server.backup(ALICE).await;
    }
    let create = async || {
        let auth_data = raw(&json!({}));
        server
            .e2ee
            .create_backup(ALICE, ALGORITHM.to_owned(), auth_data)
            .await
    };
    assert!(matches!(create().await, Err(CreateBackupError::TooMany)));
    server.delete(ALICE, "50").await.expect("it is there");
    assert_eq!(create().await.expect("there is room"), "101");
    assert_eq!(server.backup(BOB).await, "1");
}

#[tokio::test]
async fn only_the_data_of_a_backup_changes() {
    let server = server().await;
    let version = server.backup(ALICE).await;
    let counts = server.counts(ALICE, &version);
    let update = async |version: &str, algorithm: &str, auth_data: Value| {
        let (version, algorithm) = (version.to_owned(), algorithm.to_owned());
        server
            .e2ee
            .update_backup(ALICE, version, algorithm, raw(&auth_data))
            .await
    };
    let data = json!({ "public_key": "b" });
    for _ in 0..2 {
        update(&version, ALGORITHM, data.clone())
            .await
            .expect("the same algorithm");
    }
    let view = server.store.view();
    let backup = server.e2ee.backup(&view, ALICE, &version).expect("reads");
    let backup = backup.expect("it is there");
    assert_eq!(backup.auth_data, raw(&data));
    assert_eq!(backup.counts, counts);
    assert!(matches!(
        update(&version, "other", data.clone()).await,
        Err(UpdateBackupError::OtherAlgorithm)
    ));
    assert!(matches!(
        update("2", ALGORITHM, data).await,
        Err(UpdateBackupError::NotFound)
    ));
    assert!(matches!(
        update(&version, ALGORITHM, json!([])).await,
        Err(UpdateBackupError::NotAnObject)
    ));
    assert!(matches!(
        update(&version, ALGORITHM, json!({ "a": "x".repeat(70_000) })).await,
        Err(UpdateBackupError::TooLarge)
    ));
}

#[tokio::test]
async fn the_etag_changes_with_the_keys_and_with_nothing_else() {
    let server = server().await;
    let version = server.backup(ALICE).await;
    let mut seen = BTreeSet::from([server.counts(ALICE, &version).etag]);
    let mut changed = |counts: &BackupCounts| {
        assert!(seen.insert(counts.etag.clone()), "{counts:?}");
        assert_eq!(*counts, server.counts(ALICE, &version));
    };
    let put = async |keys| {
        server
            .put(ALICE, &version, keys)
            .await
            .expect("the current one")
    };
    let first = put(vec![key("a", "1", 5), key("a", "2", 5), key("b", "1", 5)]).await;
    assert_eq!(first.count, 3);
    changed(&first);
    // Neither the same nor a worse key changes anything.
    assert_eq!(put(vec![key("a", "1", 5), key("b", "1", 6)]).await, first);
    assert_eq!(put(Vec::new()).await, first);
    // A better one does, though there are no more.
    let better = put(vec![key("a", "1", 4), key("b", "1", 6)]).await;
    assert_eq!(better.count, 3);
    changed(&better);
    assert_eq!(server.index(&version, "a", "1"), Some(4));
    assert_eq!(server.index(&version, "b", "1"), Some(5));

    let remove = async |which| {
        server
            .remove(ALICE, &version, which)
            .await
            .expect("is there")
    };
    let session = KeysToDelete::Session(room("a"), "1".to_owned());
    let fewer = remove(session.clone()).await;
    assert_eq!(fewer.count, 2);
    changed(&fewer);
    assert_eq!(remove(session).await, fewer);
    assert_eq!(remove(KeysToDelete::Room(room("c"))).await, fewer);
    let fewer = remove(KeysToDelete::Room(room("a"))).await;
    assert_eq!(fewer.count, 1);
    changed(&fewer);
    let none = remove(KeysToDelete::All).await;
    assert_eq!(none.count, 0);
    changed(&none);
    assert_eq!(remove(KeysToDelete::All).await, none);
}

#[tokio::test]
async fn only_the_newest_backup_takes_keys() {
    let server = server().await;
    let put = async |version: &str| server.put(ALICE, version, vec![key("a", "1", 5)]).await;
    assert!(matches!(put("1").await, Err(PutKeysError::NotFound)));
    let first = server.backup(ALICE).await;
    put(&first).await.expect("it is the current one");
    let second = server.backup(ALICE).await;
    match put(&first).await {
        Err(PutKeysError::WrongVersion { current }) => assert_eq!(current, second),
        other => panic!("{other:?}"),
    }
    assert!(matches!(put("3").await, Err(PutKeysError::NotFound)));
    put(&second).await.expect("it is the current one");
    // The older one is still there to read from, and to clear.
    assert_eq!(server.index(&first, "a", "1"), Some(5));
    server.delete(ALICE, &second).await.expect("it is there");
    assert!(matches!(put(&second).await, Err(PutKeysError::NotFound)));
    assert_eq!(server.index(&second, "a", "1"), None);
    let counts = put(&first).await.expect("it is the current one again");
    assert_eq!(counts, server.counts(ALICE, &first));
    server
        .remove(ALICE, &first, KeysToDelete::All)
        .await
        .expect("it is there");
    let deleted = server.remove(ALICE, &second, KeysToDelete::All).await;
    assert!(matches!(deleted, Err(DeleteKeysError::NotFound)));
}

#[tokio::test]
async fn one_bad_key_keeps_all_others_out() {
    let server = server().await;
    let version = server.backup(ALICE).await;
    let put = async |bad| {
        server
            .put(ALICE, &version, vec![key("a", "1", 5), bad])
            .await
    };
    for session in [String::new(), "x".repeat(256)] {
        let refused = put(key("a", &session, 1)).await;
        assert!(matches!(refused, Err(PutKeysError::InvalidSession)));
    }
    let mut bad = key("a", "2", 1);
    bad.key.session_data = raw(&json!("text"));
    assert!(matches!(
        put(bad.clone()).await,
        Err(PutKeysError::NotAnObject)
    ));
    bad.key.session_data = raw(&json!({ "a": "x".repeat(70_000) }));
    assert!(matches!(put(bad).await, Err(PutKeysError::TooLarge)));
    assert_eq!(server.counts(ALICE, &version).count, 0);
}

#[tokio::test]
async fn many_keys_are_read_with_one_lookup_and_written_in_one_batch() {
    const MANY: u64 = 12_000;
    let server = server().await;
    let version = server.backup(ALICE).await;
    let keys = |index| {
        (0..MANY)
            .map(|number| {
                key(
                    &format!("room{}", number % 50),
                    &format!("s{number}"),
                    index,
                )
            })
            .collect::<Vec<_>>()
    };
    for index in [5, 4] {
        let before = server.store.counters();
        let counts = server.put(ALICE, &version, keys(index)).await;
        let counts = counts.expect("the current one");
        let after = server.store.counters();
        assert_eq!(counts.count, MANY);
        assert_eq!(after.batches - before.batches, 1);
        assert_eq!(after.puts - before.puts, MANY + 2);
        assert_eq!(after.gets - before.gets, MANY + 2);
        assert_eq!(after.scans, before.scans);
    }
    server.counts(ALICE, &version);

    // Read in parts, each of which is small, they are all there once and in order.
    let reader = server.e2ee.read_backup(ALICE, version.clone(), None).await;
    let mut reader = reader.expect("reads").expect("it is there");
    let (mut read, mut parts) = (Vec::new(), 0);
    while !reader.is_ended() {
        let part = reader.next().await.expect("reads");
        assert!(part.len() <= 1_000);
        read.extend(part.into_iter().map(|(room, session, _)| (room, session)));
        parts += 1;
    }
    assert_eq!(read.len() as u64, MANY);
    assert!(parts > 5);
    assert!(read.is_sorted_by(|a, b| a < b));

    // Of a room none of another.
    let of_room = room("room7");
    let reader = server
        .e2ee
        .read_backup(ALICE, version.clone(), Some(&of_room))
        .await;
    let mut reader = reader.expect("reads").expect("it is there");
    let part = reader.next().await.expect("reads");
    assert!(reader.is_ended());
    assert_eq!(part.len() as u64, MANY / 50);
    assert!(part.iter().all(|(room, _, _)| *room == of_room.as_str()));

    // Many are deleted with their range.
    let before = server.store.counters();
    let left = server
        .remove(ALICE, &version, KeysToDelete::Room(of_room))
        .await;
    assert_eq!(left.expect("it is there").count, MANY - MANY / 50);
    let after = server.store.counters();
    assert_eq!(after.range_deletes - before.range_deletes, 1);
    assert_eq!(after.deletes, before.deletes);
    server.counts(ALICE, &version);
}

#[tokio::test]
async fn a_reader_notices_that_the_backup_has_gone() {
    let server = server().await;
    let version = server.backup(ALICE).await;
    let keys = (0..1_500).map(|number| key("a", &format!("s{number}"), 1));
    let put = server.put(ALICE, &version, keys.collect()).await;
    put.expect("the current one");
    let reader = server.e2ee.read_backup(ALICE, version.clone(), None).await;
    let mut reader = reader.expect("reads").expect("it is there");
    reader.next().await.expect("the first part");
    assert!(!reader.is_ended());
    server.delete(ALICE, &version).await.expect("it is there");
    assert!(matches!(reader.next().await, Err(ReadKeysError::Deleted)));
    let reader = server.e2ee.read_backup(ALICE, version, None).await;
    assert!(reader.expect("reads").is_none());
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    const WRITERS: u64 = 32;
    let server = server().await;
    let version = server.backup(ALICE).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (e2ee, version) = (server.e2ee.clone(), version.clone());
            // One session of its own, and one that everybody has a key of.
            let keys = vec![
                key("a", &format!("s{number}"), 1),
                key("a", "shared", WRITERS - number),
            ];
            tokio::spawn(async move { e2ee.put_backup_keys(ALICE, version, keys).await })
        })
        .collect();
    let mut etags = BTreeSet::new();
    for writer in writers {
        let counts = writer.await.expect("no panic").expect("the current one");
        assert!(etags.insert(counts.etag));
    }
    assert_eq!(server.counts(ALICE, &version).count, WRITERS + 1);
    assert_eq!(server.index(&version, "a", "shared"), Some(1));
}

#[tokio::test]
async fn nothing_is_left_of_a_user_who_goes() {
    let server = server().await;
    for user in [ALICE, BOB] {
        for _ in 0..2 {
            let version = server.backup(user).await;
            let put = server.put(user, &version, vec![key("a", "1", 1)]).await;
            put.expect("the current one");
        }
    }
    let mut batch = Batch::new();
    forget_backups(&mut batch, ALICE);
    server.store.commit(batch).await.expect("the disk works");
    assert_eq!(server.current(ALICE), None);
    let view = server.store.view();
    assert_eq!(view.keys::<BackupKeys>(Scan::prefix(&ALICE)).count(), 0);
    assert_eq!(server.counts(BOB, "2").count, 1);
}
