//! Invitations of people by e-mail address and the like: rule 5.4.1.

use serde_json::Value;

use super::{AuthError, AuthState, Membership, check::Room};
use crate::{Pdu, hash::BASE64, sign};

/// Checks an invitation whose content has this `third_party_invite`.
pub(super) fn check<S: AuthState>(
    event: &Pdu,
    target: &str,
    invite: &Value,
    room: &Room<'_, S>,
) -> Result<(), AuthError> {
    // 5.4.1.1.
    if room.membership(target) == Membership::Ban {
        return Err(AuthError::Banned);
    }
    // 5.4.1.2. and 5.4.1.3.
    let signed = invite.get("signed").and_then(Value::as_object);
    let signed = signed.ok_or(AuthError::MalformedThirdPartyInvite)?;
    let string = |key: &str| signed.get(key).and_then(Value::as_str);
    let (Some(mxid), Some(token)) = (string("mxid"), string("token")) else {
        return Err(AuthError::MalformedThirdPartyInvite);
    };
    // 5.4.1.4.
    if mxid != target {
        return Err(AuthError::MalformedThirdPartyInvite);
    }
    // 5.4.1.5.
    let known = room
        .state
        .get("m.room.third_party_invite", token)
        .ok_or(AuthError::UnknownThirdPartyInvite)?;
    // 5.4.1.6.
    if event.sender() != known.sender() {
        return Err(AuthError::ThirdPartyInviteOfOtherUser);
    }
    // 5.4.1.7. and 5.4.1.8.
    let text = sign::signed_json_text(signed).map_err(|_| AuthError::MalformedThirdPartyInvite)?;
    let signatures = signed.get("signatures").and_then(Value::as_object);
    let signatures: Vec<&str> = signatures
        .into_iter()
        .flat_map(|servers| servers.values())
        .filter_map(Value::as_object)
        .flatten()
        .filter(|(id, _)| id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| signature.as_str())
        .collect();
    let verified = public_keys(known).any(|key| {
        signatures
            .iter()
            .any(|signature| sign::verify_one(&key, text.as_bytes(), signature))
    });
    if verified {
        Ok(())
    } else {
        Err(AuthError::ThirdPartyInviteUnsigned)
    }
}

/// The keys in a `m.room.third_party_invite` event: `public_key`, and those in `public_keys`.
fn public_keys(event: &Pdu) -> impl Iterator<Item = Vec<u8>> {
    use base64::Engine as _;

    let single = event.content().get("public_key");
    let listed = event.content().get("public_keys").and_then(Value::as_array);
    let listed = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("public_key"));
    single
        .into_iter()
        .chain(listed)
        .filter_map(Value::as_str)
        .filter_map(|key| {
            // Identity servers have published keys in either alphabet.
            let standard = BASE64.decode(key);
            standard
                .or_else(|_| crate::hash::BASE64_URL.decode(key))
                .ok()
        })
}
