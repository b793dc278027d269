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

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_config::SupportContact;
    use serde_json::json;

    use crate::testing::Server;

    const PATH: &str = "/.well-known/matrix/support";

    #[tokio::test]
    async fn contacts_and_the_page_are_told() {
        let contact = |role: &str, email: Option<&str>, user: Option<&str>| SupportContact {
            role: role.to_owned(),
            email_address: email.map(str::to_owned),
            matrix_id: user.map(|user| user.try_into().expect("a user id")),
        };
        let contacts = vec![
            contact(
                "m.role.admin",
                Some("admin@example.org"),
                Some("@admin:hs1"),
            ),
            contact("m.role.security", None, Some("@security:hs1")),
        ];
        let server = Server::with(|config| {
            config.well_known.support_contacts = contacts;
            config.well_known.support_page =
                Some("https://example.org/help".parse().expect("a URL"));
        })
        .await;
        for _ in 0..2 {
            let told = json!({
                "contacts": [
                    {
                        "role": "m.role.admin",
                        "email_address": "admin@example.org",
                        "matrix_id": "@admin:hs1",
                    },
                    { "role": "m.role.security", "matrix_id": "@security:hs1" },
                ],
                "support_page": "https://example.org/help",
            });
            assert_eq!(
                server.send(Method::GET, PATH, None, Vec::new()).await.ok(),
                told
            );
        }
    }

    #[tokio::test]
    async fn without_configuration_there_is_nothing_to_tell() {
        let server = Server::new().await;
        let answer = server.send(Method::GET, PATH, None, Vec::new()).await;
        answer.refused(404, "M_NOT_FOUND");
    }
}
