//! Lists of another server's users over a real store.

use myelin_data::e2ee::{
    DeviceList, DeviceListChange, DeviceLists, RemoteDeviceLists, StaleDeviceLists,
};
use myelin_types::{Millis, RoomNum};
use ruma::{OwnedServerName, owned_server_name};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::testing::{World, id};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";

fn there() -> OwnedServerName {
    owned_server_name!("there.example")
}

fn keys_of(device_id: &str, key: &str) -> Box<RawValue> {
    let keys = json!({ "user_id": BOB, "device_id": device_id, "keys": { "a": key } });
    to_raw_value(&keys).expect("it is JSON")
}

fn update(device_id: &str, stream_id: u64, prev_ids: &[u64]) -> ListUpdate {
    ListUpdate::Device(DeviceUpdate {
        user_id: id(BOB),
        device_id: device_id.to_owned(),
        display_name: Some(format!("at {stream_id}")),
        stream_id,
        prev_ids: prev_ids.to_vec(),
        deleted: false,
        keys: Some(keys_of(device_id, &stream_id.to_string())),
    })
}

/// A server on which Alice shares a room with Bob, who is elsewhere.
struct Shared {
    world: World,
    bob: UserNum,
    room: RoomNum,
}

impl Shared {
    async fn new() -> Shared {
        let world = World::new().await;
        world.user(ALICE, &["A"]).await;
        let room = world.room(ALICE).await;
        let bob = world.num(BOB).await;
        world.set_joined(bob, room, true).await;
        Shared { world, bob, room }
    }

    /// Takes in updates; whether the list is to be fetched then.
    async fn hear(&self, updates: Vec<ListUpdate>) -> bool {
        let heard = self.world.e2ee.hear_lists(&there(), updates).await;
        !heard.expect("the store works").is_empty()
    }

    /// Fetches the list as it stands at `stream_id`, with a device of that name.
    async fn fetch(&self, stream_id: u64, devices: &[&str]) -> Kept {
        let stale = self.stale().expect("it is to be fetched");
        self.world
            .e2ee
            .keep_list(stale, list(stream_id, devices))
            .await
            .expect("the store works")
    }

    fn stale(&self) -> Option<StaleList> {
        let stale = self
            .world
            .e2ee
            .stale_list(&self.world.store.view(), &id(BOB));
        stale.expect("the store reads")
    }

    /// The names of the devices; none if the list is not believed.
    fn devices(&self) -> Option<Vec<String>> {
        let tracked = self.world.e2ee.tracked(&self.world.store.view(), &id(BOB));
        let tracked = tracked.expect("the store reads")?;
        let names = tracked.devices.into_iter();
        Some(names.map(|(id, _)| id).collect())
    }

    fn row(&self) -> Option<RemoteDeviceList> {
        let row = self.world.store.view().get::<RemoteDeviceLists>(&self.bob);
        row.expect("the store reads")
    }

    /// What local readers are told of.
    fn changes(&self) -> u64 {
        let list = self.world.store.view().get::<DeviceLists>(&self.bob);
        list.expect("the store reads")
            .map_or(0, |list: DeviceList| list.stream_id)
    }
}

fn list(stream_id: u64, devices: &[&str]) -> FetchedList {
    let devices = devices.iter().map(|device_id| FetchedDevice {
        device_id: (*device_id).to_owned(),
        display_name: None,
        keys: Some(keys_of(device_id, &stream_id.to_string())),
    });
    FetchedList {
        stream_id,
        devices: devices.collect(),
        ..FetchedList::default()
    }
}

#[tokio::test]
async fn updates_that_follow_upon_each_other_are_applied() {
    let shared = Shared::new().await;
    assert_eq!(shared.devices(), None);
    assert!(shared.hear(vec![update("A", 5, &[4])]).await);
    assert_eq!(shared.devices(), None);
    assert_eq!(shared.fetch(5, &["A"]).await, Kept::Kept);
    assert_eq!(shared.devices(), Some(vec!["A".to_owned()]));
    assert!(
        !shared
            .hear(vec![update("B", 6, &[5]), update("C", 7, &[6])])
            .await
    );
    assert_eq!(shared.devices().map(|all| all.len()), Some(3));
    let deleted = match update("A", 8, &[7]) {
        ListUpdate::Device(update) => ListUpdate::Device(DeviceUpdate {
            deleted: true,
            ..update
        }),
        keys @ ListUpdate::Keys(_) => keys,
    };
    assert!(!shared.hear(vec![deleted]).await);
    assert_eq!(shared.devices(), Some(vec!["B".to_owned(), "C".to_owned()]));
    let changes = shared.changes();
    // What comes again changes nothing, and nobody is told.
    let again = vec![
        update("B", 6, &[5]),
        update("C", 7, &[6]),
        update("A", 8, &[7]),
    ];
    assert!(!shared.hear(again).await);
    assert_eq!(shared.devices(), Some(vec!["B".to_owned(), "C".to_owned()]));
    assert_eq!(shared.changes(), changes);
}

