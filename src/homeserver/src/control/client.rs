//! The side of the command line.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use super::{Answer, Request};

/// Why the running server did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No server listens there.
    #[error("no server is running on this data directory")]
    NotRunning,
    /// The conversation failed.
    #[error("talk to the running server")]
    Io(#[from] io::Error),
    /// The answer is not one; perhaps the server is of another version.
    #[error("understand the running server")]
    Answer(#[from] serde_json::Error),
}

/// Asks the server that listens on `socket`. Blocks until it answers; `going` is told how far it is.
pub(crate) fn ask(
    socket: &Path,
    request: &Request,
    going: impl Fn(&str),
) -> Result<Answer, ClientError> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        // Refused: the socket was left behind by a process that is no more.
        NotFound | ConnectionRefused => ClientError::NotRunning,
        _ => ClientError::Io(error),
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut reader = BufReader::new(&stream);
    loop {
        let mut answer = String::new();
        reader.read_line(&mut answer)?;
        match serde_json::from_str(&answer)? {
            Answer::Going(progress) => going(&progress),
            answer => return Ok(answer),
        }
    }
}
