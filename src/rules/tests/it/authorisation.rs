//! A case for every authorisation rule, in every room version that has it.

use base64::Engine as _;
use myelin_rules::{
    AuthError, Pdu, PowerLevel, PowerLevels, RoomVersion, SigningKey,
    auth::{self, AuthEvent, AuthState, LevelsField},
};
use myelin_types::SeededRandom;
use serde_json::{Value, json};

use crate::support::{CREATOR, MOD, OTHER, Room, STRANGER, USER, create_content, object};

fn from(oldest: RoomVersion) -> impl Iterator<Item = RoomVersion> {
    RoomVersion::ALL
        .into_iter()
        .filter(move |version| *version >= oldest)
}

fn check_create(version: RoomVersion, change: impl FnOnce(&mut Value)) -> Result<(), AuthError> {
    let mut content = create_content(version);
    change(&mut content);
    Room::empty(version).check(CREATOR, "m.room.create", Some(""), content)
}

#[test]
fn create_1() {
    for version in RoomVersion::ALL {
        assert_eq!(check_create(version, |_| {}), Ok(()));
        // 1.1.
        let second = Room::created(version).check(
            CREATOR,
            "m.room.create",
            Some(""),
            create_content(version),
        );
        assert_eq!(second, Err(AuthError::CreateHasPrevEvents));
        // 1.2. before v12
        let mut room = Room::empty(version);
        let foreign = room.event(STRANGER, "m.room.create", Some(""), create_content(version));
        let expected = if version < RoomVersion::V12 {
            Err(AuthError::CreateOnOtherServer)
        } else {
            Ok(())
        };
        assert_eq!(auth::check(&foreign, &room.state), expected, "{version}");
        // 1.3.
        for unknown in [json!("99"), json!(1), json!(null)] {
            let created =
                check_create(version, |content| content["room_version"] = unknown.clone());
            assert_eq!(created, Err(AuthError::UnknownRoomVersion), "{unknown}");
        }
        let unnamed = check_create(version, |content| {
            object_mut(content).remove("room_version");
        });
        assert_eq!(unnamed, Ok(()));
        // v1-10, 1.4.
        let anonymous = check_create(version, |content| {
            object_mut(content).remove("creator");
        });
        let expected = if version < RoomVersion::V11 {
            Err(AuthError::NoCreator)
        } else {
            Ok(())
        };
        assert_eq!(anonymous, expected);
        // v12, 1.4.
        for (creators, valid) in [
            (json!([]), true),
            (json!([STRANGER, "@:b.org"]), true),
            (json!([STRANGER, "b.org"]), false),
            (json!([1]), false),
            (json!(STRANGER), false),
            (json!(null), false),
        ] {
            let created = check_create(version, |content| {
                content["additional_creators"] = creators.clone();
            });
            let expected = if valid || version < RoomVersion::V12 {
                Ok(())
            } else {
                Err(AuthError::BadAdditionalCreators)
            };
            assert_eq!(created, expected, "{version} {creators}");
        }
    }
}

#[test]
fn room_of_the_create_event_2() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let foreign = room.build(USER, "m.x", None, json!({}), |event| {
            event.room_id = Some("!other:a.org".to_owned());
        });
        assert_eq!(
            auth::check(&foreign, &room.state),
            Err(AuthError::NoCreateEvent)
        );
        let event = room.event(USER, "m.x", None, json!({}));
        assert_eq!(
            auth::check(&event, &auth::AuthEvents::default()),
            Err(AuthError::NoCreateEvent)
        );
    }
}

/// The event's auth events in the room's state.
fn auth_events<'a>(room: &'a Room, event: &Pdu) -> Vec<AuthEvent<'a>> {
    let ids: Vec<&str> = event.auth_events().collect();
    room.state
        .iter()
        .filter(|auth| ids.contains(&auth.event_id()))
        .map(|event| AuthEvent {
            event,
            rejected: false,
        })
        .collect()
}

