//! `GET /_matrix/client/v3/capabilities`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities>

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use myelin_rules::RoomVersion;
use ruma::{
    RoomVersionId,
    api::client::discovery::get_capabilities::{
        v3::{
            self, Capabilities, ChangePasswordCapability, GetLoginTokenCapability,
            ProfileFieldsCapability, RoomVersionStability, RoomVersionsCapability,
            ThirdPartyIdChangesCapability, Request as Operation, Response,
        },
    },
};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with what works here.
#[expect(deprecated, reason = "clients older than the profile_fields capability look for the two before it")]
pub(crate) async fn get(
    State(about): State<Arc<About>>,
    _: Request<Operation>,
) -> Result<Reply<Response>> {
    let version = |version: RoomVersion| {
        RoomVersionId::try_from(version.as_str()).map_err(Refusal::internal)
    };
    let available = RoomVersion::ALL
        .iter()
        .map(|known| Ok((version(*known)?, RoomVersionStability::Stable)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let mut capabilities = Capabilities::new();
    capabilities.room_versions =
        RoomVersionsCapability::new(version(about.default_room_version)?, available);
    capabilities.change_password = ChangePasswordCapability::new(true);
    capabilities.set_displayname = v3::SetDisplayNameCapability::new(true);
    capabilities.set_avatar_url = v3::SetAvatarUrlCapability::new(true);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    capabilities.get_login_token = GetLoginTokenCapability::new(false);
    Ok(Reply(Response::new(capabilities)))
}
