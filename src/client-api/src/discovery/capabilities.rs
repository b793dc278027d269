//! `GET /_matrix/client/v3/capabilities`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities>

use std::sync::Arc;

use axum::{Json, extract::State};
use myelin_rules::RoomVersion;
use ruma::api::auth_scheme::AccessToken;
use serde_json::{Map, Value, json};

use crate::{About, extract::Call};

/// Answers with what works here. Capabilities that have their default are said all the same: clients look for them.
pub(crate) async fn get(State(about): State<Arc<About>>, _: Call<AccessToken>) -> Json<Value> {
    let available: Map<String, Value> = RoomVersion::ALL
        .iter()
        .map(|version| (version.as_str().to_owned(), json!("stable")))
        .collect();
    Json(json!({
        "capabilities": {
            "m.change_password": { "enabled": true },
            "m.room_versions": {
                "default": about.default_room_version.as_str(),
                "available": available,
            },
            "m.set_displayname": { "enabled": true },
            "m.set_avatar_url": { "enabled": true },
            "m.profile_fields": { "enabled": true },
            "m.3pid_changes": { "enabled": false },
            "m.get_login_token": { "enabled": false },
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn capabilities_are_told_to_users() {
        let server = Server::with(|config| {
            config.rooms.default_version = ruma::RoomVersionId::V11;
        })
        .await;
        let alice = server.register("alice").await;
        let capabilities = server.get("/capabilities", &alice).await.ok()["capabilities"].clone();
        assert_eq!(capabilities["m.change_password"]["enabled"], true);
        assert_eq!(capabilities["m.room_versions"]["default"], "11");
        let available = &capabilities["m.room_versions"]["available"];
        for version in 1..=12 {
            assert_eq!(available[version.to_string()], "stable");
        }
        for (name, enabled) in [
            ("m.profile_fields", true),
            ("m.3pid_changes", false),
            ("m.get_login_token", false),
        ] {
            let told = capabilities
                .get(name)
                .map_or(json!(enabled), |told| told["enabled"].clone());
            assert_eq!(told, enabled, "{name}");
        }
        // What is told is so.
        let room = server.room(&alice, &json!({})).await;
        let create = server.state(&room, &alice, "m.room.create").await.ok();
        assert_eq!(create["room_version"], "11");
    }
}
