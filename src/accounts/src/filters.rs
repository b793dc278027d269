//! Filters that clients store. Spec: client-server API, "Filtering".
//!
//! A filter's id is a number that follows from its text, so that the same filter uploaded again, which clients do on
//! every start, is the same row.

use myelin_data::{RawJson, accounts::Filters};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::UserNum;
use ruma::api::client::filter::FilterDefinition;
use serde_json::{Map, Value};

use crate::{Accounts, Failure, secret::hash};

/// How many filters a user may store.
pub const MAX_FILTERS: usize = 1000;

/// The largest filter, in bytes of JSON.
const MAX_FILTER: usize = 64 * 1024;

/// Why a filter was not stored.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is not what the spec calls a filter. (`M_BAD_JSON`)
    #[error("not a filter: {0}")]
    Invalid(String),
    /// It has more than 64 KiB. (413 `M_TOO_LARGE`)
    #[error("the filter is too large")]
    TooLarge,
    /// The user has a thousand of them. (`M_RESOURCE_LIMIT_EXCEEDED`)
    #[error("there are too many filters")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(FilterError);

impl Accounts {
    /// Stores a filter and returns its id.
    pub async fn define_filter(
        &self,
        user: UserNum,
        filter: &Map<String, Value>,
    ) -> Result<String, FilterError> {
        let text = RawJson::of(filter).map_err(Failure::from)?;
        if text.get().len() > MAX_FILTER {
            return Err(FilterError::TooLarge);
        }
        serde_json::from_str::<FilterDefinition>(text.get())
            .map_err(|error| FilterError::Invalid(error.to_string()))?;
        let digest = hash(text.get().as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Half of the range, so that probing never comes to its end.
        let wanted = u64::from_be_bytes(first) >> 1;
        let id = self
            .0
            .store
            .change(move |view| {
                let mut id = wanted;
                while let Some(row) = view.get::<Filters>(&(user, id))? {
                    if row == text {
                        return Ok(Step::nothing(id));
                    }
                    id += 1;
                }
                let stored = view
                    .keys::<Filters>(Scan::prefix(&user).limit(MAX_FILTERS))
                    .count();
                if stored == MAX_FILTERS {
                    return Err(FilterError::TooMany);
                }
                let mut batch = Batch::new();
                batch.expect::<Filters>(&(user, id), None);
                batch.put::<Filters>(&(user, id), &text);
                Ok(Step::write(batch, id))
            })
            .await?;
        Ok(id.to_string())
    }

    /// The text of a stored filter.
    pub fn filter(
        &self,
        view: &View,
        user: UserNum,
        id: &str,
    ) -> Result<Option<RawJson>, StoreError> {
        match id.parse::<u64>() {
            Ok(id) => view.get::<Filters>(&(user, id)),
            Err(_) => Ok(None),
        }
    }

    /// A stored filter, ready for use.
    pub fn filter_definition(
        &self,
        view: &View,
        user: UserNum,
        id: &str,
    ) -> Result<Option<FilterDefinition>, StoreError> {
        let text = self.filter(view, user, id)?;
        Ok(text.and_then(|text| serde_json::from_str(text.get()).ok()))
    }
}