#[test]
fn auth_events_3() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let older_levels = room
            .state
            .get("m.room.power_levels", "")
            .cloned()
            .expect("levels");
        room.add(
            CREATOR,
            "m.room.power_levels",
            Some(""),
            json!({ "users": levels_of(version) }),
        );
        let event = room.event(USER, "m.x", None, json!({}));
        let stranger_event = room.event(OTHER, "m.x", None, json!({}));
        let right = auth_events(&room, &event);
        assert_eq!(right.len(), if version < RoomVersion::V12 { 3 } else { 2 });
        assert_eq!(auth::check_auth_events(&event, &right), Ok(()));

        // 3.1.
        let mut twice = right.clone();
        twice.push(AuthEvent {
            event: &older_levels,
            rejected: false,
        });
        assert_eq!(
            auth::check_auth_events(&event, &twice),
            Err(AuthError::DuplicateAuthEvent)
        );
        // 3.2.
        let foreign = auth::check_auth_events(&stranger_event, &right);
        assert_eq!(foreign, Err(AuthError::UnexpectedAuthEvent));
        let create = room.state.create().expect("a room has a create event");
        let mut with_create = right.clone();
        with_create.retain(|auth| auth.event.event_type() != "m.room.create");
        with_create.push(AuthEvent {
            event: create,
            rejected: false,
        });
        let expected = if version < RoomVersion::V12 {
            Ok(())
        } else {
            Err(AuthError::UnexpectedAuthEvent)
        };
        assert_eq!(auth::check_auth_events(&event, &with_create), expected);
        // 3.3.
        let mut rejected = right.clone();
        rejected[0].rejected = true;
        assert_eq!(
            auth::check_auth_events(&event, &rejected),
            Err(AuthError::RejectedAuthEvent)
        );
        // v1-11, 2.4.
        let mut without_create = right.clone();
        without_create.retain(|auth| auth.event.event_type() != "m.room.create");
        let expected = if version < RoomVersion::V12 {
            Err(AuthError::NoCreateInAuthEvents)
        } else {
            Ok(())
        };
        assert_eq!(auth::check_auth_events(&event, &without_create), expected);
        // 3.5.
        let mut other_room = Room::empty(version);
        let elsewhere = other_room.build(
            USER,
            "m.room.member",
            Some(USER),
            json!({ "membership": "join" }),
            |event| {
                event.room_id = Some("!elsewhere:a.org".to_owned());
            },
        );
        let mut mixed: Vec<_> = right
            .iter()
            .copied()
            .filter(|auth| auth.event.event_type() != "m.room.member")
            .collect();
        mixed.push(AuthEvent {
            event: &elsewhere,
            rejected: false,
        });
        assert_eq!(
            auth::check_auth_events(&event, &mixed),
            Err(AuthError::AuthEventOfOtherRoom)
        );
    }
}

#[test]
fn federation_4() {
    for version in RoomVersion::ALL {
        let mut room = Room::empty(version);
        let mut content = create_content(version);
        content["m.federate"] = json!(false);
        room.add(CREATOR, "m.room.create", Some(""), content);
        room.add(
            CREATOR,
            "m.room.member",
            Some(CREATOR),
            json!({ "membership": "join" }),
        );
        room.join_rule("public");
        assert_eq!(room.check_member(USER, USER, "join"), Ok(()));
        assert_eq!(
            room.check_member(STRANGER, STRANGER, "join"),
            Err(AuthError::NotFederated)
        );
    }
}

#[test]
fn aliases_4_of_v1_to_v5() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let special = version < RoomVersion::V6;
        // Allowed to anyone, and be he not in the room.
        let own = room.check(STRANGER, "m.room.aliases", Some("b.org"), json!({}));
        assert_eq!(
            own,
            if special {
                Ok(())
            } else {
                Err(AuthError::NotJoined)
            }
        );
        let others = room.check(USER, "m.room.aliases", Some("b.org"), json!({}));
        let expected = if special {
            AuthError::AliasesOfOtherServer
        } else {
            AuthError::CannotSend
        };
        assert_eq!(others, Err(expected));
        let keyless = room.check(USER, "m.room.aliases", None, json!({}));
        assert_eq!(
            keyless,
            if special {
                Err(AuthError::AliasesWithoutStateKey)
            } else {
                Ok(())
            }
        );
    }
}

#[test]
fn member_5_1_and_5_8() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let malformed = Err(AuthError::MalformedMember);
        assert_eq!(
            room.check(USER, "m.room.member", None, json!({ "membership": "join" })),
            malformed
        );
        assert_eq!(
            room.check(USER, "m.room.member", Some(USER), json!({})),
            malformed
        );
        for unknown in [json!("joined"), json!(""), json!(1), json!(null)] {
            let checked = room.check(
                USER,
                "m.room.member",
                Some(USER),
                json!({ "membership": unknown }),
            );
            assert_eq!(checked, Err(AuthError::UnknownMembership), "{unknown}");
        }
        let knock = room.check_member(STRANGER, STRANGER, "knock");
        let expected = if version < RoomVersion::V7 {
            AuthError::UnknownMembership
        } else {
            AuthError::KnockForbidden
        };
        assert_eq!(knock, Err(expected));
    }
}

