// Servers for a test run, each a process on free ports of the loopback interface with a new database: the built Myelin,
// and Synapse as a peer.

import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 15_000;

/** Starts the binary that MYELIN_BIN names and waits until it answers; `stop` ends it and removes its data. */
export async function startServer() {
    const server = new Myelin(await mkdtemp(join(tmpdir(), "myelin-js-")));
    await server.prepare();
    await server.start();
    return server;
}

/**
 * Starts a server of each of `kinds` ("myelin", "synapse"), which reach each other over TLS with certificates of an
 * authority of their own. `stop` ends them all.
 */
export async function startFederation(kinds) {
    const dir = await mkdtemp(join(tmpdir(), "myelin-js-"));
    const tls = await authority(dir);
    const servers = [];
    for (const [index, kind] of kinds.entries()) {
        const own = join(dir, String(index));
        await mkdir(own);
        const server = kind === "synapse" ? new Synapse(own, tls) : new Myelin(own, tls);
        servers.push(server);
        await server.prepare();
        await server.start();
    }
    const stop = async () => {
        const ends = await Promise.all(servers.map((server) => server.stop()));
        await rm(dir, { recursive: true, force: true });
        return ends;
    };
    return { servers, stop };
}

/** A server process. It may be killed and started again over its data. */
class Server {
    constructor(dir, tls) {
        this.dir = dir;
        this.tls = tls;
        this.log = "";
        this.name = "localhost";
    }

    /** Takes ports and writes what the server reads at its start. */
    async prepare() {
        this.port = await freePort();
        this.baseUrl = `http://127.0.0.1:${this.port}`;
        if (this.tls) {
            this.tlsPort = await freePort();
            this.name = `localhost:${this.tlsPort}`;
        }
        await this.configure();
    }

    async start() {
        // The server takes variables of this prefix for settings, and knows no setting of that name.
        const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MYELIN_")));
        const [program, ...args] = this.command();
        const child = spawn(program, args, { cwd: this.dir, env, stdio: ["ignore", "pipe", "pipe"] });
        this.child = child;
        for (const stream of [child.stdout, child.stderr]) {
            stream.on("data", (chunk) => (this.log = (this.log + chunk).slice(-20_000)));
        }
        this.exited = new Promise((resolve) => {
            child.on("error", (error) => {
                this.log += `\n${error}`;
                resolve(null);
            });
            child.on("exit", resolve);
        });
        const deadline = Date.now() + START_LIMIT_MS;
        for (;;) {
            if (child.exitCode !== null || Date.now() > deadline) {
                await this.stop();
                throw new Error(`the server does not answer; its log ends:\n${this.log}`);
            }
            try {
                if ((await fetch(`${this.baseUrl}/_matrix/client/versions`)).ok) {
                    return;
                }
            } catch {
                // Nobody listens yet.
            }
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    }

    /** Ends it as a power cut would. */
    async kill() {
        this.child.kill("SIGKILL");
        await this.exited;
    }

    /** Asks it to end, and removes its data. */
    async stop() {
        this.child.kill("SIGTERM");
        const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_LIMIT_MS);
        const code = await this.exited;
        clearTimeout(late);
        await rm(this.dir, { recursive: true, force: true });
        return { code, log: this.log };
    }
}

/** The built server. */
class Myelin extends Server {
    async configure() {
        const federation = this.tls && {
            listen: `tls_addresses = ["127.0.0.1:${this.tlsPort}"]
tls_certificate = ${JSON.stringify(this.tls.certificate)}
tls_private_key = ${JSON.stringify(this.tls.key)}`,
            section: `[federation]
ca_certificates = [${JSON.stringify(this.tls.ca)}]
allow_private_addresses = ["127.0.0.0/8", "::1/128"]`,
        };
        await writeFile(
            join(this.dir, "myelin.toml"),
            `[server]
name = ${JSON.stringify(this.name)}
data_dir = ${JSON.stringify(join(this.dir, "data"))}
memory_budget = "64 MiB"

[listen]
addresses = ["127.0.0.1:${this.port}"]
${federation?.listen ?? ""}

[registration]
mode = "open"

[rate_limits]
enabled = false

${federation?.section ?? ""}
`,
        );
    }

