//! The operator's commands, carried out on the parts that hold the data.

use std::{error::Error, path::PathBuf, sync::Arc};

use myelin_accounts::Secret;
use myelin_client_api::AppState;
use myelin_rooms::doctor::Examination;
use myelin_store::View;
use myelin_types::UserNum;
use ruma::{OwnedUserId, RoomAliasId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{
    backup,
    control::{Answer, Request},
    health::Health,
    signing,
};

/// Carries out commands. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// The parts of the server.
    pub(crate) state: AppState,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The settings file, where there is one.
    pub(crate) settings: Option<PathBuf>,
    /// How the server is.
    pub(crate) health: Health,
    /// Held while the signing key is replaced.
    pub(crate) rotating: Arc<tokio::sync::Mutex<()>>,
}

/// Told how far a command is.
pub(crate) type Going = Arc<dyn Fn(String) + Send + Sync>;

/// How many users are read at once.
const PAGE: usize = 1000;

impl Operator {
    /// Carries out one command. `going` is told how far it is.
    pub(crate) async fn carry_out(&self, request: Request, going: Going) -> Answer {
        match self.dispatch(request, going).await {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Refused(chain(&*error)),
        }
    }

    async fn dispatch(
        &self,
        request: Request,
        going: Going,
    ) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let accounts = &self.state.accounts;
        match request {
            Request::Health => Ok(serde_json::to_value(self.health.report().await)?),
            Request::CreateUser {
                name,
                password,
                admin,
            } => {
                let user_id = self.user_id(&name)?;
                let password = Secret::new(password.0);
                let user_id = accounts
                    .create_user(user_id.localpart(), Some(password), admin)
                    .await?;
                tracing::info!(%user_id, admin, "user created by the operator");
                Ok(json!({ "user_id": user_id }))
            }
            Request::ListUsers => self.list_users().await,
            Request::SetPassword {
                name,
                password,
                keep_sessions,
            } => {
                let (user, user_id) = self.user(&name).await?;
                let password = Secret::new(password.0);
                let ended = accounts
                    .set_password(user, password, !keep_sessions, None)
                    .await?;
                tracing::info!(%user_id, logged_out = ended.len(), "password set by the operator");
                Ok(json!({ "user_id": user_id, "logged_out": ended.len() }))
            }
            Request::DeactivateUser { name, erase } => {
                let (user, user_id) = self.user(&name).await?;
                let rooms = &self.state.rooms;
                myelin_client_api::end_account(accounts, rooms, user, &user_id, erase).await?;
                tracing::info!(%user_id, erase, "user deactivated by the operator");
                Ok(json!({ "user_id": user_id }))
            }
            Request::CheckRoom { room, compare_with } => {
                self.check_room(&room, compare_with, going).await
            }
            Request::CheckFederation { server } => {
                let report = self.state.federation.check(&server).await;
                Ok(serde_json::to_value(report)?)
            }
            Request::RotateKey => {
                // In a task: a key that is half replaced is no place to stop when the one who asked goes away.
                let (federation, data_dir) = (self.state.federation.clone(), self.data_dir.clone());
                let rotating = Arc::clone(&self.rotating);
                let rotation = tokio::spawn(async move {
                    let _one_at_a_time = rotating.lock().await;
                    let random = Arc::clone(federation.random());
                    signing::rotate(&federation, &data_dir, &random).await
                });
                let key_id = rotation.await??;
                tracing::info!(key_id, "signing key replaced by the operator");
                Ok(json!({ "key_id": key_id }))
            }
            Request::Backup { directory } => {
                let source = backup::Source {
                    store: self.state.rooms.store().clone(),
                    data_dir: self.data_dir.clone(),
                    settings: self.settings.clone(),
                };
                let target = directory.clone();
                tokio::task::spawn_blocking(move || backup::make(&source, &target)).await??;
                tracing::info!(directory = %directory.display(), "backup made");
                Ok(json!({ "directory": directory }))
            }
        }
    }

    async fn check_room(
        &self,
        room: &str,
        compare_with: usize,
        going: Going,
    ) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let rooms = &self.state.rooms;
        let room_id = match <&RoomAliasId>::try_from(room) {
            Ok(alias) => {
                let (rooms, wanted) = (rooms.clone(), alias.to_owned());
                let read = move |view: &View| rooms.resolve_alias(view, &wanted);
                let found = self.state.rooms.store().read(read).await?;
                let found = found.ok_or_else(|| format!("no room here has the alias {alias}"))?;
                found.room_id().to_owned()
            }
            Err(_) => RoomId::parse(room)
                .map_err(|error| format!("{room} is no room id and no alias: {error}"))?,
        };
        let progress = Arc::new(move |events: u64| going(format!("{events} events examined")));
        let fetch = Arc::new(self.state.federation.clone());
        let examination = Examination { compare_with };
        let report = rooms
            .examine(&room_id, examination, fetch, progress)
            .await?;
        tracing::info!(room = %room_id, verdict = ?report.verdict, "room examined by the operator");
        Ok(serde_json::to_value(report)?)
    }

    async fn list_users(&self) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let accounts = self.state.accounts.clone();
        let users = tokio::task::spawn_blocking(move || {
            let view = accounts.view();
            let mut users = Vec::new();
            let mut after = None;
            loop {
                let page = accounts.users(&view, after, PAGE)?;
                let Some(last) = page.last() else {
                    return Ok::<_, myelin_store::StoreError>(users);
                };
                after = Some(last.user);
                users.extend(page);
            }
        })
        .await??;
        let listed = users.iter().map(|user| {
            json!({
                "user_id": user.user_id,
                "created_at": user.created_at,
                "admin": user.admin,
                "deactivated": user.deactivated,
            })
        });
        Ok(listed.collect())
    }

    /// A local user's id from what an operator writes.
    fn user_id(&self, name: &str) -> Result<OwnedUserId, String> {
        let server_name = self.state.rooms.server_name();
        let user_id = if name.starts_with('@') {
            UserId::parse(name)
        } else {
            UserId::parse_with_server_name(name, server_name)
        }
        .map_err(|error| format!("{name} is not a user's name: {error}"))?;
        if user_id.server_name() == server_name {
            Ok(user_id)
        } else {
            Err(format!("{user_id} is not a user of {server_name}"))
        }
    }

    async fn user(
        &self,
        name: &str,
    ) -> Result<(UserNum, OwnedUserId), Box<dyn Error + Send + Sync>> {
        let user_id = self.user_id(name)?;
        match self.state.accounts.local_user(&user_id).await? {
            Some(user) => Ok((user, user_id)),
            None => Err(format!("there is no user {user_id}").into()),
        }
    }
}

/// An error and its causes as one sentence.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let link = error.to_string();
        // Transparent errors repeat what their wrapper said.
        if !text.ends_with(&link) {
            text.push_str(": ");
            text.push_str(&link);
        }
        cause = error.source();
    }
    text
}