#[tokio::test]
async fn a_gap_makes_the_list_stale_until_it_is_fetched() {
    let shared = Shared::new().await;
    shared.hear(vec![update("A", 1, &[])]).await;
    shared.fetch(1, &["A"]).await;
    for missing in [
        update("B", 3, &[2]),
        update("B", 3, &[]),
        update("B", 3, &[1, 2]),
    ] {
        assert!(shared.hear(vec![missing]).await);
        assert_eq!(shared.devices(), None);
        let view = shared.world.store.view();
        let marked = view.contains::<StaleDeviceLists>(&shared.bob);
        assert!(marked.expect("the store reads"));
        shared.fetch(1, &["A"]).await;
        let view = shared.world.store.view();
        let marked = view.contains::<StaleDeviceLists>(&shared.bob);
        assert!(!marked.expect("the store reads"));
    }
}

#[tokio::test]
async fn what_is_fetched_is_only_kept_if_nothing_came_meanwhile() {
    let shared = Shared::new().await;
    shared.hear(vec![update("A", 1, &[])]).await;
    let asked = shared.stale().expect("it is to be fetched");
    shared.hear(vec![update("B", 2, &[1])]).await;
    let kept = shared
        .world
        .e2ee
        .keep_list(asked.clone(), list(1, &["A"]))
        .await;
    assert_eq!(kept.expect("the store works"), Kept::Outdated);
    assert_eq!(shared.devices(), None);
    // A failure of before says nothing of the list as it is now either.
    let later = Millis(crate::testing::NOW.0 + 1_000);
    let put_off = shared.world.e2ee.put_off_list(asked, later).await;
    put_off.expect("the store works");
    assert_eq!(shared.row().map(|row| row.failures), Some(0));
    assert_eq!(shared.fetch(2, &["A", "B"]).await, Kept::Kept);
    assert_eq!(shared.devices().map(|all| all.len()), Some(2));
}

#[tokio::test]
async fn a_failure_puts_the_list_off_and_its_server_brings_it_up_again() {
    let shared = Shared::new().await;
    shared.hear(vec![update("A", 1, &[])]).await;
    let stale = shared.stale().expect("it is to be fetched");
    let later = Millis(crate::testing::NOW.0 + 1_000);
    let put_off = shared.world.e2ee.put_off_list(stale, later).await;
    put_off.expect("the store works");
    let stale = shared.stale().expect("it is still to be fetched");
    assert_eq!((stale.failures(), stale.next_attempt()), (1, later));
    assert!(shared.hear(vec![update("A", 2, &[1])]).await);
    let stale = shared.stale().expect("it is still to be fetched");
    assert_eq!(stale.next_attempt(), crate::testing::NOW);
}

#[tokio::test]
async fn a_list_counts_only_as_long_as_a_room_is_shared_without_a_break() {
    let shared = Shared::new().await;
    shared.hear(vec![update("A", 1, &[])]).await;
    shared.fetch(1, &["A"]).await;
    let (world, bob) = (&shared.world, shared.bob);
    let other = world.room(ALICE).await;
    world.set_joined(bob, other, true).await;
    assert!(shared.devices().is_some());
    // The room that was shared since then is left: updates may be missing.
    world.set_joined(bob, shared.room, false).await;
    assert_eq!(shared.devices(), None);
    assert!(shared.hear(vec![update("A", 2, &[1])]).await);
    shared.fetch(2, &["A"]).await;
    assert!(shared.devices().is_some());
    // With the last room the list goes, by what is heard next or by the janitor.
    world.set_joined(bob, other, false).await;
    assert_eq!(shared.devices(), None);
    assert!(!shared.hear(vec![update("A", 3, &[2])]).await);
    assert_eq!(shared.row(), None);
    assert!(!shared.hear(vec![update("A", 4, &[3])]).await);
    assert_eq!(shared.row(), None);

    world.set_joined(bob, other, true).await;
    assert!(shared.hear(vec![update("A", 5, &[4])]).await);
    shared.fetch(5, &["A"]).await;
    assert_eq!(
        world.e2ee.tidy_lists(None).await.expect("the store works"),
        None
    );
    assert!(shared.devices().is_some());
    world.set_joined(bob, other, false).await;
    assert_eq!(
        world.e2ee.tidy_lists(None).await.expect("the store works"),
        None
    );
    assert_eq!(shared.row(), None);
    let devices = world
        .store
        .view()
        .keys::<RemoteDevices>(Scan::all())
        .count();
    assert_eq!(devices, 0);
}

