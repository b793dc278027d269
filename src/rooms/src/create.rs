//! Making a room: every event of it in the specification's order, in one batch.

use std::{
    collections::HashSet,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
};

use myelin_data::{
    Present,
    accounts::Number,
    rooms::{Alias, Membership, Published, Room, RoomNums, Rooms as RoomRows},
};
use myelin_rules::{EventBuilder, Pdu, RoomVersion};
use myelin_types::{Millis, random_string};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    AppendError, CanonicalAliasError, Failure, JsonObject, Profile, RoomHandle, Rooms,
    aliases::{CANONICAL_ALIAS, alias_changed, listed_aliases, parse_alias, put_alias},
    membership::{MEMBER, content},
    pipeline::{Draft, RoomGuard},
};

/// The longest type or state key of an event, in bytes.
const MAX_NAME: usize = 255;

/// The power that creators have before version 12, and that their closest equals get.
const CREATOR_LEVEL: i64 = 100;

/// The bundles of settings that a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `private_chat`: by invitation.
    PrivateChat,
    /// `trusted_private_chat`: by invitation, and whoever is invited is the creator's equal.
    TrustedPrivateChat,
    /// `public_chat`: open to everybody but guests.
    PublicChat,
}

/// Whether the public directory lists a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// It does not.
    #[default]
    Private,
    /// It does.
    Public,
}

/// A state event to be.
#[derive(Clone, Debug)]
pub struct StateDraft {
    /// Its type.
    pub event_type: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: JsonObject,
}

/// Somebody who is invited.
#[derive(Clone, Debug)]
pub struct Invitee {
    /// Who.
    pub user_id: OwnedUserId,
    /// As the invitation shows him.
    pub profile: Profile,
}

/// What `POST /createRoom` asks for.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// The user who makes the room.
    pub creator: OwnedUserId,
    /// His profile.
    pub profile: Profile,
    /// Whether the public directory lists the room.
    pub visibility: Visibility,
    /// The preset; by default it follows from `visibility`.
    pub preset: Option<Preset>,
    /// The version's id; by default [`crate::Options::default_room_version`].
    pub room_version: Option<String>,
    /// Further content of `m.room.create`. A room version or creator in it is overwritten.
    pub creation_content: JsonObject,
    /// State events after those of the preset.
    pub initial_state: Vec<StateDraft>,
    /// The room's name.
    pub name: Option<String>,
    /// The room's topic, as plain text.
    pub topic: Option<String>,
    /// The localpart of an alias to make.
    pub room_alias_name: Option<String>,
    /// Who is invited. Users of other servers get what the room's settings give to those who are invited, and no
    /// invitation: their servers have to sign those, once the room is there.
    pub invite: Vec<Invitee>,
    /// Whether the invitations are marked as those of a direct chat.
    pub is_direct: bool,
    /// Keys of the power levels' content that replace the preset's.
    pub power_level_content_override: JsonObject,
}

impl CreateRoom {
    /// A room of `creator` with nothing asked for: private, by invitation, of the default version.
    pub fn new(creator: OwnedUserId, profile: Profile) -> Self {
        Self {
            creator,
            profile,
            visibility: Visibility::default(),
            preset: None,
            room_version: None,
            creation_content: JsonObject::new(),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            room_alias_name: None,
            invite: Vec::new(),
            is_direct: false,
            power_level_content_override: JsonObject::new(),
        }
    }
}