#[test]
fn join_5_3_1_to_5_3_3() {
    for version in RoomVersion::ALL {
        // 5.3.1.
        let mut room = Room::empty(version);
        room.add(CREATOR, "m.room.create", Some(""), create_content(version));
        assert_eq!(room.check_member(CREATOR, CREATOR, "join"), Ok(()));
        assert_eq!(
            room.check_member(USER, USER, "join"),
            Err(AuthError::NotInvited)
        );
        room.add(
            CREATOR,
            "m.room.member",
            Some(CREATOR),
            json!({ "membership": "join" }),
        );
        room.force_member(CREATOR, "leave");
        assert_eq!(
            room.check_member(CREATOR, CREATOR, "join"),
            Err(AuthError::NotInvited)
        );
        // 5.3.2.
        let mut room = Room::peopled(version);
        assert_eq!(
            room.check_member(CREATOR, STRANGER, "join"),
            Err(AuthError::NotOwnMembership)
        );
        // 5.3.3.
        room.force_member(STRANGER, "ban");
        assert_eq!(
            room.check_member(STRANGER, STRANGER, "join"),
            Err(AuthError::Banned)
        );
    }
}

#[test]
fn the_creator_named_before_v11_is_the_contents() {
    for version in RoomVersion::ALL
        .into_iter()
        .filter(|version| *version < RoomVersion::V11)
    {
        let mut room = Room::empty(version);
        room.add(
            CREATOR,
            "m.room.create",
            Some(""),
            json!({ "creator": USER }),
        );
        assert_eq!(room.check_member(USER, USER, "join"), Ok(()));
        assert_eq!(
            room.check_member(CREATOR, CREATOR, "join"),
            Err(AuthError::NotInvited)
        );
    }
}

#[test]
fn join_rules_5_3_4_to_5_3_7() {
    for version in RoomVersion::ALL {
        for (rule, since) in [
            ("invite", RoomVersion::V1),
            ("knock", RoomVersion::V7),
            ("restricted", RoomVersion::V8),
            ("knock_restricted", RoomVersion::V10),
        ] {
            let mut room = Room::peopled(version);
            room.join_rule(rule);
            for (membership, let_in) in [
                ("leave", false),
                ("knock", false),
                ("invite", true),
                ("join", true),
            ] {
                room.force_member(STRANGER, membership);
                let expected = if version < since {
                    Err(AuthError::JoinForbidden)
                } else if let_in {
                    Ok(())
                } else {
                    Err(AuthError::NotInvited)
                };
                let join = room.check_member(STRANGER, STRANGER, "join");
                assert_eq!(join, expected, "{version} {rule} {membership}");
            }
        }
        for rule in ["private", "unheard-of", ""] {
            let mut room = Room::peopled(version);
            room.join_rule(rule);
            room.force_member(STRANGER, "invite");
            assert_eq!(
                room.check_member(STRANGER, STRANGER, "join"),
                Err(AuthError::JoinForbidden)
            );
        }
        let mut room = Room::peopled(version);
        assert_eq!(room.check_member(STRANGER, STRANGER, "join"), Ok(()));
    }
}

#[test]
fn restricted_joins_5_3_5() {
    for version in from(RoomVersion::V8) {
        let mut room = Room::peopled(version);
        room.join_rule("restricted");
        let mut join = |by: Value| {
            let content = json!({ "membership": "join", "join_authorised_via_users_server": by });
            room.check(STRANGER, "m.room.member", Some(STRANGER), content)
        };
        assert_eq!(join(json!(MOD)), Ok(()));
        assert_eq!(join(json!(CREATOR)), Ok(()));
        assert_eq!(join(json!(USER)), Err(AuthError::JoinNotAuthorised));
        assert_eq!(
            join(json!("@absent:a.org")),
            Err(AuthError::JoinNotAuthorised)
        );
        assert_eq!(join(json!(1)), Err(AuthError::NotInvited));
        room.force_member(MOD, "leave");
        let content = json!({ "membership": "join", "join_authorised_via_users_server": MOD });
        let joined = room.check(STRANGER, "m.room.member", Some(STRANGER), content);
        assert_eq!(joined, Err(AuthError::JoinNotAuthorised));
    }
}