    command() {
        const binary = process.env.MYELIN_BIN;
        if (!binary) {
            throw new Error("MYELIN_BIN must name the server's binary; `cargo xtask test` sets it");
        }
        return [binary, "serve", "--config", join(this.dir, "myelin.toml")];
    }
}

/** Synapse with SQLite, as it is installed for the Python that SYNAPSE_PYTHON names. */
class Synapse extends Server {
    async configure() {
        const unlimited = { per_second: 1_000_000, burst_count: 1_000_000 };
        const listener = { bind_addresses: ["127.0.0.1"], type: "http" };
        const settings = {
            server_name: this.name,
            report_stats: false,
            suppress_key_server_warning: true,
            trusted_key_servers: [],
            signing_key_path: join(this.dir, "signing.key"),
            media_store_path: join(this.dir, "media"),
            log_config: join(this.dir, "log.yaml"),
            database: { name: "sqlite3", args: { database: join(this.dir, "homeserver.db") } },
            listeners: [
                { ...listener, port: this.port, resources: [{ names: ["client"], compress: false }] },
                { ...listener, port: this.tlsPort, tls: true, resources: [{ names: ["federation"], compress: false }] },
            ],
            tls_certificate_path: this.tls.certificate,
            tls_private_key_path: this.tls.key,
            federation_custom_ca_list: [this.tls.ca],
            ip_range_blacklist: [],
            federation: {
                client_timeout: "20s",
                destination_min_retry_interval: "1s",
                destination_retry_multiplier: 1,
                destination_max_retry_interval: "1s",
            },
            enable_registration: true,
            enable_registration_without_verification: true,
            experimental_features: { msc3814_enabled: true },
            bcrypt_rounds: 4,
            rc_message: unlimited,
            rc_registration: unlimited,
            rc_login: { address: unlimited, account: unlimited, failed_attempts: unlimited },
            rc_joins: { local: unlimited, remote: unlimited },
            rc_joins_per_room: unlimited,
            rc_invites: { per_room: unlimited, per_user: unlimited, per_issuer: unlimited },
            rc_room_creation: unlimited,
            rc_key_requests: unlimited,
            rc_federation: { window_size: 1000, sleep_limit: 100_000, reject_limit: 100_000, concurrent: 100 },
        };
        const logging = {
            version: 1,
            formatters: { plain: { format: "%(asctime)s %(name)s %(levelname)s %(message)s" } },
            handlers: { console: { class: "logging.StreamHandler", formatter: "plain" } },
            root: { level: "WARNING", handlers: ["console"] },
            disable_existing_loggers: false,
        };
        await mkdir(join(this.dir, "media"));
        // Every JSON text is YAML too.
        await writeFile(join(this.dir, "log.yaml"), JSON.stringify(logging));
        await writeFile(join(this.dir, "homeserver.yaml"), JSON.stringify(settings));
        const [python, ...args] = this.command();
        await promisify(execFile)(python, [...args, "--generate-keys"], { cwd: this.dir });
    }

    command() {
        const python = process.env.SYNAPSE_PYTHON;
        if (!python) {
            throw new Error("SYNAPSE_PYTHON must name a Python that has Synapse; for example that of `cargo xtask bench`");
        }
        return [python, "-m", "synapse.app.homeserver", "--config-path", join(this.dir, "homeserver.yaml")];
    }
}

/** A certificate authority in `dir`, and one certificate for `localhost` from it. */
async function authority(dir) {
    const files = { ca: join(dir, "ca.pem"), certificate: join(dir, "localhost.pem"), key: join(dir, "localhost.key") };
    const caKey = join(dir, "ca.key");
    const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    const openssl = (...args) => promisify(execFile)("openssl", args);
    const subject = "/CN=Authority of the SDK tests";
    await openssl("req", "-x509", ...ec, "-keyout", caKey, "-out", files.ca, "-subj", subject);
    const names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    const request = join(dir, "localhost.csr");
    await openssl("req", ...ec.slice(0, -2), "-keyout", files.key, "-out", request, "-subj", "/CN=localhost");
    const extensions = join(dir, "extensions");
    await writeFile(extensions, `${names}\nbasicConstraints=critical,CA:FALSE\n`);
    const signer = ["-CA", files.ca, "-CAkey", caKey, "-CAcreateserial", "-extfile", extensions];
    await openssl("x509", "-req", "-in", request, ...signer, "-days", "2", "-out", files.certificate);
    return files;
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