/// Why a room was not made. Nothing of it is left then.
#[derive(Clone, Debug, Error)]
pub enum CreateRoomError {
    /// The server does not know the room version (`M_UNSUPPORTED_ROOM_VERSION`).
    #[error("room version {0:?} is not supported")]
    UnsupportedVersion(String),
    /// The alias is taken (`M_ROOM_IN_USE`).
    #[error("the alias is taken")]
    AliasTaken,
    /// The alias' localpart makes no valid alias (`M_INVALID_PARAM`).
    #[error("{0:?} is no localpart of an alias")]
    InvalidAlias(String),
    /// A canonical alias in `initial_state` is one that the room cannot have.
    #[error(transparent)]
    CanonicalAlias(#[from] CanonicalAliasError),
    /// The room was to begin with a membership of somebody of another server.
    #[error("{0} is a user of another server")]
    RemoteInvitee(OwnedUserId),
    /// `creation_content`, `initial_state` or `power_level_content_override` make a room that its own rules refuse, or
    /// that its creator could not use (`M_INVALID_ROOM_STATE`).
    #[error("the room would contradict its own rules: {0}")]
    InvalidState(String),
    /// An event of the room is too large.
    #[error("an event of the room is too large: {0}")]
    TooLarge(String),
    /// What was asked for has the wrong shape (`M_BAD_JSON`).
    #[error("{0}")]
    Malformed(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<AppendError> for CreateRoomError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Forbidden(why) | AppendError::Unacceptable(why) => Self::InvalidState(why),
            AppendError::TooLarge(why) => Self::TooLarge(why),
            AppendError::Malformed(why) => Self::Malformed(why),
            AppendError::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl Rooms {
    /// Makes a room (client-server specification, `POST /createRoom`).
    pub async fn create_room(&self, request: CreateRoom) -> Result<OwnedRoomId, CreateRoomError> {
        let rooms = self.clone();
        self.run(async move { rooms.make_room(request).await })
            .await
    }

    /// Refuses initial state that could not be sent, before anything of it is numbered. `alias` is the only one that is
    /// going to point to the room.
    fn check_initial_state(
        &self,
        request: &CreateRoom,
        alias: Option<&OwnedRoomAliasId>,
    ) -> Result<(), CreateRoomError> {
        for draft in &request.initial_state {
            if draft.event_type.len() > MAX_NAME || draft.state_key.len() > MAX_NAME {
                return Err(CreateRoomError::TooLarge(
                    "a type or state key has more than 255 bytes".to_owned(),
                ));
            }
            let member = (draft.event_type == MEMBER).then_some(draft.state_key.as_str());
            if let Some(user) = member.and_then(|user| OwnedUserId::try_from(user).ok())
                && !self.is_local(&user)
            {
                return Err(CreateRoomError::RemoteInvitee(user));
            }
            if draft.event_type == CANONICAL_ALIAS && draft.state_key.is_empty() {
                for text in listed_aliases(&draft.content)? {
                    let listed = parse_alias(text)?;
                    if Some(&listed) != alias {
                        return Err(CanonicalAliasError::BadAlias(listed).into());
                    }
                }
            }
        }
        Ok(())
    }

    async fn make_room(&self, request: CreateRoom) -> Result<OwnedRoomId, CreateRoomError> {
        let version = self.version_of(&request)?;
        let alias = match &request.room_alias_name {
            Some(name) => Some(self.free_alias(name).await?),
            None => None,
        };
        self.check_initial_state(&request, alias.as_ref())?;
        let plan = Plan::of(request, version, alias);
        self.number_all(&plan).await?;
        let created_at = self.creation_time();
        let create = self.create_event(&plan, created_at)?;
        let room_id = OwnedRoomId::try_from(create.room_id())
            .map_err(|error| CreateRoomError::Malformed(error.to_string()))?;
        let num = self.0.interner.next_room().await.map_err(Failure::from)?;
        let handle = RoomHandle {
            num,
            version,
            room: Arc::new(Room {
                room_id: room_id.to_string(),
                version: version.to_string(),
                created_at,
            }),
        };
        let mut guard = self.lock_new(&handle).await;
        guard.batch().expect::<RoomNums>(&room_id.to_string(), None);
        guard
            .batch()
            .put::<RoomNums>(&room_id.to_string(), &Number(num.0));
        guard.batch().put::<RoomRows>(&num, &handle.room);
        guard.append_built(create, [], None).await?;
        plan.append(&mut guard).await?;
        let creator = self.0.interner.user(&plan.request.creator).await;
        let creator = creator.map_err(Failure::from)?;
        if let Some(alias) = &plan.alias {
            put_alias(guard.batch(), alias, &Alias { room: num, creator });
        }
        if plan.request.visibility == Visibility::Public {
            guard.batch().put::<Published>(&num, &Present);
        }
        match guard.commit().durable().await {
            Ok(_) => Ok(room_id),
            Err(Failure::Commit(error)) if alias_changed(&error) => {
                Err(CreateRoomError::AliasTaken)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Numbers all users and state keys of the room at once, rather than each when its event comes.
    async fn number_all(&self, plan: &Plan) -> Result<(), Failure> {
        let request = &plan.request;
        let mut users = vec![request.creator.clone()];
        users.extend(request.invite.iter().map(|invitee| invitee.user_id.clone()));
        let mut keys: Vec<(String, String)> = users
            .iter()
            .map(|user| (MEMBER.to_owned(), user.to_string()))
            .collect();
        let initial = request.initial_state.iter();
        keys.extend(initial.map(|draft| (draft.event_type.clone(), draft.state_key.clone())));
        let settings = ["m.room.create", "m.room.name", "m.room.topic"].into_iter();
        let settings = settings.chain(plan.settings().into_iter().map(|(kind, _)| kind));
        keys.extend(settings.map(|kind| (kind.to_owned(), String::new())));
        self.0.interner.users(&users).await?;
        self.0.interner.state_keys(&keys).await?;
        Ok(())
    }

    fn version_of(&self, request: &CreateRoom) -> Result<RoomVersion, CreateRoomError> {
        match &request.room_version {
            None => Ok(self.0.options.default_room_version),
            Some(version) => RoomVersion::from_str(version)
                .map_err(|_| CreateRoomError::UnsupportedVersion(version.clone())),
        }
    }

    /// The alias with this localpart, if it is well-formed and points nowhere yet.
    async fn free_alias(&self, name: &str) -> Result<OwnedRoomAliasId, CreateRoomError> {
        let invalid = || CreateRoomError::InvalidAlias(name.to_owned());
        if name.is_empty() || name.contains([':', '\0']) || name.chars().any(char::is_whitespace) {
            return Err(invalid());
        }
        let alias =
            RoomAliasId::parse(format!("#{name}:{}", self.0.server_name)).map_err(|_| invalid())?;
        let (rooms, wanted) = (self.clone(), alias.clone());
        let read = move |view: &_| rooms.resolve_alias(view, &wanted);
        match self.0.store.read(read).await.map_err(Failure::from)? {
            Some(_) => Err(CreateRoomError::AliasTaken),
            None => Ok(alias),
        }
    }

    /// Now, but later than every room made before: from version 12 on, a room's id follows from its create event, which
    /// must not be equal to another one.
    fn creation_time(&self) -> Millis {
        let now = self.0.clock.now().0;
        let last = &self.0.last_creation;
        let before = last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |before| {
                Some(now.max(before + 1))
            })
            .unwrap_or_default();
        Millis(now.max(before + 1))
    }

    fn create_event(&self, plan: &Plan, created_at: Millis) -> Result<Pdu, AppendError> {
        let rules = plan.version.rules();
        let room_id = (!rules.room_id_is_create_hash).then(|| {
            let opaque = random_string(&*self.0.random, 18);
            format!("!{opaque}:{}", self.0.server_name)
        });
        let builder = EventBuilder {
            room_id,
            sender: plan.request.creator.to_string(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: plan.create_content(),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: created_at,
        };
        Ok(builder.sign(plan.version, &self.0.signer)?)
    }
}

/// A room that is about to be made.
struct Plan {
    request: CreateRoom,
    version: RoomVersion,
    preset: Preset,
    alias: Option<OwnedRoomAliasId>,
}

impl Plan {
    fn of(mut request: CreateRoom, version: RoomVersion, alias: Option<OwnedRoomAliasId>) -> Self {
        let mut invited = HashSet::new();
        request
            .invite
            .retain(|invitee| invited.insert(invitee.user_id.clone()));
        let preset = request.preset.unwrap_or(match request.visibility {
            Visibility::Public => Preset::PublicChat,
            Visibility::Private => Preset::PrivateChat,
        });
        Self {
            request,
            version,
            preset,
            alias,
        }
    }

    fn create_content(&self) -> JsonObject {
        let rules = self.version.rules();
        let mut content = self.request.creation_content.clone();
        content.insert("room_version".to_owned(), self.version.as_str().into());
        if rules.creator_is_sender {
            content.remove("creator");
        } else {
            content.insert("creator".to_owned(), self.request.creator.as_str().into());
        }
        if rules.privileged_creators && self.preset == Preset::TrustedPrivateChat {
            self.add_creators(&mut content);
        }
        content
    }

    /// Makes everybody who is invited a creator. A list that is none is left for the rules to refuse.
    fn add_creators(&self, content: &mut JsonObject) {
        if self.request.invite.is_empty() {
            return;
        }
        let creators = content
            .entry("additional_creators")
            .or_insert_with(|| json!([]));
        if let Value::Array(creators) = creators {
            for invitee in &self.request.invite {
                let user = Value::from(invitee.user_id.as_str());
                if !creators.contains(&user) {
                    creators.push(user);
                }
            }
        }
    }

    fn power_levels(&self) -> JsonObject {
        let privileged = self.version.rules().privileged_creators;
        let mut users = JsonObject::new();
        if !privileged {
            users.insert(self.request.creator.to_string(), CREATOR_LEVEL.into());
            if self.preset == Preset::TrustedPrivateChat {
                for invitee in &self.request.invite {
                    users.insert(invitee.user_id.to_string(), CREATOR_LEVEL.into());
                }
            }
        }
        let tombstone = if privileged { 150 } else { CREATOR_LEVEL };
        let invite = if self.preset == Preset::PublicChat {
            50
        } else {
            0
        };
        let mut content = JsonObject::new();
        for (key, value) in [
            ("users", Value::Object(users)),
            ("users_default", 0.into()),
            ("events_default", 0.into()),
            ("state_default", 50.into()),
            ("ban", 50.into()),
            ("kick", 50.into()),
            ("redact", 50.into()),
            ("invite", invite.into()),
            (
                "events",
                json!({
                    "m.room.name": 50,
                    "m.room.avatar": 50,
                    "m.room.canonical_alias": 50,
                    "m.room.power_levels": 100,
                    "m.room.history_visibility": 100,
                    "m.room.encryption": 100,
                    "m.room.server_acl": 100,
                    "m.room.tombstone": tombstone,
                }),
            ),
        ] {
            content.insert(key.to_owned(), value);
        }
        content
    }

    /// The content that `initial_state` gives for a state event with an empty state key.
    fn initial(&self, event_type: &str) -> Option<&JsonObject> {
        let mut initial = self.request.initial_state.iter().rev();
        let found =
            initial.find(|draft| draft.event_type == event_type && draft.state_key.is_empty())?;
        Some(&found.content)
    }

    /// Appends all events after the first, in the order of the specification.
    async fn append(&self, guard: &mut RoomGuard) -> Result<(), AppendError> {
        let creator = &self.request.creator;
        let joined = content(Membership::Join, Some(&self.request.profile), None);
        guard
            .append(Draft::state(creator, MEMBER, creator.as_str(), joined))
            .await?;
        for (event_type, content) in self.settings() {
            guard
                .append(Draft::state(creator, event_type, "", content))
                .await?;
        }
        for draft in self.later_initial_state() {
            let event = Draft::state(
                creator,
                &draft.event_type,
                &draft.state_key,
                draft.content.clone(),
            );
            guard.append(event).await?;
        }
        if let Some(name) = &self.request.name {
            let content = object(json!({ "name": name }));
            guard
                .append(Draft::state(creator, "m.room.name", "", content))
                .await?;
        }
        if let Some(topic) = &self.request.topic {
            let content = topic_content(topic);
            guard
                .append(Draft::state(creator, "m.room.topic", "", content))
                .await?;
        }
        let rooms = guard.rooms.clone();
        let invited = self.request.invite.iter();
        for invitee in invited.filter(|invitee| rooms.is_local(&invitee.user_id)) {
            let mut content = content(Membership::Invite, Some(&invitee.profile), None);
            if self.request.is_direct {
                content.insert("is_direct".to_owned(), true.into());
            }
            let key = invitee.user_id.as_str();
            guard
                .append(Draft::state(creator, MEMBER, key, content))
                .await?;
        }
        Ok(())
    }

    /// Power levels, canonical alias and the preset's events. What `initial_state` sets in the place of the preset's is
    /// not sent twice; power levels that it sets take the place of the default ones, since those might forbid them.
    fn settings(&self) -> Vec<(&'static str, JsonObject)> {
        let mut levels = match self.initial("m.room.power_levels") {
            Some(content) => content.clone(),
            None => self.power_levels(),
        };
        levels.extend(self.request.power_level_content_override.clone());
        let mut settings = vec![("m.room.power_levels", levels)];
        if let Some(alias) = &self.alias {
            let content = object(json!({ "alias": alias }));
            settings.push((CANONICAL_ALIAS, content));
        }
        // A public room forbids guests, which is what holds where nothing is said: other servers say nothing either.
        let (join_rule, guests) = match self.preset {
            Preset::PublicChat => ("public", None),
            Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", Some("can_join")),
        };
        let guests =
            guests.map(|access| ("m.room.guest_access", json!({ "guest_access": access })));
        let preset = [
            ("m.room.join_rules", json!({ "join_rule": join_rule })),
            (
                "m.room.history_visibility",
                json!({ "history_visibility": "shared" }),
            ),
        ];
        for (event_type, content) in preset.into_iter().chain(guests) {
            if self.initial(event_type).is_none() {
                settings.push((event_type, object(content)));
            }
        }
        settings
    }

    /// The events of `initial_state` that nothing else of the request replaces.
    fn later_initial_state(&self) -> impl Iterator<Item = &StateDraft> {
        self.request.initial_state.iter().filter(|draft| {
            let replaced = match draft.event_type.as_str() {
                "m.room.power_levels" => true,
                "m.room.name" => self.request.name.is_some(),
                "m.room.topic" => self.request.topic.is_some(),
                _ => false,
            };
            !(replaced && draft.state_key.is_empty())
        })
    }
}

/// The content of `m.room.topic` for a plain text, with its rich form (`m.topic`, since version 1.15 of the
/// specification).
fn topic_content(topic: &str) -> JsonObject {
    object(json!({
        "topic": topic,
        "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] },
    }))
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}
