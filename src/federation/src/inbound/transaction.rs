//! What a transaction may be. Spec: server-server API, "Transactions".

use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::TransactionError;

/// The most PDUs of a transaction.
pub const MAX_PDUS: usize = 50;
/// The most EDUs of a transaction.
pub const MAX_EDUS: usize = 100;
/// The longest id of a transaction, in bytes: it is remembered.
const MAX_ID: usize = 255;

/// A transaction of another server.
#[derive(Clone, Debug)]
pub struct Transaction {
    origin: OwnedServerName,
    id: String,
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
}

/// The body, as far as it is looked at: `origin` is proved by the signature, and `origin_server_ts` tells nothing.
#[derive(Deserialize)]
struct Body {
    pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    edus: Vec<Box<RawValue>>,
}

impl Transaction {
    /// A transaction of `origin`, which was proved to have sent it.
    pub fn new(
        origin: OwnedServerName,
        id: String,
        pdus: Vec<Box<RawValue>>,
        edus: Vec<Box<RawValue>>,
    ) -> Result<Self, TransactionError> {
        if pdus.len() > MAX_PDUS || edus.len() > MAX_EDUS {
            return Err(TransactionError::TooLarge);
        }
        if id.len() > MAX_ID {
            return Err(TransactionError::LongId);
        }
        Ok(Self {
            origin,
            id,
            pdus,
            edus,
        })
    }

    /// Reads the body of a transaction.
    pub fn parse(
        origin: OwnedServerName,
        id: String,
        body: &[u8],
    ) -> Result<Self, TransactionError> {
        let Body { pdus, edus } =
            serde_json::from_slice(body).map_err(|_| TransactionError::Malformed)?;
        Self::new(origin, id, pdus, edus)
    }

    /// Who sent it.
    pub fn origin(&self) -> &OwnedServerName {
        &self.origin
    }

    /// Its id, which the origin chose.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Events, at most [`MAX_PDUS`]; and what does not last, at most [`MAX_EDUS`].
    pub(super) fn into_content(self) -> (Vec<Box<RawValue>>, Vec<Box<RawValue>>) {
        (self.pdus, self.edus)
    }

    /// Reads everything in it that is read without knowing a room, as receiving it does: what a fuzzer calls. Answers how
    /// many EDUs mean something.
    pub fn read_all(&self) -> usize {
        for pdu in &self.pdus {
            for version in myelin_rules::RoomVersion::ALL {
                let _ = myelin_rules::Pdu::parse(version, pdu.get().as_bytes());
            }
        }
        let known = self
            .edus
            .iter()
            .filter(|edu| super::edus::Edu::parse(edu).is_some());
        known.count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::owned_server_name;
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &[u8]) -> Result<Transaction, TransactionError> {
        Transaction::parse(owned_server_name!("there.example"), "1".to_owned(), body)
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop_oneof![
                Just("m.typing"),
                Just("m.receipt"),
                Just("m.presence"),
                Just("m.read"),
                Just("!room:there.example"),
                Just("@charlie:there.example"),
                Just("$event"),
            ]
            .prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("edu_type".to_owned()),
            Just("content".to_owned()),
            Just("room_id".to_owned()),
            Just("user_id".to_owned()),
            Just("typing".to_owned()),
            Just("m.read".to_owned()),
            Just("!room:there.example".to_owned()),
            Just("@charlie:there.example".to_owned()),
            Just("event_ids".to_owned()),
            Just("data".to_owned()),
            Just("type".to_owned()),
            ".{0,6}",
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        /// Whatever stands in a transaction, reading it ends without a panic, and the counts are kept.
        #[test]
        fn anything_can_be_read(
            pdus in prop::collection::vec(any_json(), 0..4),
            edus in prop::collection::vec(any_json(), 0..4),
        ) {
            let body = json!({ "pdus": pdus, "edus": edus }).to_string();
            let transaction = parse(body.as_bytes()).expect("it has the form of a transaction");
            prop_assert!(transaction.read_all() <= edus.len());
            let (read, _) = transaction.into_content();
            prop_assert_eq!(read.len(), pdus.len());
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(transaction) = parse(&body) {
                transaction.read_all();
            }
        }

        #[test]
        fn counts_are_limited(pdus in 0_usize..60, edus in 0_usize..110) {
            let body = json!({ "pdus": vec![json!({}); pdus], "edus": vec![json!({}); edus] });
            let fits = pdus <= MAX_PDUS && edus <= MAX_EDUS;
            prop_assert_eq!(parse(body.to_string().as_bytes()).is_ok(), fits);
        }
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"pdus": {}}"#,
            r#"{"pdus": [], "edus": 1}"#,
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse(br#"{"pdus": []}"#).is_ok());
        let origin = owned_server_name!("there.example");
        let long = Transaction::new(origin, "a".repeat(256), Vec::new(), Vec::new());
        assert!(matches!(long, Err(TransactionError::LongId)));
    }
}
