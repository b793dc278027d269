//! User-interactive authentication. Spec: client-server API, "User-Interactive Authentication API".
//!
//! A session remembers which stages were completed, for one operation of one user. It lives in memory: after a restart
//! the client is given a new one and begins again.

use std::{sync::Arc, time::Duration};

use myelin_types::{Millis, UserNum, random_string};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use crate::{Accounts, Failure, Identifier, RegisterError, Requester, Secret, secret::hash};

/// How many sessions are kept. When there are more, those that were not used for longest are forgotten, and their
/// clients begin again. About 300 bytes each.
const MAX_SESSIONS: usize = 20_000;

/// One thing that a client does to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `m.login.dummy`: nothing.
    Dummy,
    /// `m.login.password`: the password of the requester, or of whoever the stage names if there is no requester.
    Password,
    /// `m.login.registration_token`: a valid registration token.
    RegistrationToken,
}

impl Stage {
    /// Its name in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Dummy => "m.login.dummy",
            Stage::Password => "m.login.password",
            Stage::RegistrationToken => "m.login.registration_token",
        }
    }

    fn from_name(name: &str) -> Option<Stage> {
        [Stage::Dummy, Stage::Password, Stage::RegistrationToken]
            .into_iter()
            .find(|stage| stage.as_str() == name)
    }
}

/// Stages that authenticate when they are completed in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow(pub Vec<Stage>);

/// What somebody authenticates for.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Which operation, for example `DELETE /devices`. A session for one is none for another.
    pub name: &'a str,
    /// What of the request must not change while the session lasts, without `auth`: the devices to delete, say. Empty
    /// where the client may still change its mind, as in a registration.
    pub subject: &'a [u8],
    /// What the client may choose from.
    pub flows: &'a [Flow],
    /// Who asks, if he has a session already.
    pub requester: Option<&'a Requester>,
}

/// Somebody who completed a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Who he proved to be with [`Stage::Password`].
    pub user: Option<UserNum>,
    /// The token of [`Stage::RegistrationToken`]; [`Accounts::register`] counts its use.
    pub registration_token: Option<Secret>,
}

/// What the client is to do next: the answer with status 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What it may choose from.
    pub flows: Vec<Flow>,
    /// The session to go on with.
    pub session: String,
    /// What it has completed, in this order.
    pub completed: Vec<Stage>,
    /// Why what it just tried was not enough, if it tried something.
    pub failure: Option<StageFailure>,
}

/// Why a stage was not completed. The client may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageFailure {
    /// (`M_FORBIDDEN`)
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// (`M_FORBIDDEN`)
    #[error("the registration token is not valid")]
    WrongToken,
    /// (`M_FORBIDDEN`)
    #[error("this stage is not the next one of any flow")]
    NotNext,
    /// (`M_UNRECOGNIZED`)
    #[error("this kind of authentication is not offered here")]
    NotOffered,
    /// (`M_FORBIDDEN`)
    #[error("the authentication session is unknown or has expired")]
    UnknownSession,
}

/// Why somebody is not authenticated (yet).
#[derive(Debug, thiserror::Error)]
pub enum UiaError {
    /// There is more to do. (401)
    #[error("authentication is required")]
    Challenge(Box<Challenge>),
    /// He proved to be somebody else than the requester. (403 `M_FORBIDDEN`)
    #[error("the authentication is that of another user")]
    WrongUser,
    /// The session is for another operation. (403 `M_FORBIDDEN`)
    #[error("the request has changed since the authentication began")]
    OtherOperation,
    /// `auth` lacks a part of its stage. (400 `M_MISSING_PARAM`)
    #[error("auth lacks {0}")]
    Missing(&'static str),
    /// `auth` is no object, or a part of it is of the wrong kind. (400 `M_BAD_JSON`)
    #[error("auth is malformed")]
    Malformed,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// The sessions of all clients.
pub(crate) struct Sessions {
    lifetime: Duration,
    by_id: Cache<String, Arc<Mutex<Session>>>,
}

/// What a session binds, and how far it has come.
struct Session {
    binding: Binding,
    expires_at: Millis,
    completed: Vec<Stage>,
    passed: Passed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Binding {
    operation: [u8; 32],
    subject: [u8; 32],
    requester: Option<UserNum>,
}

impl Sessions {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            by_id: Cache::new(MAX_SESSIONS),
        }
    }

    /// Forgets the sessions that have expired.
    pub(crate) fn sweep(&self, now: Millis) {
        self.by_id
            .retain(|_, session| now < session.lock().expires_at);
    }
}

impl Accounts {
    /// Lets through who has completed one of the operation's flows, `auth` being the `auth` of the request's body.
    ///
    /// A completed session stays good for its operation until it expires, so that a client whose answer was lost can
    /// ask again.
    pub async fn interact(
        &self,
        operation: &Operation<'_>,
        auth: Option<&Value>,
    ) -> Result<Passed, UiaError> {
        let auth = match auth {
            None | Some(Value::Null) => return Err(self.begin(operation, None)),
            Some(Value::Object(auth)) => auth,
            Some(_) => return Err(UiaError::Malformed),
        };
        let stage = text(auth, "type")?;
        let Some(session_id) = text(auth, "session")? else {
            // Clients that know the flows send their first stage at once.
            let Some(stage) = stage else {
                return Err(self.begin(operation, None));
            };
            let (id, session) = self.new_session(operation);
            let progress = self.advance(operation, &session, Some(stage), auth).await;
            if let Err(UiaError::Challenge(_)) = &progress {
                self.0.uia.by_id.insert(id.clone(), session);
            }
            return progress.map_err(|error| name_session(error, id));
        };
        let now = self.now();
        let session = self.0.uia.by_id.get(session_id);
        let Some(session) = session.filter(|session| now < session.lock().expires_at) else {
            return Err(self.begin(operation, Some(StageFailure::UnknownSession)));
        };
        if session.lock().binding != binding(operation) {
            return Err(UiaError::OtherOperation);
        }
        self.advance(operation, &session, stage, auth)
            .await
            .map_err(|error| name_session(error, session_id.to_owned()))
    }

