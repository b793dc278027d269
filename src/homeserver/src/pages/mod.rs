//! What a browser sees at `/`: what this is, how to use it, whom to ask. Plain HTML and CSS, embedded.

use axum::{Router, response::IntoResponse, routing::get};
use http::header;
use myelin_config::{Config, RegistrationMode, SupportContact};

const TEMPLATE: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("favicon.svg");

/// Nothing but our own style and icon may be loaded, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The routes of the pages.
pub(crate) fn router(config: &Config) -> Router {
    // The settings do not change while the server runs, so the page is made once.
    let page = axum::body::Bytes::from(landing_page(config));
    Router::new()
        .route(
            "/",
            get(move || async move { embedded("text/html; charset=utf-8", page) }),
        )
        .route(
            "/style.css",
            get(async || embedded("text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/favicon.svg",
            get(async || embedded("image/svg+xml", ICON)),
        )
        .route(
            "/favicon.ico",
            get(async || embedded("image/svg+xml", ICON)),
        )
}

fn embedded(kind: &'static str, content: impl IntoResponse) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, content)
}

fn landing_page(config: &Config) -> String {
    let registration = match config.registration.mode {
        RegistrationMode::Closed => {
            "Accounts on this server are made by its operator. If you should have one, ask them."
        }
        RegistrationMode::Token => {
            "You can create an account with a registration token. Ask the operator for one."
        }
        RegistrationMode::Open => "Anybody can create an account on this server.",
    };
    fill(
        TEMPLATE,
        &[
            ("server_name", &escape(config.server.name.as_str())),
            ("base_url", &escape(&client_url(config))),
            ("registration", registration),
            ("contact", &contact(config)),
            ("version", crate::VERSION),
        ],
    )
}

/// Where to point a client. A server that is tried out under the name `localhost` is found where it listens, without
/// TLS; any other is taken to stand behind its own name.
fn client_url(config: &Config) -> String {
    let told = config.server.public_base_url.is_some();
    match config.listen.addresses.first() {
        Some(address) if !told && config.server.name.as_str() == "localhost" => {
            format!("http://localhost:{}", address.port())
        }
        _ => config.server.base_url(),
    }
}

/// Whom to ask, as HTML; empty where nobody is configured.
fn contact(config: &Config) -> String {
    let mut ways: Vec<String> = Vec::new();
    if let Some(page) = &config.well_known.support_page {
        let url = escape(page.as_str());
        ways.push(format!("<a href=\"{url}\">{url}</a>"));
    }
    let admins = config
        .well_known
        .support_contacts
        .iter()
        .filter(|contact| contact.role == "m.role.admin");
    for SupportContact {
        email_address,
        matrix_id,
        ..
    } in admins
    {
        if let Some(email) = email_address {
            let email = escape(email);
            ways.push(format!("<a href=\"mailto:{email}\">{email}</a>"));
        }
        if let Some(user) = matrix_id {
            let user = escape(user.as_str());
            ways.push(format!("<a href=\"https://matrix.to/#/{user}\">{user}</a>"));
        }
    }
    if ways.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Help</h2>\n<p>{}</p>\n</section>",
        ways.join("<br>\n")
    )
}

/// Puts values, which must be HTML already, in the place of `{{name}}`.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name.trim()) {
            page.push_str(value);
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::*;

    fn config() -> Config {
        Config::for_server(owned_server_name!("example.org"))
    }

    #[test]
    fn the_page_says_where_to_point_a_client() {
        let page = landing_page(&config());
        assert!(page.contains("https://example.org"));
        assert!(page.contains("made by its operator"));
        assert!(!page.contains("{{"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn a_server_on_trial_is_found_where_it_listens() {
        let config = Config::for_server(owned_server_name!("localhost"));
        assert!(landing_page(&config).contains("<code>http://localhost:8008</code>"));
    }

    #[test]
    fn the_page_follows_the_settings() {
        let mut config = config();
        config.registration.mode = RegistrationMode::Open;
        config.well_known.support_contacts = vec![SupportContact {
            role: "m.role.admin".to_owned(),
            email_address: Some("\"<b>\"@example.org".to_owned()),
            matrix_id: None,
        }];
        let page = landing_page(&config);
        assert!(page.contains("Anybody can create"));
        assert!(page.contains("mailto:&quot;&lt;b&gt;&quot;@example.org"));
        assert!(!page.contains("<b>"));
    }
}
