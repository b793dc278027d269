//! The side of the running server.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
};

use myelin_runtime::Tasks;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
};

use super::{Answer, Request};
use crate::operator::Operator;

/// A request is a few names and a password.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// Answers the operator's commands on `socket` until the shutdown.
///
/// Called when the database is open: whoever has it open owns the directory, so a socket that is there already was
/// left behind.
pub(crate) fn listen(socket: &Path, operator: Operator, tasks: &Tasks) -> io::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // Between the two calls the directory's own mode keeps others out.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let socket = RemovedAtEnd(socket.to_owned());
    let accepting = {
        let tasks = tasks.clone();
        async move {
            let _socket = socket;
            let soft = tasks.soft().clone();
            while let Some(accepted) = soft.run_until_cancelled(listener.accept()).await {
                match accepted {
                    Ok((stream, _)) => {
                        let operator = operator.clone();
                        tasks.spawn("operator's command", async move {
                            if let Err(error) = converse(stream, &operator).await {
                                tracing::debug!(%error, "an operator's command was cut short");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept operators' commands");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        }
    };
    tasks.spawn_essential("operators' socket", accepting);
    Ok(())
}

struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

async fn converse(stream: UnixStream, operator: &Operator) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader)
        .take(MAX_REQUEST_BYTES)
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            // When the client reads slowly, it hears less often how far its request is.
            let (sender, mut going) = tokio::sync::mpsc::channel(4);
            let report = Arc::new(move |progress: String| drop(sender.try_send(progress)));
            let mut work = pin!(operator.carry_out(request, report));
            loop {
                tokio::select! {
                    answer = &mut work => break answer,
                    Some(progress) = going.recv() => {
                        write(&mut writer, &Answer::Going(progress)).await?;
                    }
                }
            }
        }
        // The line may hold a password, so nothing of it is repeated.
        Err(_) => Answer::Refused("this server does not know the command".to_owned()),
    };
    write(&mut writer, &answer).await
}

async fn write(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