#[test]
fn invites_5_4() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        assert_eq!(
            room.check_member(STRANGER, "@x:b.org", "invite"),
            Err(AuthError::NotJoined)
        );
        assert_eq!(
            room.check_member(MOD, USER, "invite"),
            Err(AuthError::AlreadyJoined)
        );
        assert_eq!(room.check_member(MOD, STRANGER, "invite"), Ok(()));
        assert_eq!(
            room.check_member(USER, STRANGER, "invite"),
            Err(AuthError::CannotInvite)
        );
        room.force_member(STRANGER, "invite");
        assert_eq!(room.check_member(MOD, STRANGER, "invite"), Ok(()));
        room.force_member(STRANGER, "ban");
        assert_eq!(
            room.check_member(MOD, STRANGER, "invite"),
            Err(AuthError::Banned)
        );
    }
}

#[test]
fn third_party_invites_5_4_1() {
    let key = SigningKey::generate(&SeededRandom::new(3));
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD;
    for version in RoomVersion::ALL {
        for listed in [false, true] {
            let mut room = Room::peopled(version);
            let unrelated = base64.encode([9; 32]);
            let keys = if listed {
                json!({ "public_key": unrelated, "public_keys": [{ "public_key": key.public_key() }] })
            } else {
                json!({ "public_key": key.public_key() })
            };
            room.add(MOD, "m.room.third_party_invite", Some("token"), keys);

            let signed = |mxid: &str, token: &str| {
                let mut signed = object(json!({ "mxid": mxid, "token": token }));
                let signer = myelin_rules::Signer::new(
                    "id.org",
                    SigningKey::from_file_format(&key.to_file_format()).expect("just written"),
                );
                signer.sign_json(&mut signed).expect("canonical numbers");
                json!({ "membership": "invite", "third_party_invite": { "display_name": "d", "signed": signed } })
            };
            let mut invite = |sender: &str, target: &str, content: Value| {
                room.check(sender, "m.room.member", Some(target), content)
            };
            let malformed = Err(AuthError::MalformedThirdPartyInvite);
            assert_eq!(invite(MOD, STRANGER, signed(STRANGER, "token")), Ok(()));
            // 5.4.1.2.
            let unsigned = json!({ "membership": "invite", "third_party_invite": {} });
            assert_eq!(invite(MOD, STRANGER, unsigned), malformed);
            let nothing = json!({ "membership": "invite", "third_party_invite": null });
            assert_eq!(invite(MOD, STRANGER, nothing), malformed);
            // 5.4.1.3.
            let empty = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
            assert_eq!(invite(MOD, STRANGER, empty), malformed);
            // 5.4.1.4.
            assert_eq!(invite(MOD, STRANGER, signed(OTHER, "token")), malformed);
            // 5.4.1.5.
            let unknown = Err(AuthError::UnknownThirdPartyInvite);
            assert_eq!(invite(MOD, STRANGER, signed(STRANGER, "other")), unknown);
            // 5.4.1.6.
            let of_other = Err(AuthError::ThirdPartyInviteOfOtherUser);
            assert_eq!(
                invite(CREATOR, STRANGER, signed(STRANGER, "token")),
                of_other
            );
            // 5.4.1.8.
            let mut forged = signed(STRANGER, "token");
            forged["third_party_invite"]["signed"]["more"] = json!(1);
            assert_eq!(
                invite(MOD, STRANGER, forged),
                Err(AuthError::ThirdPartyInviteUnsigned)
            );
            // 5.4.1.1.
            room.force_member(STRANGER, "ban");
            let banned = room.check(
                MOD,
                "m.room.member",
                Some(STRANGER),
                signed(STRANGER, "token"),
            );
            assert_eq!(banned, Err(AuthError::Banned));
        }
    }
}

#[test]
fn leaving_5_5() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        // 5.5.1.
        assert_eq!(room.check_member(USER, USER, "leave"), Ok(()));
        assert_eq!(
            room.check_member(STRANGER, STRANGER, "leave"),
            Err(AuthError::CannotLeave)
        );
        for (membership, expected) in [
            ("invite", Ok(())),
            ("ban", Err(AuthError::Banned)),
            (
                "knock",
                if version < RoomVersion::V7 {
                    Err(AuthError::CannotLeave)
                } else {
                    Ok(())
                },
            ),
        ] {
            room.force_member(STRANGER, membership);
            assert_eq!(
                room.check_member(STRANGER, STRANGER, "leave"),
                expected,
                "{membership}"
            );
        }
        room.force_member(STRANGER, "leave");
        // 5.5.2.
        assert_eq!(
            room.check_member(STRANGER, USER, "leave"),
            Err(AuthError::NotJoined)
        );
        // 5.5.4. and 5.5.5.
        assert_eq!(room.check_member(MOD, USER, "leave"), Ok(()));
        assert_eq!(
            room.check_member(USER, OTHER, "leave"),
            Err(AuthError::CannotKick)
        );
        assert_eq!(
            room.check_member(MOD, CREATOR, "leave"),
            Err(AuthError::CannotKick)
        );
        // 5.5.3.
        room.force_member(STRANGER, "ban");
        assert_eq!(room.check_member(MOD, STRANGER, "leave"), Ok(()));
        room.add(
            CREATOR,
            "m.room.power_levels",
            Some(""),
            json!({ "users": levels_of(version), "ban": 60, "kick": 40 }),
        );
        assert_eq!(
            room.check_member(MOD, STRANGER, "leave"),
            Err(AuthError::CannotUnban)
        );
        assert_eq!(room.check_member(MOD, USER, "leave"), Ok(()));
    }
}

