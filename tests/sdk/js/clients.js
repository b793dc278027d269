// Clients of matrix-js-sdk, and waiting for what they see.

import assert from "node:assert/strict";

import loglevel from "loglevel";
import { ClientEvent, SyncState, createClient } from "matrix-js-sdk";

export const PASSWORD = "a password of some length";
const DEADLINE_MS = 30_000;

const nothing = () => {};
/** The SDK tells every step of a client; failing assertions say enough. */
const quiet = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, getChild: () => quiet };

let started = [];
let counter = 0;

/** A client of `server`, with the token and device that `credentials` have, if any. */
export function connect(server, credentials = {}) {
    const client = createClient({ baseUrl: server.baseUrl, logger: quiet, timelineSupport: true, ...credentials });
    // Parts of a client bring loggers of their own.
    for (const logger of Object.values(loglevel.getLoggers())) {
        logger.setLevel("silent");
    }
    return client;
}

/** The client of a new user, not syncing yet. */
export async function register(server, name, options = {}) {
    const answer = await connect(server).registerRequest({
        username: `${name}-${++counter}`,
        password: PASSWORD,
        auth: { type: "m.login.dummy" },
    });
    return as(server, answer, options);
}

/** The client of a new device of `userId`, not syncing yet. */
export async function logIn(server, userId, options = {}) {
    const answer = await connect(server).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: userId },
        password: PASSWORD,
    });
    return as(server, answer, options);
}

function as(server, answer, options) {
    const { user_id: userId, access_token: accessToken, device_id: deviceId } = answer;
    return connect(server, { userId, accessToken, deviceId, ...options });
}

/** Lets `client` sync, and waits until it knows the present. */
export async function start(client, options = {}) {
    started.push(client);
    const ready = until(client, ClientEvent.Sync, (state) => state === SyncState.Prepared || state === SyncState.Syncing);
    await client.startClient({ initialSyncLimit: 200, disableVoip: true, ...options });
    await ready;
}

/** Stops all clients that were started. */
export function stopClients() {
    for (const client of started) {
        client.stopClient();
    }
    started = [];
}

/** Waits for an `event` of `emitter` whose arguments `accept` takes; the deadline is for servers that never send it. */
export function until(emitter, event, accept, deadline = DEADLINE_MS) {
    return new Promise((resolve, reject) => {
        const late = setTimeout(() => {
            emitter.off(event, listen);
            reject(new Error(`no ${event} that the test waits for`));
        }, deadline);
        const listen = (...details) => {
            if (accept(...details)) {
                clearTimeout(late);
                emitter.off(event, listen);
                resolve(details[0]);
            }
        };
        emitter.on(event, listen);
    });
}

/** Waits until `check` gives a truthy value, looking again whenever `client` has synced. */
export async function eventually(client, what, check, deadline = DEADLINE_MS) {
    const end = Date.now() + deadline;
    for (;;) {
        const value = await check();
        if (value) {
            return value;
        }
        assert.ok(Date.now() < end, `${what} within the deadline`);
        await new Promise((resolve) => {
            const pause = setTimeout(resolve, 200);
            client.once(ClientEvent.Sync, () => {
                clearTimeout(pause);
                resolve();
            });
        });
    }
}
