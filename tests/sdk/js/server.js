// A Myelin of its own for a test run: the built binary on a free port of the loopback interface, with a new database.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 15_000;

/** Starts the binary that MYELIN_BIN names and waits until it answers; `stop` ends it and removes its data. */
export async function startServer() {
    const binary = process.env.MYELIN_BIN;
    if (!binary) {
        throw new Error("MYELIN_BIN must name the server's binary; `cargo xtask test` sets it");
    }
    const dir = await mkdtemp(join(tmpdir(), "myelin-js-"));
    const port = await freePort();
    const config = join(dir, "myelin.toml");
    await writeFile(
        config,
        `[server]
name = "localhost"
data_dir = ${JSON.stringify(join(dir, "data"))}
memory_budget = "64 MiB"

[listen]
addresses = ["127.0.0.1:${port}"]

[registration]
mode = "open"

[rate_limits]
enabled = false
`,
    );
    // The server takes variables of this prefix for settings, and knows no setting of that name.
    const { MYELIN_BIN: _, ...env } = process.env;
    const child = spawn(binary, ["serve", "--config", config], {
        env,
        stdio: ["ignore", "pipe", "pipe"],
    });
    let log = "";
    for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (chunk) => (log = (log + chunk).slice(-20_000)));
    }
    const exited = new Promise((resolve) => {
        child.on("error", (error) => {
            log += `\n${error}`;
            resolve(null);
        });
        child.on("exit", resolve);
    });

    const baseUrl = `http://127.0.0.1:${port}`;
    const stop = async () => {
        child.kill("SIGTERM");
        const late = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
        const code = await exited;
        clearTimeout(late);
        await rm(dir, { recursive: true, force: true });
        return { code, log };
    };
    const deadline = Date.now() + START_LIMIT_MS;
    for (;;) {
        if (child.exitCode !== null || Date.now() > deadline) {
            await stop();
            throw new Error(`the server does not answer; its log ends:\n${log}`);
        }
        try {
            const answer = await fetch(`${baseUrl}/_matrix/client/versions`);
            if (answer.ok) {
                return { baseUrl, stop };
            }
        } catch {
            // Nobody listens yet.
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

async function freePort() {
    const probe = createServer();
    await new Promise((resolve, reject) => {
        probe.on("error", reject);
        probe.listen(0, "127.0.0.1", resolve);
    });
    const { port } = probe.address();
    await new Promise((resolve) => probe.close(resolve));
    return port;
}