#[test]
fn banning_5_6() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        assert_eq!(
            room.check_member(STRANGER, USER, "ban"),
            Err(AuthError::NotJoined)
        );
        assert_eq!(room.check_member(MOD, USER, "ban"), Ok(()));
        assert_eq!(room.check_member(MOD, STRANGER, "ban"), Ok(()));
        assert_eq!(
            room.check_member(USER, OTHER, "ban"),
            Err(AuthError::CannotBan)
        );
        assert_eq!(
            room.check_member(MOD, MOD, "ban"),
            Err(AuthError::CannotBan)
        );
        assert_eq!(
            room.check_member(MOD, CREATOR, "ban"),
            Err(AuthError::CannotBan)
        );
        assert_eq!(room.check_member(CREATOR, MOD, "ban"), Ok(()));
    }
}

#[test]
fn knocking_5_7() {
    for version in from(RoomVersion::V7) {
        let mut room = Room::peopled(version);
        for rule in ["public", "invite", "restricted"] {
            room.join_rule(rule);
            assert_eq!(
                room.check_member(STRANGER, STRANGER, "knock"),
                Err(AuthError::KnockForbidden)
            );
        }
        room.join_rule("knock_restricted");
        let knock = room.check_member(STRANGER, STRANGER, "knock");
        assert_eq!(knock.is_ok(), version >= RoomVersion::V10);
        room.join_rule("knock");
        assert_eq!(room.check_member(STRANGER, STRANGER, "knock"), Ok(()));
        assert_eq!(
            room.check_member(USER, STRANGER, "knock"),
            Err(AuthError::NotOwnMembership)
        );
        for (membership, expected) in [
            ("knock", Ok(())),
            ("invite", Err(AuthError::CannotKnock)),
            ("join", Err(AuthError::CannotKnock)),
            ("ban", Err(AuthError::CannotKnock)),
        ] {
            room.force_member(STRANGER, membership);
            assert_eq!(
                room.check_member(STRANGER, STRANGER, "knock"),
                expected,
                "{membership}"
            );
        }
    }
}

#[test]
fn sending_6_to_9() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        // 6.
        assert_eq!(
            room.check(STRANGER, "m.room.message", None, json!({})),
            Err(AuthError::NotJoined)
        );
        // 7.
        let third_party = "m.room.third_party_invite";
        assert_eq!(room.check(MOD, third_party, Some("t"), json!({})), Ok(()));
        assert_eq!(
            room.check(USER, third_party, Some("t"), json!({})),
            Err(AuthError::CannotInvite)
        );
        // 8.
        assert_eq!(room.check(USER, "m.room.message", None, json!({})), Ok(()));
        assert_eq!(
            room.check(USER, "m.room.name", None, json!({})),
            Err(AuthError::CannotSend)
        );
        assert_eq!(
            room.check(USER, "m.state", Some(""), json!({})),
            Err(AuthError::CannotSend)
        );
        assert_eq!(room.check(MOD, "m.state", Some(""), json!({})), Ok(()));
        assert_eq!(
            room.check(MOD, "only.admin", None, json!({})),
            Err(AuthError::CannotSend)
        );
        assert_eq!(room.check(CREATOR, "only.admin", None, json!({})), Ok(()));
        // 9.
        assert_eq!(room.check(MOD, "m.state", Some(MOD), json!({})), Ok(()));
        let foreign = Err(AuthError::StateKeyOfOtherUser);
        assert_eq!(room.check(MOD, "m.state", Some(USER), json!({})), foreign);
        assert_eq!(
            room.check(CREATOR, "m.state", Some("@"), json!({})),
            foreign
        );
    }
}

