"""Servers that reach each other over TLS on the loopback interface, each a process: Myelin, and Synapse as a peer."""

import asyncio
import datetime
import ipaddress
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_LIMIT = 60.0
STOP_LIMIT = 20.0
PASSWORD = "a password of some length"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Authority:
    """A certificate authority of the test's own, and one certificate for `localhost` from it."""

    def __init__(self, directory: Path) -> None:
        self.ca = directory / "ca.pem"
        self.certificate = directory / "localhost.pem"
        self.key = directory / "localhost.key"
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the federation tests")])
        ca = (
            self._builder(ca_name, ca_name, ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = (
            self._builder(name, ca_name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        self.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @staticmethod
    def _builder(subject, issuer, key):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )


class Gates:
    """Stands before every server's TLS port and can be shut, which cuts each server off from all others."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def before(self, port: int) -> int:
        """Opens a port that leads to `port`."""

        async def listen() -> int:
            server = await asyncio.start_server(lambda reader, writer: self._pass(reader, writer, port), "127.0.0.1", 0)
            return server.sockets[0].getsockname()[1]

        return asyncio.run_coroutine_threadsafe(listen(), self._loop).result()

    def shut(self) -> None:
        """Cuts every connection and lets no new one through."""

        async def cut() -> None:
            self._open = False
            for writer in list(self._writers):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result()

    def open(self) -> None:
        """Lets connections through again."""
        self._open = True

    async def _pass(self, reader, writer, port: int) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            behind, to_behind = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, to_behind}
        self._writers |= pair
        try:
            await asyncio.gather(self._copy(reader, to_behind), self._copy(behind, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()

    @staticmethod
    async def _copy(reader, writer) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()
        except (OSError, RuntimeError):
            writer.transport.abort()


class Server:
    """A homeserver in a process of its own. It may be killed and started again over its data."""

    kind = "a homeserver"

    def __init__(self, directory: Path, authority: Authority, gates: Gates) -> None:
        directory.mkdir()
        self.directory, self.authority = directory, authority
        self.client_port, self.tls_port = free_port(), free_port()
        # Other servers come through the gate, whose port is part of the name.
        self.name = f"localhost:{gates.before(self.tls_port)}"
        self.base_url = f"http://127.0.0.1:{self.client_port}"
        self._process: subprocess.Popen | None = None
        self.configure()
        self.start()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def configure(self) -> None:
        """Writes what the server reads at its start."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until it answers."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("MYELIN_")}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.directory, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_LIMIT
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self} does not answer; its log ends:\n{self.log()}")
            try:
                with urllib.request.urlopen(f"{self.base_url}/_matrix/client/versions", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Asks it to stop."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        """The end of what it has printed."""
        return (self.directory / "log").read_text(errors="replace")[-8_000:]


class Myelin(Server):
    """The binary that MYELIN_BIN names."""

    kind = "Myelin"

    def configure(self) -> None:
        (self.directory / "myelin.toml").write_text(
            f"""[server]
name = {json.dumps(self.name)}
data_dir = {json.dumps(str(self.directory / "data"))}
memory_budget = "64 MiB"

[listen]
addresses = ["127.0.0.1:{self.client_port}"]
tls_addresses = ["127.0.0.1:{self.tls_port}"]
tls_certificate = {json.dumps(str(self.authority.certificate))}
tls_private_key = {json.dumps(str(self.authority.key))}

[registration]
mode = "open"

[rate_limits]
enabled = false

[federation]
ca_certificates = [{json.dumps(str(self.authority.ca))}]
allow_private_addresses = ["127.0.0.0/8", "::1/128"]
"""
        )

    def command(self) -> list[str]:
        binary = os.environ.get("MYELIN_BIN")
        if not binary:
            raise RuntimeError("MYELIN_BIN must name the server's binary; `cargo xtask test` sets it")
        return [binary, "serve", "--config", str(self.directory / "myelin.toml")]


class Synapse(Server):
    """Synapse with SQLite, as it is installed beside the Python that runs this."""

    kind = "Synapse"

    def configure(self) -> None:
        unlimited = {"per_second": 1_000_000, "burst_count": 1_000_000}
        listener = {"bind_addresses": ["127.0.0.1"], "type": "http"}
        settings = {
            "server_name": self.name,
            "report_stats": False,
            "suppress_key_server_warning": True,
            "trusted_key_servers": [],
            "signing_key_path": str(self.directory / "signing.key"),
            "media_store_path": str(self.directory / "media"),
            "log_config": str(self.directory / "log.yaml"),
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "homeserver.db")}},
            "listeners": [
                {**listener, "port": self.client_port, "resources": [{"names": ["client"], "compress": False}]},
                {
                    **listener,
                    "port": self.tls_port,
                    "tls": True,
                    "resources": [{"names": ["federation"], "compress": False}],
                },
            ],
            "tls_certificate_path": str(self.authority.certificate),
            "tls_private_key_path": str(self.authority.key),
            "federation_custom_ca_list": [str(self.authority.ca)],
            "ip_range_blacklist": [],
            "federation": {
                "client_timeout": "20s",
                "max_short_retries": 1,
                "max_long_retries": 1,
                "destination_min_retry_interval": "1s",
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "1s",
            },
            "enable_registration": True,
            "enable_registration_without_verification": True,
            # It would answer a first sync from two minutes ago.
            "caches": {"sync_response_cache_duration": "0s"},
            "bcrypt_rounds": 4,
            "rc_message": unlimited,
            "rc_registration": unlimited,
            "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
            "rc_joins": {"local": unlimited, "remote": unlimited},
            "rc_joins_per_room": unlimited,
            "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
            "rc_room_creation": unlimited,
            "rc_federation": {"window_size": 1000, "sleep_limit": 100_000, "reject_limit": 100_000, "concurrent": 100},
        }
        logging = {
            "version": 1,
            "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
            "root": {"level": "WARNING", "handlers": ["console"]},
            "disable_existing_loggers": False,
        }
        (self.directory / "media").mkdir()
        # Every JSON text is YAML too.
        (self.directory / "log.yaml").write_text(json.dumps(logging))
        (self.directory / "homeserver.yaml").write_text(json.dumps(settings))
        subprocess.run([*self.command(), "--generate-keys"], cwd=self.directory, check=True, capture_output=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "synapse.app.homeserver", "--config-path", str(self.directory / "homeserver.yaml")]


class Dendrite(Server):
    """Dendrite with SQLite; its programs are in the directory that DENDRITE_BIN names. Only for runs by hand."""

    kind = "Dendrite"

    def configure(self) -> None:
        make_key = [self._program("generate-keys"), "--private-key", str(self.directory / "signing.key")]
        subprocess.run(make_key, cwd=self.directory, check=True, capture_output=True)

        def database(name: str) -> dict:
            return {"connection_string": f"file:{self.directory / name}.db"}

        settings = {
            "version": 2,
            "global": {
                "server_name": self.name,
                "private_key": str(self.directory / "signing.key"),
                "jetstream": {"storage_path": str(self.directory / "jetstream"), "topic_prefix": "Dendrite"},
            },
            "client_api": {"registration_disabled": False, "rate_limiting": {"enabled": False}},
            "federation_api": {"disable_tls_validation": True, "database": database("federation")},
            "media_api": {"base_path": str(self.directory / "media"), "database": database("media")},
            "user_api": {"account_database": database("accounts"), "bcrypt_cost": 4},
            "logging": [{"type": "std", "level": "warn"}],
        }
        for part in ("room_server", "sync_api", "key_server", "relay_api", "mscs"):
            settings.setdefault(part, {})["database"] = database(part)
        # Every JSON text is YAML too.
        (self.directory / "dendrite.yaml").write_text(json.dumps(settings))

    def command(self) -> list[str]:
        arguments = {
            "--config": self.directory / "dendrite.yaml",
            "--http-bind-address": f"127.0.0.1:{self.client_port}",
            "--https-bind-address": f"127.0.0.1:{self.tls_port}",
            "--tls-cert": self.authority.certificate,
            "--tls-key": self.authority.key,
        }
        given = [str(part) for pair in arguments.items() for part in pair]
        return [self._program("dendrite"), "--really-enable-open-registration", *given]

    @staticmethod
    def _program(name: str) -> str:
        return str(Path(os.environ["DENDRITE_BIN"]) / name)


class Refused(Exception):
    """A server answered with an error."""

    def __init__(self, status: int, body: dict) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.errcode = status, body.get("errcode")


def quoted(text: str) -> str:
    """`text` as one segment of a path."""
    return urllib.parse.quote(text, safe="")


class Person:
    """Somebody with an account, who speaks the client-server API."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self._transactions = server, itertools.count()
        self.token: str | None = None
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        try:
            answer = self.ask("POST", "register", body)
        except Refused as refused:
            raise AssertionError(f"{server} does not register {name}: {refused}") from None
        self.id, self.token = answer["user_id"], answer["access_token"]

    def __str__(self) -> str:
        return f"{self.id} of {self.server.kind}"

    def ask(self, method: str, path: str, body: dict | None = None, **query: object) -> dict:
        """One request below `/_matrix/client/v3/`."""
        url = f"{self.server.base_url}/_matrix/client/v3/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query, doseq=True)
        data = json.dumps(body).encode() if body is not None else (b"{}" if method in ("POST", "PUT") else None)
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            try:
                answer = json.loads(text)
            except ValueError:
                answer = {"error": text}
            raise Refused(error.code, answer) from None

    def create(self, version: str, **more: object) -> str:
        """Makes a room."""
        return self.ask("POST", "createRoom", {"preset": "public_chat", "room_version": version, **more})["room_id"]

    def join(self, room: str, via: Server) -> None:
        """Joins a room through a server that is in it."""
        self.ask("POST", f"join/{quoted(room)}", {}, server_name=[via.name], via=[via.name])

    def act(self, room: str, what: str, **body: object) -> dict:
        """`invite`, `leave`, `kick`, `ban`, `unban`."""
        return self.ask("POST", f"rooms/{quoted(room)}/{what}", body)

    def send(self, room: str, kind: str, content: dict) -> str:
        """Sends an event and answers its id."""
        return self.ask("PUT", f"rooms/{quoted(room)}/send/{kind}/{next(self._transactions)}", content)["event_id"]

    def say(self, room: str, text: str, **more: object) -> str:
        """Sends a message and answers its id."""
        return self.send(room, "m.room.message", {"msgtype": "m.text", "body": text, **more})

    def redact(self, room: str, event_id: str) -> str:
        """Redacts an event."""
        path = f"rooms/{quoted(room)}/redact/{quoted(event_id)}/{next(self._transactions)}"
        return self.ask("PUT", path)["event_id"]

    def put(self, room: str, kind: str, content: dict, key: str = "") -> str:
        """Sets a piece of state."""
        return self.ask("PUT", f"rooms/{quoted(room)}/state/{kind}/{quoted(key)}", content)["event_id"]

    def get(self, room: str, kind: str, key: str = "") -> dict:
        """The content of a piece of state."""
        return self.ask("GET", f"rooms/{quoted(room)}/state/{kind}/{quoted(key)}")

    def state(self, room: str) -> dict[tuple[str, str], str]:
        """The room's current state: event ids by type and state key."""
        events = self.ask("GET", f"rooms/{quoted(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def membership(self, room: str, user: str) -> str | None:
        """Somebody's membership, as this server has it."""
        try:
            return self.get(room, "m.room.member", user).get("membership")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def history(self, room: str) -> dict[str, dict]:
        """All events of the room that can be paged back to, by id."""
        found: dict[str, dict] = {}
        query: dict[str, object] = {"dir": "b", "limit": 100}
        while True:
            page = self.ask("GET", f"rooms/{quoted(room)}/messages", **query)
            found.update({event["event_id"]: event for event in page["chunk"]})
            if not page.get("end") or page["end"] == query.get("from"):
                return found
            query["from"] = page["end"]

    def sync(self, since: str | None = None) -> dict:
        """What is there, or new, without waiting."""
        return self.ask("GET", "sync", timeout=0, **({"since": since} if since else {}))
