//! The hashes of events. Spec: server-server API, "Calculating the content hash" and "the reference hash".

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ring::digest::{SHA256, digest};

use crate::{
    ParseError, RoomVersion,
    members::{Members, ObjectWriter},
    redact,
    version::EventIdFormat,
};

/// Unpadded base64 that also reads padding and stray trailing bits, as the spec asks of readers.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// The same with the URL-safe alphabet.
pub(crate) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// SHA-256 of `text`.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// The content hash of an event given as canonical JSON: SHA-256 over everything but `unsigned`, `signatures`,
/// `hashes`.
pub fn content_hash(event: &str) -> Result<[u8; 32], ParseError> {
    Ok(sha256(&without(
        event,
        &["unsigned", "signatures", "hashes"],
    )?))
}

/// The reference hash of an event given as canonical JSON: SHA-256 over its redacted form without `signatures` and
/// `unsigned`.
pub fn reference_hash(version: RoomVersion, event: &str) -> Result<[u8; 32], ParseError> {
    Ok(sha256(&signed_text(version, event)?))
}

/// The text that an event's signatures are made over, and its reference hash: they leave out the same fields.
pub(crate) fn signed_text(version: RoomVersion, event: &str) -> Result<String, ParseError> {
    redact::redact_without(version, event, "signatures")
}

/// The event ID that a reference hash makes; None in versions that choose IDs freely.
pub(crate) fn event_id(version: RoomVersion, reference_hash: &[u8; 32]) -> Option<String> {
    let mut id = String::with_capacity(44);
    id.push('$');
    match version.rules().event_id {
        EventIdFormat::Opaque => return None,
        EventIdFormat::Base64 => BASE64.encode_string(reference_hash, &mut id),
        EventIdFormat::UrlSafeBase64 => BASE64_URL.encode_string(reference_hash, &mut id),
    }
    Some(id)
}

/// An object's text without some of its members.
pub(crate) fn without(object: &str, keys: &[&str]) -> Result<String, ParseError> {
    let members = Members::of(object).ok_or(ParseError::Malformed("event"))?;
    let mut rest = ObjectWriter::with_capacity(object.len());
    for (key, value) in members.iter().filter(|(key, _)| !keys.contains(key)) {
        rest.raw(key, value);
    }
    Ok(rest.finish())
}
