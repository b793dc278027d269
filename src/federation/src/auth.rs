//! Requests between servers are signed: the `Authorization: X-Matrix` header. Spec: server-server API, "Request
//! Authentication".

use myelin_rules::{
    Object, SigningKey,
    canonical::{self, CanonicalError, Numbers},
    sign,
};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

/// The longest key identifier.
const LONGEST_KEY_ID: usize = 255;
/// The scheme of the header.
const SCHEME: &str = "X-Matrix";

/// What an `Authorization: X-Matrix` header says. Nothing of it is proved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Who says to have sent the request.
    pub origin: OwnedServerName,
    /// Whom it was meant for; older servers leave it out.
    pub destination: Option<OwnedServerName>,
    /// The identifier of the key it is signed with, `ed25519:…`.
    pub key: String,
    /// The signature, base64.
    pub signature: String,
}

/// Why a header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another scheme.
    #[error("the scheme is not X-Matrix")]
    Scheme,
    /// Not a list of `name=value`.
    #[error("the parameters cannot be read")]
    Syntax,
    /// A parameter that must be there is not.
    #[error("the parameter `{0}` is missing")]
    Missing(&'static str),
    /// A parameter stands there twice.
    #[error("the parameter `{0}` is given twice")]
    Twice(&'static str),
    /// A parameter is not a server name.
    #[error("the parameter `{0}` is not a server name")]
    Name(&'static str),
    /// A parameter is too long, or can be no key identifier or signature.
    #[error("the parameter `{0}` is not valid")]
    Value(&'static str),
}

/// A request as far as its signature covers it.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query, as they stand in the request line.
    pub uri: &'a str,
    /// The body, if there is one.
    pub content: Option<&'a Value>,
}

impl Signed<'_> {
    /// The text that is signed.
    fn text(
        &self,
        origin: &ServerName,
        destination: &ServerName,
    ) -> Result<String, CanonicalError> {
        let mut object = Object::new();
        object.insert("method".to_owned(), self.method.into());
        object.insert("uri".to_owned(), self.uri.into());
        object.insert("origin".to_owned(), origin.as_str().into());
        object.insert("destination".to_owned(), destination.as_str().into());
        if let Some(content) = self.content {
            object.insert("content".to_owned(), content.clone());
        }
        // A transaction carries events of all room versions, and the first five allow any number.
        canonical::object_to_string(&object, Numbers::Any)
    }

    /// The header with which `origin` sends this request to `destination`.
    pub fn sign(
        &self,
        origin: &ServerName,
        key: impl AsRef<SigningKey>,
        destination: &ServerName,
    ) -> Result<Authorization, CanonicalError> {
        let key = key.as_ref();
        let text = self.text(origin, destination)?;
        Ok(Authorization {
            origin: origin.to_owned(),
            destination: Some(destination.to_owned()),
            key: key.id().to_owned(),
            signature: key.sign(text.as_bytes()),
        })
    }

    /// Whether `authorization` is a signature of this request, sent to `destination`, by `key`.
    pub fn verify(
        &self,
        authorization: &Authorization,
        destination: &ServerName,
        key: &[u8; 32],
    ) -> bool {
        self.text(&authorization.origin, destination)
            .is_ok_and(|text| sign::verify_one(key, text.as_bytes(), &authorization.signature))
    }
}

impl Authorization {
    /// Reads the value of an `Authorization` header.
    pub fn parse(header: &str) -> Result<Authorization, HeaderError> {
        let (scheme, parameters) = header
            .trim_matches(is_space)
            .split_once(is_space)
            .ok_or(HeaderError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(HeaderError::Scheme);
        }
        let mut origin = Parameter::new("origin");
        let mut destination = Parameter::new("destination");
        let mut key = Parameter::new("key");
        let mut signature = Parameter::new("sig");
        let mut rest = parameters;
        while let Some((name, value, after)) = next_parameter(rest)? {
            rest = after;
            for known in [&mut origin, &mut destination, &mut key, &mut signature] {
                if name.eq_ignore_ascii_case(known.name) {
                    known.set(value)?;
                    break;
                }
            }
        }
        Ok(Authorization {
            origin: origin
                .server_name()?
                .ok_or(HeaderError::Missing("origin"))?,
            destination: destination.server_name()?,
            key: key.value.ok_or(HeaderError::Missing("key"))?,
            signature: signature.value.ok_or(HeaderError::Missing("sig"))?,
        })
    }

    /// Whether the key and the signature could be what they should be. What this refuses can be refused before anything is
    /// read, asked for or computed.
    pub fn check(&self) -> Result<(), HeaderError> {
        let is_key = self.key.len() <= LONGEST_KEY_ID
            && self.key.strip_prefix("ed25519:").is_some_and(|version| {
                !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_graphic())
            });
        if !is_key {
            return Err(HeaderError::Value("key"));
        }
        // 64 bytes in base64, with or without padding.
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        let signature = self.signature.trim_end_matches('=');
        if signature.len() != 86 || !signature.bytes().all(is_base64) {
            return Err(HeaderError::Value("sig"));
        }
        Ok(())
    }

    /// The value of the header, in the form that older servers read as well.
    pub fn header(&self) -> String {
        let destination = self
            .destination
            .as_ref()
            .map_or_else(String::new, |name| format!("destination=\"{name}\","));
        format!(
            "{SCHEME} origin=\"{}\",{destination}key=\"{}\",sig=\"{}\"",
            self.origin, self.key, self.signature
        )
    }
}

