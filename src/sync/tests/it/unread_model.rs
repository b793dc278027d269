//! Random histories: counts that are made from running totals, piece by piece or at once, are those of whoever evaluates
//! every event by itself.

use std::{collections::BTreeMap, collections::HashMap, time::Duration};

use myelin_data::{
    rooms::{Membership, Place, ReceiptKind, Receipts, Timeline},
    unread::MAIN,
};
use myelin_rooms::{NewReceipt, Profile, Thread, read::RoomView};
use myelin_rules::{
    PowerLevels,
    push::{Kind, NewRule, PushContext, PushEvent, evaluate},
};
use myelin_store::Scan;
use myelin_sync::{Response, UnreadNotifications};
use myelin_types::RoomNum;
use proptest::prelude::*;
use ruma::{EventId, OwnedRoomId};
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, CHARLIE, Client, Server, user};

const USERS: [&str; 3] = [ALICE, BOB, CHARLIE];

#[derive(Clone, Copy, Debug)]
enum Said {
    Plain,
    Keyword,
    Mention(usize),
    Everybody,
    Notice,
    Edit,
    Reaction,
    Encrypted,
    Poll,
    Call,
}

/// To what, counted from the end, something is related.
#[derive(Clone, Copy, Debug)]
enum Related {
    No,
    InThread(usize),
    To(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Say(usize, Said, Related),
    Set(usize, bool),
    Rename(usize, u8),
    Leave(usize),
    Join(usize),
    Read {
        who: usize,
        back: usize,
        threaded: bool,
        private: bool,
    },
    Redact(usize),
    Ignore(usize, Option<usize>),
    Rule(usize, Change),
    Check(usize),
}

/// A change of somebody's push rules.
#[derive(Clone, Copy, Debug)]
enum Change {
    Mute,
    MentionsOnly,
    HearAll,
    Word,
    Sender(usize),
    /// Takes the rules of his own back.
    Nothing,
    /// Turns one of the server's rules on or off.
    Default(usize, bool),
}

const DEFAULTS: [(Kind, &str); 6] = [
    (Kind::Override, ".m.rule.suppress_notices"),
    (Kind::Override, ".m.rule.suppress_edits"),
    (Kind::Override, ".m.rule.is_user_mention"),
    (Kind::Override, ".m.rule.member_event"),
    (Kind::Underride, ".m.rule.message"),
    (Kind::Underride, ".m.rule.encrypted"),
];

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => Just(Said::Plain),
        1 => Just(Said::Keyword),
        2 => (0..3_usize).prop_map(Said::Mention),
        1 => Just(Said::Everybody),
        1 => Just(Said::Notice),
        1 => Just(Said::Edit),
        1 => Just(Said::Reaction),
        1 => Just(Said::Encrypted),
        1 => Just(Said::Poll),
        1 => Just(Said::Call),
    ]
}