#[test]
fn rooms_without_power_levels() {
    for version in RoomVersion::ALL {
        let mut room = Room::created(version);
        room.join_rule("public");
        room.force_member(USER, "join");
        assert_eq!(room.check(CREATOR, "m.state", Some(""), json!({})), Ok(()));
        assert_eq!(
            room.check(USER, "m.state", Some(""), json!({})),
            Err(AuthError::CannotSend)
        );
        assert_eq!(room.check(USER, "m.room.message", None, json!({})), Ok(()));
        // The invite level is 0.
        assert_eq!(room.check_member(USER, STRANGER, "invite"), Ok(()));
        let levels = PowerLevels::of(&room.state).expect("the room was created");
        let creator = if version < RoomVersion::V12 {
            PowerLevel::Level(100)
        } else {
            PowerLevel::Infinite
        };
        assert_eq!(levels.user(CREATOR), creator);
        assert_eq!(levels.user(USER), PowerLevel::Level(0));
        let defaults = [
            levels.kick(),
            levels.ban(),
            levels.redact(),
            levels.notification("room"),
        ];
        assert_eq!(defaults, [PowerLevel::Level(50); 4]);
    }
}

/// The users that the tests' power levels name.
fn levels_of(version: RoomVersion) -> Value {
    if version < RoomVersion::V12 {
        json!({ CREATOR: 100, MOD: 50 })
    } else {
        json!({ MOD: 50 })
    }
}

fn check_levels(
    version: RoomVersion,
    current: Value,
    sender: &str,
    new: Value,
) -> Result<(), AuthError> {
    let mut room = Room::peopled(version);
    let with_users = |mut levels: Value| {
        if levels.get("users").is_none() {
            levels["users"] = levels_of(version);
        }
        levels
    };
    room.add(
        CREATOR,
        "m.room.power_levels",
        Some(""),
        with_users(current),
    );
    room.check(sender, "m.room.power_levels", Some(""), with_users(new))
}

#[test]
fn format_of_power_levels_10_1_to_10_3() {
    use LevelsField::{Ban, Events, Notifications, Users};

    for version in RoomVersion::ALL {
        let check = |new: Value| check_levels(version, json!({}), CREATOR, new);
        let malformed = |field| Err(AuthError::MalformedPowerLevels(field));
        let strings = check(json!({ "ban": "50", "events": { "x": " 7 " } }));
        let expected = if version < RoomVersion::V10 {
            Ok(())
        } else {
            malformed(Ban)
        };
        assert_eq!(strings, expected, "{version}");
        assert_eq!(check(json!({ "ban": "fifty" })), malformed(Ban));
        assert_eq!(check(json!({ "ban": null })), malformed(Ban));
        assert_eq!(check(json!({ "events": [] })), malformed(Events));
        assert_eq!(check(json!({ "events": { "x": {} } })), malformed(Events));
        assert_eq!(check(json!({ "users": [] })), malformed(Users));
        assert_eq!(check(json!({ "users": { "x": 1 } })), malformed(Users));
        assert_eq!(check(json!({ "users": { "@x:": 1 } })), malformed(Users));
        assert_eq!(
            check(json!({ "users": { STRANGER: [] } })),
            malformed(Users)
        );
        let notifications = check(json!({ "notifications": { "room": [] } }));
        let expected = if version < RoomVersion::V6 {
            Ok(())
        } else {
            malformed(Notifications)
        };
        assert_eq!(notifications, expected);
    }
    let float = json!({ "ban": 50.9 });
    assert_eq!(
        check_levels(RoomVersion::V5, json!({}), CREATOR, float),
        Ok(())
    );
}

#[test]
fn creators_in_power_levels_10_4() {
    let mut room = Room::empty(RoomVersion::V12);
    let mut content = create_content(RoomVersion::V12);
    content["additional_creators"] = json!([OTHER]);
    room.add(CREATOR, "m.room.create", Some(""), content);
    room.add(
        CREATOR,
        "m.room.member",
        Some(CREATOR),
        json!({ "membership": "join" }),
    );
    for creator in [CREATOR, OTHER] {
        let levels = json!({ "users": { creator: 100 } });
        let checked = room.check(CREATOR, "m.room.power_levels", Some(""), levels);
        assert_eq!(checked, Err(AuthError::LevelForCreator));
    }
    // Both are above every number.
    room.add(
        CREATOR,
        "m.room.power_levels",
        Some(""),
        json!({ "users": { MOD: 1000 }, "state_default": 1000 }),
    );
    room.join_rule("public");
    for user in [OTHER, MOD] {
        room.add(
            user,
            "m.room.member",
            Some(user),
            json!({ "membership": "join" }),
        );
    }
    assert_eq!(room.check_member(OTHER, MOD, "ban"), Ok(()));
    assert_eq!(
        room.check_member(MOD, OTHER, "ban"),
        Err(AuthError::CannotBan)
    );
    assert_eq!(
        room.check_member(OTHER, CREATOR, "leave"),
        Err(AuthError::CannotKick)
    );
    let raised = json!({ "users": { MOD: 9_000_000_000_i64 }, "state_default": 1000 });
    assert_eq!(
        room.check(OTHER, "m.room.power_levels", Some(""), raised),
        Ok(())
    );
    let levels = PowerLevels::of(&room.state).expect("the room was created");
    assert_eq!(levels.user(OTHER), PowerLevel::Infinite);
    assert!(levels.user(OTHER) > PowerLevel::Level(i64::MAX));
}

