//! Starting and stopping.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use myelin_config::{ByteSize, Config, RegistrationMode};
use myelin_homeserver::{Server, Surroundings};
use myelin_runtime::{Ending, Lifecycle, Tasks};
use myelin_types::{MockClock, SeededRandom};
use ruma::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{Client, PASSWORD, client::Reply, http_client};

/// How long a test's server may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// A server under construction: registration open, rate limits off, everything else as by default.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    surroundings: Surroundings,
    data_dir: Option<PathBuf>,
}

impl Builder {
    /// A server of this name.
    pub fn new(name: &str) -> Self {
        let name = ServerName::parse(name).expect("a test gives a valid server name");
        let mut config = Config::for_server(name);
        config.server.memory_budget = Some(ByteSize::mebibytes(64));
        config.listen.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.registration.mode = RegistrationMode::Open;
        config.rate_limits.enabled = false;
        Self {
            config,
            surroundings: Surroundings::default(),
            data_dir: None,
        }
    }

    /// Uses this data directory, and not a new one.
    #[must_use]
    pub fn data_dir(mut self, path: PathBuf) -> Self {
        self.data_dir = Some(path);
        self
    }

    /// Changes the settings.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Lets the server live by `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<MockClock>) -> Self {
        self.surroundings.clock = clock;
        self
    }

    /// Makes ids, tokens and keys the same in every run.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.surroundings.random = Arc::new(SeededRandom::new(seed));
        self
    }

    /// Starts it.
    pub async fn start(mut self) -> TestServer {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        self.config.server.data_dir = self.data_dir.unwrap_or_else(|| dir.path().join("data"));
        let running = Running::start(&self.config, &self.surroundings).await;
        TestServer {
            config: self.config,
            surroundings: self.surroundings,
            running: Some(running),
            http: http_client(),
            devices: AtomicU64::new(0),
            dir,
        }
    }
}

/// A server and the threads it runs on. They are its own, as a process's would be, so that all of it can be ended at once.
#[derive(Debug)]
struct Running {
    server: Option<Server>,
    tasks: Tasks,
    ending: Option<JoinHandle<Ending>>,
    runtime: Option<Runtime>,
}

impl Running {
    async fn start(config: &Config, surroundings: &Surroundings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(config.server.name.as_str())
            .enable_all()
            .build()
            .expect("threads can be started");
        let (config, surroundings) = (config.clone(), surroundings.clone());
        let starting = runtime.spawn(async move {
            let life = Lifecycle::new(GRACE);
            let tasks = life.tasks().clone();
            let server = Server::start(config, None, surroundings, &tasks)
                .await
                .expect("the test's server starts");
            (server, tasks, tokio::spawn(life.run()))
        });
        let (server, tasks, ending) = starting.await.expect("the start does not panic");
        Self {
            server: Some(server),
            tasks,
            ending: Some(ending),
            runtime: Some(runtime),
        }
    }

    async fn stop(mut self) -> Ending {
        self.tasks.shut_down();
        let ending = self.ending.take().expect("it was not stopped before");
        let ending = ending.await.expect("the shutdown does not panic");
        let server = self.server.take().expect("it was not stopped before");
        server.close().await;
        self.end().await;
        ending
    }

    /// Ends all threads. Whatever they were doing is dropped where it stands, and all files and sockets are free afterwards.
    async fn end(mut self) {
        self.server.take();
        if let Some(runtime) = self.runtime.take() {
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(GRACE))
                .await
                .expect("the end of the threads does not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for here: this may be a thread of another one.
            runtime.shutdown_background();
        }
    }
}

/// A running server. Dropping it lets go of it at once, as a crash would; the directory goes with it.
#[derive(Debug)]
pub struct TestServer {
    config: Config,
    surroundings: Surroundings,
    running: Option<Running>,
    http: reqwest::Client,
    devices: AtomicU64,
    dir: TempDir,
}

impl TestServer {
    /// A server called `test.example` with the settings of [`Builder`].
    pub async fn start() -> TestServer {
        Self::builder().start().await
    }

    /// The same, to be changed before it starts.
    pub fn builder() -> Builder {
        Builder::new("test.example")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server is running")
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        let server = self.running().server.as_ref();
        server.expect("the server is running")
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A directory that lasts as long as this server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.config.server.data_dir.clone()
    }

    /// Where it answers: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        let addresses = self.server().addresses();
        let address = addresses.first().expect("a test's server listens");
        format!("http://{address}")
    }

    /// Its name.
    pub fn name(&self) -> &ServerName {
        &self.config.server.name
    }

    /// The user id of a local user.
    pub fn user_id(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.config.server.name)
    }

    /// Somebody who is not logged in.
    pub fn anonymous(&self) -> Client {
        Client::new(self.http.clone(), self.url())
    }

    /// Registers `localpart` with [`PASSWORD`] and logs them in.
    pub async fn register(&self, localpart: &str) -> Client {
        let request = json!({
            "username": localpart,
            "password": PASSWORD,
            "device_id": self.next_device(),
            "auth": { "type": "m.login.dummy" },
        });
        let path = "/_matrix/client/v3/register";
        let reply = self.anonymous().post(path, &request).await;
        self.logged_in(reply)
    }

    /// Logs `localpart` in on a new device.
    pub async fn login(&self, localpart: &str) -> Client {
        let request = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": localpart },
            "password": PASSWORD,
            "device_id": self.next_device(),
        });
        let reply = self
            .anonymous()
            .post("/_matrix/client/v3/login", &request)
            .await;
        self.logged_in(reply)
    }

    fn next_device(&self) -> String {
        format!("DEVICE{}", self.devices.fetch_add(1, Ordering::Relaxed))
    }

    #[track_caller]
    fn logged_in(&self, reply: Reply) -> Client {
        let body = reply.ok();
        let text = |key: &str| {
            body[key]
                .as_str()
                .map_or_else(|| panic!("no {key} in {body}"), str::to_owned)
        };
        self.anonymous()
            .with_session(text("user_id"), text("device_id"), text("access_token"))
    }

    /// Stops the server in order and says how that went. Its data stay.
    pub async fn stop(&mut self) -> Ending {
        let running = self.running.take().expect("the server is running");
        running.stop().await
    }

    /// Ends the server where it stands, as a crash would: nothing is finished, nobody is answered. Its data stay.
    pub async fn kill(&mut self) {
        let running = self.running.take().expect("the server is running");
        running.end().await;
    }

    /// Whether it is neither stopped nor killed.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a stopped or killed server again on the same data. Unless its port was chosen by the test, as that of a
    /// server of [`Federated`](crate::Federated) is, it answers on another: see [`TestServer::reconnect`].
    pub async fn resume(&mut self) {
        assert!(self.running.is_none(), "the server is running already");
        self.running = Some(Running::start(&self.config, &self.surroundings).await);
    }

    /// Stops the server and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    /// The same session of `client`, at the port where the server answers now.
    pub fn reconnect(&self, client: &Client) -> Client {
        client.at(self.url())
    }

    /// The document of `/health`.
    pub async fn health(&self) -> Value {
        self.anonymous().get("/health").await.body
    }
}