fn related() -> impl Strategy<Value = Related> {
    prop_oneof![
        4 => Just(Related::No),
        2 => (0..12_usize).prop_map(Related::InThread),
        1 => (0..6_usize).prop_map(Related::To),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => Just(Change::Mute),
        1 => Just(Change::MentionsOnly),
        1 => Just(Change::HearAll),
        1 => Just(Change::Word),
        1 => (0..3_usize).prop_map(Change::Sender),
        3 => Just(Change::Nothing),
        2 => (0..DEFAULTS.len(), any::<bool>()).prop_map(|(rule, on)| Change::Default(rule, on)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..3_usize;
    prop_oneof![
        20 => (who(), said(), related()).prop_map(|(who, said, related)| Step::Say(who, said, related)),
        1 => (who(), any::<bool>()).prop_map(|(who, message)| Step::Set(who, message)),
        1 => (who(), 0..2_u8).prop_map(|(who, name)| Step::Rename(who, name)),
        1 => (1..3_usize).prop_map(Step::Leave),
        2 => (1..3_usize).prop_map(Step::Join),
        3 => (who(), 0..10_usize, any::<bool>(), any::<bool>()).prop_map(
            |(who, back, threaded, private)| Step::Read { who, back, threaded, private }
        ),
        2 => (0..10_usize).prop_map(Step::Redact),
        1 => (who(), prop::option::of(who())).prop_map(|(who, whom)| Step::Ignore(who, whom)),
        2 => (who(), change()).prop_map(|(who, change)| Step::Rule(who, change)),
        6 => who().prop_map(Step::Check),
    ]
}

/// The counts of a room by thread; those of threads without any are left out.
type Counts = BTreeMap<String, (u64, u64)>;

struct World {
    server: Server,
    room: OwnedRoomId,
    clients: Vec<Client>,
    ignored: [Option<usize>; 3],
    /// The thread that each event was sent to.
    threads: HashMap<String, String>,
    /// What can be read, redacted and answered.
    sent: Vec<String>,
}

impl World {
    async fn new() -> World {
        let server = Server::new().await;
        let room = server.room().await;
        let levels = json!({"state_default": 0});
        server
            .set(&room, ALICE, "m.room.power_levels", "", levels)
            .await;
        let mut clients = Vec::new();
        for who in USERS {
            if who != ALICE {
                server.join(&room, who).await;
            }
            let mut client = server.client(who).await;
            client.filter = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
            clients.push(client);
        }
        World {
            server,
            room,
            clients,
            ignored: [None; 3],
            threads: HashMap::new(),
            sent: Vec::new(),
        }
    }

    fn recent(&self, back: usize) -> Option<&String> {
        let at = self.sent.len().checked_sub(back + 1)?;
        self.sent.get(at)
    }

    fn thread(&self, event: &str) -> Option<&String> {
        self.threads.get(event)
    }

    async fn step(&mut self, step: Step) {
        // What a step is not allowed to do is just not done.
        match step {
            Step::Say(who, said, related) => self.say(who, said, related).await,
            Step::Set(who, message) => {
                let kind = if message { "m.room.message" } else { "a.b" };
                let content = json!({"n": self.sent.len()});
                let _ = self
                    .server
                    .try_set(&self.room, USERS[who], kind, "", content)
                    .await;
            }
            Step::Rename(who, name) => {
                let profile = Profile {
                    displayname: Some(name.to_string()),
                    avatar_url: None,
                };
                let updated = self
                    .server
                    .rooms
                    .update_profile(&user(USERS[who]), &profile)
                    .await;
                updated.expect("the profile may be set");
            }
            Step::Leave(who) => {
                let _ = self.server.try_leave(&self.room, USERS[who]).await;
            }
            Step::Join(who) => {
                let _ = self.server.try_join(&self.room, USERS[who]).await;
            }
            Step::Read {
                who,
                back,
                threaded,
                private,
            } => self.read(who, back, threaded, private).await,
            Step::Redact(back) => {
                if let Some(event) = self.recent(back) {
                    self.server.redact(&self.room, ALICE, event).await;
                }
            }
            Step::Ignore(who, whom) => {
                self.ignored[who] = whom.filter(|whom| *whom != who);
                let list: serde_json::Map<String, Value> = self.ignored[who]
                    .iter()
                    .map(|whom| (USERS[*whom].to_owned(), json!({})))
                    .collect();
                let list = json!({"ignored_users": list});
                let client = &self.clients[who];
                self.server
                    .account_data(client, RoomNum::NONE, "m.ignored_user_list", list)
                    .await;
            }
            Step::Rule(who, change) => self.change(who, change).await,
            Step::Check(who) => self.check(who).await,
        }
    }

    async fn say(&mut self, who: usize, said: Said, related: Related) {
        let text =
            |mentions: Value| json!({"msgtype": "m.text", "body": "x", "m.mentions": mentions});
        let (kind, mut content) = match said {
            Said::Plain | Said::Edit => ("m.room.message", text(json!({}))),
            Said::Keyword => (
                "m.room.message",
                json!({"msgtype": "m.text", "body": "the word"}),
            ),
            Said::Mention(whom) => ("m.room.message", text(json!({"user_ids": [USERS[whom]]}))),
            Said::Everybody => ("m.room.message", text(json!({"room": true}))),
            Said::Notice => (
                "m.room.message",
                json!({"msgtype": "m.notice", "body": "the word"}),
            ),
            Said::Reaction => ("m.reaction", json!({})),
            Said::Encrypted => ("m.room.encrypted", json!({})),
            Said::Poll => ("m.poll.start", json!({})),
            Said::Call => ("m.call.invite", json!({})),
        };
        let mut thread = None;
        let (target, kind_of_relation) = match (said, related) {
            (Said::Edit, Related::No) => (self.recent(0), "m.replace"),
            (Said::Reaction, Related::No) => (self.recent(0), "m.annotation"),
            (_, Related::No) => (None, ""),
            (Said::Edit, Related::To(back)) => (self.recent(back), "m.replace"),
            (_, Related::To(back)) => (self.recent(back), "m.reference"),
            (_, Related::InThread(back)) => {
                // A thread that is there already, if there is one.
                let target = self.recent(back);
                let root = target.map(|target| self.thread(target).unwrap_or(target));
                thread = root.cloned();
                (root, "m.thread")
            }
        };
        if let Some(target) = target {
            content["m.relates_to"] = json!({"rel_type": kind_of_relation, "event_id": target});
            thread = thread.or_else(|| self.followed(target));
        }
        let sent = self
            .server
            .try_send(&self.room, USERS[who], kind, content)
            .await;
        if let Ok(event) = sent {
            if let Some(thread) = thread {
                self.threads.insert(event.clone(), thread);
            }
            self.sent.push(event);
        }
    }

    /// The thread that relations lead to from an event, as they are now.
    fn followed(&self, event: &str) -> Option<String> {
        let mut event = event.to_owned();
        for _ in 0..3 {
            let view = self.server.store.view();
            let room = RoomView::find(&self.server.rooms, &view, &self.room);
            let room = room.expect("rooms can be read").expect("it is there");
            let id = EventId::parse(&event).expect("event ids are well-formed");
            let found = room.event_by_id(&id).expect("events can be read");
            let found = found.expect("it is there");
            let relation = found.pdu.content().get("m.relates_to")?;
            relation["event_id"].as_str()?.clone_into(&mut event);
            if relation["rel_type"] == "m.thread" {
                return Some(event);
            }
        }
        None
    }

    async fn read(&self, who: usize, back: usize, threaded: bool, private: bool) {
        let Some(event) = self.recent(back) else {
            return;
        };
        let event_id = |id: &str| EventId::parse(id).expect("event ids are well-formed");
        let thread = match (threaded, self.thread(event)) {
            (false, _) => Thread::Unthreaded,
            (true, None) => Thread::Main,
            (true, Some(root)) => Thread::Root(event_id(root)),
        };
        let kind = if private {
            ReceiptKind::ReadPrivate
        } else {
            ReceiptKind::Read
        };
        let receipt = NewReceipt {
            kind,
            thread,
            event_id: event_id(event),
        };
        let _ = self
            .server
            .rooms
            .set_receipts(&self.room, &user(USERS[who]), vec![receipt])
            .await;
    }

    async fn change(&self, who: usize, change: Change) {
        let user = self.clients[who].viewer.user;
        let accounts = &self.server.accounts;
        let notify = || vec![json!("notify")];
        let in_room =
            || vec![json!({"kind": "event_match", "key": "room_id", "pattern": self.room})];
        let (kind, id, actions, conditions, pattern) = match change {
            Change::Mute => (Kind::Override, "mine", vec![], in_room(), None),
            Change::HearAll => (Kind::Override, "mine", notify(), in_room(), None),
            Change::MentionsOnly => (Kind::Room, self.room.as_str(), vec![], vec![], None),
            Change::Word => {
                let highlight = json!({"set_tweak": "highlight"});
                let word = Some("word".to_owned());
                (
                    Kind::Content,
                    "mine",
                    vec![json!("notify"), highlight],
                    vec![],
                    word,
                )
            }
            Change::Sender(whom) => (Kind::Sender, USERS[whom], vec![], vec![], None),
            Change::Nothing => {
                for kind in Kind::ALL {
                    for id in ["mine", self.room.as_str(), ALICE, BOB, CHARLIE] {
                        let _ = accounts.delete_push_rule(user, kind, id).await;
                    }
                }
                return;
            }
            Change::Default(rule, on) => {
                let (kind, id) = DEFAULTS[rule];
                let set = accounts.set_push_rule_enabled(user, kind, id, on).await;
                return set.expect("the rule is there");
            }
        };
        let rule = NewRule {
            actions,
            conditions,
            pattern,
        };
        let put = accounts
            .put_push_rule(user, kind, id, rule, None, None)
            .await;
        put.expect("the rule may be set");
    }

    /// The counts of whoever remembers what he counted, of whoever starts from nothing, and of whoever evaluates everything.
    async fn check(&mut self, who: usize) {
        let Some(expected) = self.counts(who) else {
            return;
        };
        self.clients[who].since = None;
        let mut request = self.clients[who].request(Duration::ZERO);
        request.since = None;
        let afresh = self.server.other_sync();
        for (sync, name) in [(&self.server.sync, "in steps"), (&afresh, "at once")] {
            let response = sync.sync(request.clone()).await;
            let response: Response = response.expect("syncs are answered");
            let joined = response
                .rooms
                .join
                .get(&self.room)
                .expect("the room is there");
            let pair =
                |counts: UnreadNotifications| (counts.notification_count, counts.highlight_count);
            let main = pair(joined.unread_notifications.expect("there is a count"));
            let mut counts: Counts = joined
                .unread_thread_notifications
                .iter()
                .map(|(thread, counts)| (thread.clone(), pair(*counts)))
                .collect();
            if main != (0, 0) {
                counts.insert(MAIN.to_owned(), main);
            }
            assert_eq!(counts, expected, "the counts of {} {name}", USERS[who]);
        }
    }

    /// What a user has not read, by evaluating every event; None if he is not in the room.
    fn counts(&self, who: usize) -> Option<Counts> {
        let (view, viewer) = (self.server.store.view(), &self.clients[who].viewer);
        let num = self.server.num(&self.room);
        let room = RoomView::open(&self.server.rooms, &view, num).expect("the room is there");
        let mut marks: HashMap<String, Place> = HashMap::new();
        for row in view.scan::<Receipts>(Scan::prefix(&(num, viewer.user))) {
            let ((.., thread), receipt) = row.expect("receipts can be read");
            let mark = marks.entry(thread).or_default();
            *mark = receipt.place.max(*mark);
        }
        let rules = self.server.accounts.push_rules(&view, viewer.user);
        let rules = rules.expect("rules can be read");
        let head = room
            .head()
            .expect("heads can be read")
            .expect("it is there");
        let state = |kind: &str| {
            let num = room
                .state_entry(head.root(), kind, "")
                .expect("state can be read");
            room.event(num.expect("it is set"))
                .expect("events can be read")
        };
        let (create, levels) = (state("m.room.create"), state("m.room.power_levels"));
        let levels = PowerLevels::new(&create.pdu, Some(&levels.pdu));
        let context = PushContext {
            user_id: USERS[who],
            display_name: None,
            member_count: head.joined,
            power_levels: Some(&levels),
        };
        let (mut counts, mut joined) = (Counts::new(), false);
        for row in view.scan::<Timeline>(Scan::prefix(&num)) {
            let ((_, place), entry) = row.expect("the timeline can be read");
            let event = room.event(entry.event).expect("the event is there");
            let own = event.pdu.sender() == USERS[who];
            if event.pdu.event_type() == "m.room.member"
                && event.pdu.state_key() == Some(USERS[who])
            {
                let joins = event.pdu.content()["membership"] == Membership::Join.as_str();
                if joins && !joined {
                    counts.clear();
                }
                joined = joins;
            }
            let thread = self.thread(event.pdu.event_id());
            let thread = thread.map_or(MAIN, String::as_str);
            let is_state = event.pdu.state_key().is_some();
            if own {
                if !is_state {
                    counts.remove(thread);
                }
                continue;
            }
            let read = ["", thread]
                .iter()
                .any(|thread| marks.get(*thread) >= Some(&place));
            let hushed = !is_state
                && self.ignored[who].is_some_and(|whom| event.pdu.sender() == USERS[whom]);
            if read || hushed || event.header.redacted_by.is_some() {
                continue;
            }
            let outcome = evaluate(&rules, &PushEvent::from(&event.pdu), &context);
            if outcome.notify {
                let count = counts.entry(thread.to_owned()).or_default();
                count.0 += 1;
                count.1 += u64::from(outcome.highlight);
            }
        }
        joined.then_some(counts)
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new().await;
    for step in steps {
        world.step(step).await;
    }
    for who in 0..3 {
        world.check(who).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_exact(steps in prop::collection::vec(step(), 20..100)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(run(steps));
    }
}
