//! `GET /.well-known/matrix/support`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::discovery::discover_support::{
    Contact, ContactRole, Request as Operation, Response,
};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with the contacts and the page that are configured, if any are.
pub(crate) async fn get(
    State(about): State<Arc<About>>,
    _: Request<Operation>,
) -> Result<Reply<Response>> {
    let contacts: Vec<Contact> = about
        .support_contacts
        .iter()
        .filter_map(|configured| {
            let role = ContactRole::from(configured.role.as_str());
            let mut contact = match (&configured.email_address, &configured.matrix_id) {
                (Some(email), _) => Contact::with_email_address(role, email.clone()),
                (None, Some(user)) => Contact::with_matrix_id(role, user.clone()),
                (None, None) => return None,
            };
            contact.matrix_id.clone_from(&configured.matrix_id);
            Some(contact)
        })
        .collect();
    let page = about.support_page.as_ref().map(ToString::to_string);
    if contacts.is_empty() && page.is_none() {
        return Err(Refusal::not_found("This server names no contacts."));
    }
    let mut response = Response::with_contacts(contacts);
    response.support_page = page;
    Ok(Reply(response))
}
