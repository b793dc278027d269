//! Requests of the command line: answered by the running server, or, where none runs, by opening its data.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    sync::Arc,
};

use myelin_config::Config;
use serde_json::Value;

use super::Settings;
use crate::{
    control::{self, Answer, ClientError, Request},
    core::{Core, Surroundings},
    data_dir::CONTROL_SOCKET,
    health::Health,
    operator::Operator,
};

/// Has `request` carried out, with or without a running server.
pub(super) fn ask(
    settings: &Settings,
    config: &Config,
    request: Request,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    match ask_running(config, &request) {
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::NotRunning)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(carry_out(config, settings.file(), request))
        }
        answered => answered,
    }
}

/// Has `request` carried out by the running server.
pub(super) fn ask_running(
    config: &Config,
    request: &Request,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let socket = config.server.data_dir.join(CONTROL_SOCKET);
    done(control::ask(&socket, request, show)?)
}

/// Opens the server's data, carries out `request`, and closes the data again.
async fn carry_out(
    config: &Config,
    settings: Option<&Path>,
    request: Request,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let core = Core::open(config, &Surroundings::default()).await?;
    let data_dir = config.server.data_dir.clone();
    let operator = Operator {
        state: core.app_state(config),
        health: Health::new(core.store.clone(), data_dir.clone()),
        settings: settings.map(Path::to_owned),
        data_dir,
        rotating: Arc::default(),
    };
    let answer = operator
        .carry_out(request, Arc::new(|progress| show(&progress)))
        .await;
    drop(operator);
    core.close().await;
    done(answer)
}

/// Shows somebody who waits how far his request is.
fn show(progress: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Nobody is there to be told that this cannot be written.
        write!(err, "\r{progress}\x1b[K").ok();
    }
}

fn done(answer: Answer) -> Result<Value, Box<dyn Error + Send + Sync>> {
    match answer {
        Answer::Done(value) => Ok(value),
        Answer::Refused(reason) => Err(reason.into()),
        Answer::Going(_) => Err("the request was not finished".into()),
    }
}
