//! Servers that a room keeps out. Spec: client-server API, "Server Access Control Lists".

use std::net::Ipv4Addr;

use myelin_rules::push::glob_matches;
use myelin_store::{StoreError, View};
use myelin_types::RoomNum;
use ruma::{RoomId, ServerName};
use serde_json::Value;

use crate::{Failure, JsonObject, RoomHandle, Rooms, read::RoomView};

impl Rooms {
    /// Whether a room's current ACL denies a server. A room that is not known denies nobody.
    pub async fn acl_denies(&self, room: &RoomId, server: &ServerName) -> Result<bool, Failure> {
        match self.find_now(room).await? {
            Some(handle) => self.is_denied(&handle, server).await,
            None => Ok(false),
        }
    }

    /// Whether a room's current ACL denies a server. A room without one denies nobody.
    pub(super) async fn is_denied(
        &self,
        handle: &RoomHandle,
        server: &ServerName,
    ) -> Result<bool, Failure> {
        let (rooms, num, server) = (self.clone(), handle.num, server.to_owned());
        let read = move |view: &View| rooms.denies(view, num, &server);
        Ok(self.0.store.read(read).await?)
    }

    /// The same in a view.
    pub(super) fn denies(
        &self,
        view: &View,
        room: RoomNum,
        server: &ServerName,
    ) -> Result<bool, StoreError> {
        let room = RoomView::open(self, view, room)?;
        Ok(
            match room.state_entry(room.current()?, "m.room.server_acl", "")? {
                Some(event) => denies(room.event(event)?.pdu.content(), server),
                None => false,
            },
        )
    }
}

fn denies(acl: &JsonObject, server: &ServerName) -> bool {
    let name = server.host();
    let is_literal = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    if is_literal && acl.get("allow_ip_literals") == Some(&Value::Bool(false)) {
        return true;
    }
    let lists = |key: &str| {
        let list = acl.get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|glob| glob_matches(glob, name))
    };
    lists("deny") || !lists("allow")
}

#[cfg(test)]
mod tests {
    use ruma::ServerName;
    use serde_json::{Value, json};

    use super::denies;

    fn check(acl: Value, server: &str, denied: bool) {
        let Value::Object(acl) = acl else {
            panic!("the cases are objects");
        };
        let server = <&ServerName>::try_from(server).expect("a server name");
        assert_eq!(denies(&acl, server), denied, "{server}");
    }

    #[test]
    fn lists_are_looked_at_in_order() {
        check(json!({}), "a.org", true);
        check(json!({"allow": ["*"]}), "a.org:8448", false);
        check(
            json!({"allow": ["*"], "deny": ["*.evil.org"]}),
            "very.evil.org:1",
            true,
        );
        check(json!({"allow": ["a.???"], "deny": 3}), "A.org", false);
        let literals = json!({"allow": ["*"], "allow_ip_literals": false});
        check(literals.clone(), "1.2.3.4:80", true);
        check(literals.clone(), "[::1]", true);
        check(literals, "a.org", false);
        check(
            json!({"allow": ["*"], "allow_ip_literals": "no"}),
            "1.2.3.4",
            false,
        );
    }
}