#[test]
fn first_power_levels_10_5() {
    for version in RoomVersion::ALL {
        let mut room = Room::created(version);
        let high = json!({ "users": { MOD: 1000 }, "ban": 1000 });
        assert_eq!(
            room.check(CREATOR, "m.room.power_levels", Some(""), high),
            Ok(())
        );
    }
}

#[test]
fn single_levels_10_6() {
    use LevelsField::{
        Ban, Events, EventsDefault, Invite, Kick, Notifications, Redact, StateDefault, Users,
        UsersDefault,
    };

    for version in RoomVersion::ALL {
        for field in [
            UsersDefault,
            EventsDefault,
            StateDefault,
            Ban,
            Redact,
            Kick,
            Invite,
        ] {
            let name = field.as_str();
            // Users must stay able to change the levels at all.
            let levels = |level: Option<i64>| {
                let mut levels = json!({ "events": { "m.room.power_levels": 50 } });
                if let Some(level) = level {
                    levels[name] = json!(level);
                }
                levels
            };
            let check = |current, new| check_levels(version, levels(current), MOD, levels(new));
            let refused = Err(AuthError::CannotChangeLevel(field));
            assert_eq!(check(Some(40), Some(50)), Ok(()), "{name}");
            assert_eq!(check(Some(50), None), Ok(()));
            assert_eq!(check(None, Some(50)), Ok(()));
            assert_eq!(check(Some(60), Some(60)), Ok(()));
            assert_eq!(check(Some(40), Some(51)), refused);
            assert_eq!(check(None, Some(51)), refused);
            assert_eq!(check(Some(51), Some(40)), refused);
            assert_eq!(check(Some(51), None), refused);
        }
        // None of the maps is one of them.
        assert!(
            [Events, Notifications, Users]
                .iter()
                .all(|field| field.as_str() != "ban")
        );
    }
}

#[test]
fn events_and_notifications_10_7_and_10_8() {
    use LevelsField::{Events, Notifications};

    for version in RoomVersion::ALL {
        for field in [Events, Notifications] {
            let levels = |level: Option<i64>| {
                let mut levels = json!({ "events": { "m.room.power_levels": 50 } });
                if let Some(level) = level {
                    levels[field.as_str()]["x"] = json!(level);
                }
                levels
            };
            let check = |current, new| check_levels(version, levels(current), MOD, levels(new));
            let checked = field == Events || version >= RoomVersion::V6;
            let refused = if checked {
                Err(AuthError::CannotChangeLevel(field))
            } else {
                Ok(())
            };
            assert_eq!(check(Some(40), Some(50)), Ok(()));
            assert_eq!(check(Some(60), Some(60)), Ok(()));
            assert_eq!(check(None, Some(50)), Ok(()));
            assert_eq!(check(Some(50), None), Ok(()));
            assert_eq!(check(Some(60), None), refused, "{version}");
            assert_eq!(check(Some(60), Some(50)), refused);
            assert_eq!(check(Some(40), Some(60)), refused);
            assert_eq!(check(None, Some(60)), refused);
        }
    }
}

#[test]
fn users_10_9_and_10_10() {
    for version in RoomVersion::ALL {
        let base = json!({ USER: 50, OTHER: 40 });
        let levels = |change: Value| {
            let mut users = levels_of(version);
            for source in [base.clone(), change] {
                for (user, level) in object(source) {
                    if level.is_null() {
                        object_mut(&mut users).remove(&user);
                    } else {
                        users[user] = level;
                    }
                }
            }
            json!({ "users": users, "events": { "m.room.power_levels": 50 } })
        };
        let check = |change: Value| check_levels(version, levels(json!({})), MOD, levels(change));
        let refused = Err(AuthError::CannotChangeLevel(LevelsField::Users));
        assert_eq!(check(json!({ OTHER: 50 })), Ok(()));
        assert_eq!(check(json!({ OTHER: null })), Ok(()));
        assert_eq!(check(json!({ STRANGER: 50 })), Ok(()));
        // 10.9.
        assert_eq!(check(json!({ USER: 40 })), refused);
        assert_eq!(check(json!({ USER: null })), refused);
        assert_eq!(check(json!({ MOD: 40 })), Ok(()));
        assert_eq!(check(json!({ MOD: null })), Ok(()));
        if version < RoomVersion::V12 {
            assert_eq!(check(json!({ CREATOR: 40 })), refused);
        }
        // 10.10.
        assert_eq!(check(json!({ OTHER: 51 })), refused);
        assert_eq!(check(json!({ STRANGER: 51 })), refused);
        assert_eq!(check(json!({ MOD: 51 })), refused);
    }
}

