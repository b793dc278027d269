"""A Myelin of its own for a test run: the built binary on a free port of the loopback interface, with a new database."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

START_LIMIT = 30.0
STOP_LIMIT = 15.0


class Server:
    """The binary that MYELIN_BIN names, running. `stop` ends it and removes its data."""

    def __init__(self) -> None:
        binary = os.environ.get("MYELIN_BIN")
        if not binary:
            raise RuntimeError("MYELIN_BIN must name the server's binary; `cargo xtask test` sets it")
        self._dir = tempfile.TemporaryDirectory(prefix="myelin-nio-")
        directory = Path(self._dir.name)
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        config = directory / "myelin.toml"
        config.write_text(
            f"""[server]
name = "localhost"
data_dir = {json.dumps(str(directory / "data"))}
memory_budget = "64 MiB"

[listen]
addresses = ["127.0.0.1:{port}"]

[registration]
mode = "open"

[rate_limits]
enabled = false
"""
        )
        # The server takes variables of this prefix for settings, and knows no setting of that name.
        env = {name: value for name, value in os.environ.items() if name != "MYELIN_BIN"}
        # Into a file: a pipe that nobody empties would stop the server once it is full.
        self._log_path = directory / "log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "serve", "--config", str(config)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def log(self) -> str:
        """The end of what the server has printed."""
        return self._log_path.read_text(errors="replace")[-20_000:]

    def stop(self) -> int:
        """Asks the server to stop, waits for it, and answers its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status != 0:
            print(self.log())
        self._dir.cleanup()
        return status

    def _wait(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.log()
                self._process.kill()
                raise RuntimeError(f"the server does not answer; its log ends:\n{log}")
            try:
                with urllib.request.urlopen(f"{self.base_url}/_matrix/client/versions", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass  # Nobody listens yet.
            time.sleep(0.05)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
