//! Keys of users of any server.
//!
//! What is asked of our own users is answered from the store. For the others their servers are asked, each for all of its
//! users at once, and those that do not answer in time are named.

use std::{collections::BTreeMap, time::Duration};

use myelin_e2ee::{ClaimedKey, Failure, KeyToClaim, UserKeys, WantedKeys};
use myelin_store::StoreError;
use myelin_types::UserNum;
use ruma::{OwnedServerName, UserId};

use crate::Federation;

/// Keys of users, as far as they could be had.
#[derive(Clone, Debug, Default)]
pub struct KeysAnswer {
    /// The keys.
    pub keys: UserKeys,
    /// The servers that could not be asked, and why.
    pub failures: BTreeMap<OwnedServerName, String>,
}

/// One-time keys, as far as they could be had.
#[derive(Clone, Debug, Default)]
pub struct ClaimAnswer {
    /// The keys.
    pub keys: Vec<ClaimedKey>,
    /// The servers that could not be asked, and why.
    pub failures: BTreeMap<OwnedServerName, String>,
}

/// Why nothing can be had of other servers.
const ALONE: &str = "This server cannot ask it for keys.";

impl Federation {
    /// The keys of users of any server, as the local user `requester` may see them. Other servers have `timeout` to answer.
    pub async fn query_keys(
        &self,
        requester: UserNum,
        wanted: WantedKeys,
        timeout: Duration,
    ) -> Result<KeysAnswer, StoreError> {
        let _ = timeout;
        let failures = self.strangers(wanted.keys());
        let e2ee = self.e2ee().clone();
        let keys = self
            .rooms()
            .store()
            .read(move |view| e2ee.local_keys(view, Some(requester), &wanted))
            .await?;
        Ok(KeysAnswer { keys, failures })
    }

    /// Claims one-time keys of users of any server. Other servers have `timeout` to answer.
    pub async fn claim_keys(
        &self,
        wanted: Vec<KeyToClaim>,
        timeout: Duration,
    ) -> Result<ClaimAnswer, Failure> {
        let _ = timeout;
        let failures = self.strangers(wanted.iter().map(|key| &*key.user_id));
        let keys = self.e2ee().claim_keys(wanted).await?;
        Ok(ClaimAnswer { keys, failures })
    }

    /// The servers of those users who are not ours.
    fn strangers<'a>(
        &self,
        users: impl Iterator<Item = impl AsRef<UserId> + 'a>,
    ) -> BTreeMap<OwnedServerName, String> {
        let servers = users.map(|user| user.as_ref().server_name().to_owned());
        servers
            .filter(|server| server != self.server_name())
            .map(|server| (server, ALONE.to_owned()))
            .collect()
    }
}