/// A parameter that may be given once.
struct Parameter {
    name: &'static str,
    value: Option<String>,
}

impl Parameter {
    fn new(name: &'static str) -> Self {
        Self { name, value: None }
    }

    fn set(&mut self, value: String) -> Result<(), HeaderError> {
        match self.value.replace(value) {
            // Two readers could take different ones for the right one.
            Some(_) => Err(HeaderError::Twice(self.name)),
            None => Ok(()),
        }
    }

    fn server_name(self) -> Result<Option<OwnedServerName>, HeaderError> {
        self.value
            .map(|value| OwnedServerName::try_from(value).map_err(|_| HeaderError::Name(self.name)))
            .transpose()
    }
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// The first `name=value` of `text` and what follows; empty elements of the list are passed over.
fn next_parameter(text: &str) -> Result<Option<(&str, String, &str)>, HeaderError> {
    let text = text.trim_start_matches(|c| is_space(c) || c == ',');
    if text.is_empty() {
        return Ok(None);
    }
    let (name, rest) = text.split_once('=').ok_or(HeaderError::Syntax)?;
    let name = name.trim_end_matches(is_space);
    if name.is_empty() || name.contains(|c| is_space(c) || c == ',' || c == '"') {
        return Err(HeaderError::Syntax);
    }
    let rest = rest.trim_start_matches(is_space);
    let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
        unquote(quoted)?
    } else {
        // Wider than a token on purpose: older servers leave names with colons and base64 without quotes.
        let end = rest.find(|c| is_space(c) || c == ',').unwrap_or(rest.len());
        let (value, rest) = rest.split_at(end);
        if value.is_empty() || value.contains('"') {
            return Err(HeaderError::Syntax);
        }
        (value.to_owned(), rest)
    };
    let rest = rest.trim_start_matches(is_space);
    if rest.is_empty() || rest.starts_with(',') {
        Ok(Some((name, value, rest)))
    } else {
        Err(HeaderError::Syntax)
    }
}

/// The value of a quoted string whose opening quote is taken off, and what follows its closing quote.
fn unquote(text: &str) -> Result<(String, &str), HeaderError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(chars.next().ok_or(HeaderError::Syntax)?.1),
            c => value.push(c),
        }
    }
    Err(HeaderError::Syntax)
}

#[cfg(test)]
mod tests {
    use myelin_rules::SigningKey;
    use proptest::prelude::*;
    use ruma::{owned_server_name, server_name};
    use serde_json::json;

    use super::*;

