//! The table of dehydrated devices. MSC3814, "Dehydrated Devices with SSSS".

use myelin_store::{Batch, CodecError, Parser, StoreError, Value, View, Writer};
use myelin_types::UserNum;

use crate::{RawJson, json, table};

table! {
    /// The device of a user that takes keys while he is nowhere logged in. It has rows in
    /// [`Devices`](crate::accounts::Devices) and among the keys like any other device, but no session.
    ///
    /// Floor: one row a user at most; it goes with the device.
    DehydratedDevices = "dehydrated_devices", Point, UserNum => DehydratedDevice
}

/// A dehydrated device.
#[derive(Clone, Debug, PartialEq)]
pub struct DehydratedDevice {
    /// Its id.
    pub device_id: String,
    /// Its private keys, encrypted for the user: a JSON object.
    pub data: RawJson,
}

impl Value for DehydratedDevice {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.terminated(self.device_id.as_bytes());
        writer.bytes(self.data.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                device_id: String::from_utf8(parser.terminated()?).map_err(|_| CodecError::Utf8)?,
                data: json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Forgets in `batch` that a device of `user` was dehydrated, if this is the one: because it goes, or because somebody logs
/// in to it, which makes it a device like others.
pub fn forget_dehydrated(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_id: &str,
) -> Result<(), StoreError> {
    let Some(row) = view.get::<DehydratedDevices>(&user)? else {
        return Ok(());
    };
    if row.device_id == device_id {
        batch.delete::<DehydratedDevices>(&user);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use myelin_store::{Parser, Value as _, Writer};

    use super::DehydratedDevice;
    use crate::RawJson;

    #[test]
    fn a_row_comes_back_as_it_was() {
        let device = DehydratedDevice {
            device_id: "a/b+\u{0}".to_owned(),
            data: RawJson::of(&serde_json::json!({ "algorithm": "a" })).expect("it is JSON"),
        };
        let mut writer = Writer::new();
        device.encode(&mut writer);
        let bytes = writer.into_bytes();
        let mut parser = Parser::new(&bytes);
        let decoded = DehydratedDevice::decode(1, &mut parser).expect("just encoded");
        assert_eq!(decoded, device);
        assert!(DehydratedDevice::decode(2, &mut Parser::new(&bytes)).is_err());
    }
}