#[test]
fn redactions_11_of_v1_and_v2_and_their_handling() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let redaction = |room: &mut Room, sender: &str, target: &str| {
            room.build(sender, "m.room.redaction", None, json!({}), |event| {
                event.redacts = Some(target.to_owned());
            })
        };
        if version <= RoomVersion::V2 {
            // 11.1. to 11.3. The IDs' servers count; the test's server makes IDs of a.org.
            for (sender, target, expected) in [
                (MOD, "$x:b.org", Ok(())),
                (USER, "$x:a.org", Ok(())),
                (USER, "$x:b.org", Err(AuthError::CannotRedact)),
            ] {
                let event = redaction(&mut room, sender, target);
                assert_eq!(auth::check(&event, &room.state), expected);
            }
            continue;
        }
        let target = room.event(OTHER, "m.room.message", None, json!({ "body": "b" }));
        let levels = PowerLevels::of(&room.state).expect("the room was created");
        for (sender, expected) in [
            (MOD, true),
            (OTHER, true),
            ("@else:b.org", true),
            (USER, false),
        ] {
            let event = redaction(&mut room, sender, target.event_id());
            assert_eq!(
                auth::may_redact(&event, &target, &levels),
                expected,
                "{version} {sender}"
            );
        }
        let event = redaction(&mut room, USER, target.event_id());
        assert_eq!(auth::check(&event, &room.state), Ok(()));
        let unrelated = redaction(&mut room, MOD, "$unrelated");
        assert!(!auth::may_redact(&unrelated, &target, &levels));
    }
}

#[test]
fn selection_of_auth_events() {
    let select = |version, event_type: &str, state_key: Option<&str>, content: Value| {
        let types = auth::auth_types(version, event_type, USER, state_key, &object(content));
        let mut types: Vec<String> = types
            .iter()
            .map(|(event_type, key)| format!("{}|{key}", event_type.trim_start_matches("m.room.")))
            .collect();
        types.sort();
        types
    };
    let v11 = RoomVersion::V11;
    assert!(select(v11, "m.room.create", Some(""), json!({})).is_empty());
    let usual = ["create|", "member|@user:a.org", "power_levels|"];
    assert_eq!(select(v11, "m.room.message", None, json!({})), usual);
    assert_eq!(
        select(RoomVersion::V12, "m.room.message", None, json!({})),
        usual[1..]
    );
    let member = |version, target: &str, content: Value| {
        select(version, "m.room.member", Some(target), content)
    };
    assert_eq!(member(v11, USER, json!({ "membership": "leave" })), usual);
    assert_eq!(
        member(v11, OTHER, json!({ "membership": "ban" })),
        [
            "create|",
            "member|@other:b.org",
            "member|@user:a.org",
            "power_levels|"
        ]
    );
    for membership in ["join", "knock"] {
        assert_eq!(
            member(v11, USER, json!({ "membership": membership })),
            [
                "create|",
                "join_rules|",
                "member|@user:a.org",
                "power_levels|"
            ]
        );
    }
    let third_party =
        json!({ "membership": "invite", "third_party_invite": { "signed": { "token": "t" } } });
    assert_eq!(
        member(v11, OTHER, third_party),
        [
            "create|",
            "join_rules|",
            "member|@other:b.org",
            "member|@user:a.org",
            "power_levels|",
            "third_party_invite|t"
        ]
    );
    let restricted = json!({ "membership": "join", "join_authorised_via_users_server": MOD });
    let with = [
        "create|",
        "join_rules|",
        "member|@mod:a.org",
        "member|@user:a.org",
        "power_levels|",
    ];
    assert_eq!(member(v11, USER, restricted.clone()), with);
    assert_eq!(
        member(RoomVersion::V7, USER, restricted),
        [
            "create|",
            "join_rules|",
            "member|@user:a.org",
            "power_levels|"
        ]
    );
}

fn object_mut(value: &mut Value) -> &mut myelin_rules::Object {
    value.as_object_mut().expect("an object")
}