    fn expected() -> Authorization {
        Authorization {
            origin: owned_server_name!("origin.example.com:8448"),
            destination: Some(owned_server_name!("here.example.org")),
            key: "ed25519:key1".to_owned(),
            signature: "AB/C+D".to_owned(),
        }
    }

    #[test]
    fn headers_are_read_in_every_form_that_is_allowed() {
        for header in [
            "X-Matrix origin=\"origin.example.com:8448\",destination=\"here.example.org\",key=\"ed25519:key1\",sig=\"AB/C+D\"",
            "x-matrix   sig=AB/C+D , KEY=ed25519:key1\t,\tdestination=here.example.org,origin=origin.example.com:8448",
            "X-Matrix origin=origin.example.com:8448,key=\"ed25519:\\key1\",sig=\"AB\\/C+D\",destination=here.example.org,other=\"a,b=\\\"c\\\"\"",
            "X-Matrix ,origin = \"origin.example.com:8448\",, destination=\"here.example.org\",key=ed25519:key1,sig=AB/C+D,",
        ] {
            assert_eq!(Authorization::parse(header), Ok(expected()), "{header}");
        }
    }

    #[test]
    fn headers_that_say_too_little_or_too_much_are_refused() {
        let check = |header: &str, error| {
            assert_eq!(Authorization::parse(header), Err(error), "{header}");
        };
        check("Bearer abc", HeaderError::Scheme);
        check("X-Matrix", HeaderError::Scheme);
        check("X-Matrix origin", HeaderError::Syntax);
        check("X-Matrix origin=\"a.example", HeaderError::Syntax);
        check("X-Matrix origin=\"a.example\"key=b", HeaderError::Syntax);
        check(
            "X-Matrix origin=a.example,key=b",
            HeaderError::Missing("sig"),
        );
        check("X-Matrix key=b,sig=c", HeaderError::Missing("origin"));
        check(
            "X-Matrix origin=\"a b\",key=b,sig=c",
            HeaderError::Name("origin"),
        );
        check(
            "X-Matrix origin=a.example,origin=b.example,key=b,sig=c",
            HeaderError::Twice("origin"),
        );
    }

    #[test]
    fn a_signature_holds_for_the_request_it_was_made_for_and_no_other() {
        let key = SigningKey::from_seed("1", [7; 32]);
        let public = key.public_key_bytes();
        let here = server_name!("here.example");
        let content = json!({ "pdus": [{ "content": { "old": 1.5 } }] });
        let request = Signed {
            method: "PUT",
            uri: "/_matrix/federation/v1/send/1?a=%20b",
            content: Some(&content),
        };
        let authorization = request
            .sign(server_name!("origin.example"), &key, here)
            .expect("a signature");
        let read = Authorization::parse(&authorization.header()).expect("our own header");
        assert_eq!(read, authorization);
        assert!(request.verify(&read, here, &public));
        let other = json!({ "pdus": [] });
        for changed in [
            Signed {
                method: "POST",
                ..request
            },
            Signed {
                uri: "/_matrix/federation/v1/send/1?a=+b",
                ..request
            },
            Signed {
                content: None,
                ..request
            },
            Signed {
                content: Some(&other),
                ..request
            },
        ] {
            assert!(!changed.verify(&read, here, &public), "{changed:?}");
        }
        assert!(!request.verify(&read, server_name!("there.example"), &public));
        assert!(!request.verify(&read, here, &[9; 32]));
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in ".{0,200}") {
            let _ = Authorization::parse(&text);
        }

        #[test]
        fn any_parameters_are_judged(text in "X-Matrix [a-z=\",\\\\ ]{0,80}") {
            let _ = Authorization::parse(&text);
        }

        #[test]
        fn quoted_values_come_back(key in "[ -~]{1,40}", signature in "[ -~]{1,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!(
                "X-Matrix origin=a.example,key=\"{}\",sig=\"{}\"",
                quote(&key),
                quote(&signature),
            );
            let read = Authorization::parse(&header).expect("a well-formed header");
            prop_assert_eq!(read.key, key);
            prop_assert_eq!(read.signature, signature);
        }
    }
}