    /// Tries `stage` and says how far the session has come.
    async fn advance(
        &self,
        operation: &Operation<'_>,
        session: &Mutex<Session>,
        stage: Option<&str>,
        auth: &Map<String, Value>,
    ) -> Result<Passed, UiaError> {
        let completed = session.lock().completed.clone();
        let failure = match stage {
            // A completed stage cannot be tried again; nor is there a need to.
            Some(name) if completed.iter().any(|stage| stage.as_str() == name) => None,
            Some(name) => match next_stage(operation.flows, &completed, name) {
                Ok(stage) => {
                    self.attempt(operation, session, &completed, stage, auth)
                        .await?
                }
                Err(failure) => Some(failure),
            },
            None => None,
        };
        let session = session.lock();
        let done = |flow: &Flow| flow.0 == session.completed;
        if failure.is_none() && operation.flows.iter().any(done) {
            return Ok(session.passed.clone());
        }
        Err(UiaError::Challenge(Box::new(Challenge {
            flows: operation.flows.to_vec(),
            session: String::new(),
            completed: session.completed.clone(),
            failure,
        })))
    }

    /// Checks what the client gives for `stage` and notes it if it is right.
    async fn attempt(
        &self,
        operation: &Operation<'_>,
        session: &Mutex<Session>,
        completed: &[Stage],
        stage: Stage,
        auth: &Map<String, Value>,
    ) -> Result<Option<StageFailure>, UiaError> {
        let mut proved = Passed::default();
        match stage {
            Stage::Dummy => {}
            Stage::Password => {
                let password = text(auth, "password")?.ok_or(UiaError::Missing("password"))?;
                let identifier = match (Identifier::in_body(auth), operation.requester) {
                    (Some(identifier), _) => identifier,
                    (None, Some(requester)) if !auth.contains_key("identifier") => {
                        Identifier::User(requester.user_id.to_string())
                    }
                    (None, _) => return Err(UiaError::Missing("identifier")),
                };
                let checked = self
                    .check_password(&identifier, Secret::new(password))
                    .await?;
                let Some(checked) = checked else {
                    return Ok(Some(StageFailure::WrongPassword));
                };
                if operation
                    .requester
                    .is_some_and(|requester| requester.user != checked.user)
                {
                    return Err(UiaError::WrongUser);
                }
                proved.user = Some(checked.user);
            }
            Stage::RegistrationToken => {
                let token = text(auth, "token")?.ok_or(UiaError::Missing("token"))?;
                let token = Secret::new(token);
                match self.registration_token_valid(&token).await {
                    Ok(true) => proved.registration_token = Some(token),
                    Err(RegisterError::Failed(failure)) => return Err(failure.into()),
                    Ok(false) | Err(_) => return Ok(Some(StageFailure::WrongToken)),
                }
            }
        }
        let mut session = session.lock();
        // The same stage may have been completed by another request while this one was checked.
        if session.completed == completed {
            session.completed.push(stage);
            session.passed.user = session.passed.user.or(proved.user);
            if proved.registration_token.is_some() {
                session.passed.registration_token = proved.registration_token;
            }
        }
        Ok(None)
    }

    fn begin(&self, operation: &Operation<'_>, failure: Option<StageFailure>) -> UiaError {
        let (id, session) = self.new_session(operation);
        self.0.uia.by_id.insert(id.clone(), session);
        UiaError::Challenge(Box::new(Challenge {
            flows: operation.flows.to_vec(),
            session: id,
            completed: Vec::new(),
            failure,
        }))
    }

    fn new_session(&self, operation: &Operation<'_>) -> (String, Arc<Mutex<Session>>) {
        let session = Session {
            binding: binding(operation),
            expires_at: self.now().after(self.0.uia.lifetime),
            completed: Vec::new(),
            passed: Passed::default(),
        };
        let id = random_string(&*self.0.random, 24);
        (id, Arc::new(Mutex::new(session)))
    }
}

/// The stage called `name`, if it comes next in some flow.
fn next_stage(flows: &[Flow], completed: &[Stage], name: &str) -> Result<Stage, StageFailure> {
    let stage = Stage::from_name(name)
        .filter(|stage| flows.iter().any(|flow| flow.0.contains(stage)))
        .ok_or(StageFailure::NotOffered)?;
    let next = flows.iter().any(|flow| {
        flow.0
            .strip_prefix(completed)
            .is_some_and(|rest| rest.first() == Some(&stage))
    });
    if next {
        Ok(stage)
    } else {
        Err(StageFailure::NotNext)
    }
}

fn binding(operation: &Operation<'_>) -> Binding {
    Binding {
        operation: hash(operation.name.as_bytes()),
        subject: hash(operation.subject),
        requester: operation.requester.map(|requester| requester.user),
    }
}

fn name_session(error: UiaError, id: String) -> UiaError {
    match error {
        UiaError::Challenge(mut challenge) => {
            challenge.session = id;
            UiaError::Challenge(challenge)
        }
        other => other,
    }
}

fn text<'a>(auth: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, UiaError> {
    match auth.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(UiaError::Malformed),
    }
}
