//! The checks that an event passes by itself: its format, its signatures, its content hash.

use std::{collections::BTreeMap, num::NonZero, sync::Arc};

use myelin_rules::{
    ParseError, Pdu, RoomVersion, Signer,
    sign::{self, POLICY_KEY_ID, Verified, VerifyError, VerifyKeys},
};
use myelin_types::Millis;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Fetch, WantedKey};
use crate::{Failure, RoomHandle, Rooms};

/// Most bytes of an event as it comes over the wire: with `unsigned` and white space, which do not count in the end.
const MOST_BYTES: usize = 256 * 1024;

/// Most signatures of one server that are looked at.
const MOST_SIGNATURES: usize = 8;

/// Why an event does not pass the checks that it passes by itself: it is dropped.
#[derive(Clone, Debug, Error)]
pub(super) enum CheckError {
    /// It is no event of its room's version.
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// The key of a server whose signature it needs cannot be had. It may be another time.
    #[error("the signature of {0} cannot be verified, because its key is not known")]
    KeyNotKnown(String),
    /// Its signatures do not verify.
    #[error("the signatures do not verify: {0}")]
    BadSignature(String),
}

/// Fewest events that are worth a thread of their own.
const LEAST_A_THREAD: usize = 32;

/// Reads an event of a room.
pub(super) fn parse(handle: &RoomHandle, json: &RawValue) -> Result<Pdu, CheckError> {
    parse_in(handle.version, &handle.room.room_id, json)
}

/// Reads an event of the room with this version and id.
pub(super) fn parse_in(
    version: RoomVersion,
    room_id: &str,
    json: &RawValue,
) -> Result<Pdu, CheckError> {
    in_room(parse_alone(version, json)?, room_id)
}

/// Reads an event of a room's past.
pub(super) fn parse_history(handle: &RoomHandle, json: &RawValue) -> Result<Pdu, CheckError> {
    let pdu = parse_with(handle.version, json, Pdu::parse_history)?;
    in_room(pdu, handle.room.room_id.as_str())
}

/// Reads an event of whatever room.
pub(super) fn parse_alone(version: RoomVersion, json: &RawValue) -> Result<Pdu, CheckError> {
    parse_with(version, json, Pdu::parse)
}

fn in_room(pdu: Pdu, room_id: &str) -> Result<Pdu, CheckError> {
    if pdu.room_id() != room_id {
        return Err(CheckError::Malformed("it is of another room".to_owned()));
    }
    Ok(pdu)
}

fn parse_with(
    version: RoomVersion,
    json: &RawValue,
    parse: impl FnOnce(RoomVersion, &[u8]) -> Result<Pdu, ParseError>,
) -> Result<Pdu, CheckError> {
    if json.get().len() > MOST_BYTES {
        return Err(CheckError::Malformed("it is too large".to_owned()));
    }
    parse(version, json.get().as_bytes()).map_err(|error| CheckError::Malformed(error.to_string()))
}

/// Does something that takes the processor to each of many items, on as many threads as there are processors. The
/// results are in the order of the items.
pub(super) async fn on_all_cores<T, R>(
    mut items: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync + 'static,
) -> Result<Vec<R>, Failure>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(threads).max(LEAST_A_THREAD);
    let work = Arc::new(work);
    let mut running = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(share.min(items.len()));
        let (share, work) = (std::mem::replace(&mut items, rest), Arc::clone(&work));
        let run = move || share.into_iter().map(&*work).collect::<Vec<R>>();
        running.push(tokio::task::spawn_blocking(run));
    }
    let mut results = Vec::new();
    for task in running {
        results.extend(task.await.map_err(|_| Failure::CutShort)?);
    }
    Ok(results)
}

impl Rooms {
    /// Verifies events, in their order. One whose content hash is wrong comes back redacted.
    pub(super) async fn verify(
        &self,
        fetch: &dyn Fetch,
        pdus: Vec<Pdu>,
    ) -> Result<Vec<Result<Pdu, CheckError>>, Failure> {
        if pdus.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = on_all_cores(pdus.clone(), |pdu| wanted_keys(&pdu)).await?;
        let mut wanted: Vec<WantedKey> = wanted.into_iter().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|key| key.server != self.0.server_name);
        let mut keys = if wanted.is_empty() {
            VerifyKeys::new()
        } else {
            fetch.keys(&wanted).await
        };
        add_own(&mut keys, &self.0.signer);
        on_all_cores(pdus, move |pdu| match sign::verify(&pdu, &keys) {
            Ok(Verified::Whole) => Ok(pdu),
            Ok(Verified::HashMismatch) => Ok(pdu.redacted()),
            Err(VerifyError::Unsigned(server)) if lacks_keys(&pdu, &server, &keys) => {
                Err(CheckError::KeyNotKnown(server))
            }
            Err(error) => Err(CheckError::BadSignature(error.to_string())),
        })
        .await
    }
}

/// Whether a server has signed an event with a key that could not be had.
fn lacks_keys(pdu: &Pdu, server: &str, keys: &VerifyKeys) -> bool {
    let known = keys.get(server);
    wanted_keys(pdu).iter().any(|wanted| {
        wanted.server == server && !known.is_some_and(|known| known.contains_key(&wanted.key_id))
    })
}

/// Our own keys are known without asking, and nobody else is to be believed about them.
pub(crate) fn add_own(keys: &mut VerifyKeys, signer: &Signer) {
    keys.insert(signer.server_name().to_owned(), signer.verify_keys());
}

/// The keys that an event's required signatures name.
pub(crate) fn wanted_keys(pdu: &Pdu) -> Vec<WantedKey> {
    keys_named(pdu, &sign::required_signers(pdu))
}

/// The keys that the signatures of one server name.
pub(super) fn keys_of(pdu: &Pdu, server: &ServerName) -> Vec<WantedKey> {
    keys_named(pdu, &[server.to_string()])
}

fn keys_named(pdu: &Pdu, servers: &[String]) -> Vec<WantedKey> {
    #[derive(Deserialize)]
    struct Signed {
        signatures: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    }

    let Ok(signed) = serde_json::from_str::<Signed>(pdu.json()) else {
        return Vec::new();
    };
    // In versions where validity is not enforced, any time will do, and nobody need be asked again for a later one.
    let enforced = pdu.version().rules().enforce_key_validity;
    let valid_at = if enforced {
        pdu.origin_server_ts()
    } else {
        Millis(0)
    };
    let mut wanted = Vec::new();
    for server in servers {
        let Ok(name) = OwnedServerName::try_from(server.as_str()) else {
            continue;
        };
        let ids = signed.signatures.get(server).into_iter().flatten();
        // The key of a policy server stands in the room's state, and nobody publishes it.
        let ids = ids.filter(|(id, _)| id.starts_with("ed25519:") && *id != POLICY_KEY_ID);
        wanted.extend(ids.take(MOST_SIGNATURES).map(|(key_id, _)| WantedKey {
            server: name.clone(),
            key_id: key_id.clone(),
            valid_at,
        }));
    }
    wanted
}