#[tokio::test]
async fn lists_are_kept_of_those_with_whom_a_room_is_shared() {
    let shared = Shared::new().await;
    let e2ee = &shared.world.e2ee;
    let users = vec![id(BOB), id("@charlie:there.example")];
    shared.world.num("@charlie:there.example").await;
    for _ in 0..2 {
        let begun = e2ee.track(users.clone()).await.expect("the store works");
        assert_eq!(begun, [id(BOB)]);
    }
    let view = shared.world.store.view();
    let stale = e2ee.stale_lists(&view, None, 10).expect("the store reads");
    assert_eq!(stale, (vec![id(BOB)], None));
    shared.fetch(1, &["A"]).await;
    let begun = e2ee.track(users).await.expect("the store works");
    assert!(begun.is_empty());
}

#[tokio::test]
async fn what_is_not_the_origins_to_say_is_passed_over() {
    let shared = Shared::new().await;
    let elsewhere = owned_server_name!("elsewhere.example");
    let heard = shared
        .world
        .e2ee
        .hear_lists(&elsewhere, vec![update("A", 1, &[])]);
    assert!(heard.await.expect("passed over").is_empty());
    assert_eq!(shared.row(), None);
    // Keys that are another device's, or too long, are left out; the device is known all the same.
    shared.hear(vec![update("A", 1, &[])]).await;
    let mut fetched = list(1, &["A", "B", "C"]);
    fetched.devices[1].keys = Some(keys_of("A", "1"));
    fetched.devices[2].keys = Some(keys_of("C", &"x".repeat(70_000)));
    let stale = shared.stale().expect("it is to be fetched");
    shared
        .world
        .e2ee
        .keep_list(stale, fetched)
        .await
        .expect("kept");
    let tracked = shared
        .world
        .e2ee
        .tracked(&shared.world.store.view(), &id(BOB));
    let tracked = tracked.expect("the store reads").expect("it is believed");
    let with_keys = tracked
        .devices
        .iter()
        .map(|(_, device)| device.keys.is_some());
    assert_eq!(with_keys.collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn keys_that_sign_are_taken_and_told_of() {
    let shared = Shared::new().await;
    shared.hear(vec![update("A", 1, &[])]).await;
    shared.fetch(1, &["A"]).await;
    let key = |user: &str, usage: &str| -> Option<Box<RawValue>> {
        let key: Value = json!({ "user_id": user, "usage": [usage], "keys": {} });
        Some(to_raw_value(&key).expect("it is JSON"))
    };
    let keys = ListUpdate::Keys(KeysUpdate {
        user_id: id(BOB),
        master: key(BOB, "master"),
        self_signing: key(ALICE, "self_signing"),
    });
    let changes = shared.changes();
    assert!(!shared.hear(vec![keys]).await);
    assert_eq!(shared.changes(), changes + 1);
    let view = shared.world.store.view();
    let list = view
        .get::<DeviceLists>(&shared.bob)
        .expect("the store reads");
    let last = list.and_then(|list| list.recent.last().cloned());
    assert_eq!(
        last.map(|(_, change)| change),
        Some(DeviceListChange::CrossSigning)
    );
    let known = |usage| {
        let known = view.contains::<CrossSigningKeys>(&(shared.bob, usage));
        known.expect("the store reads")
    };
    assert!(known(CrossSigningUsage::Master));
    assert!(!known(CrossSigningUsage::SelfSigning));
}
