// People whose clients of matrix-js-sdk encrypt, with its Rust crypto, and what tests look at.

import assert from "node:assert/strict";

import { EventStatus, EventType, Filter, RoomMemberEvent } from "matrix-js-sdk";
import {
    CryptoEvent,
    VerificationPhase,
    VerificationRequestEvent,
    VerifierEvent,
    decodeRecoveryKey,
} from "matrix-js-sdk/lib/crypto-api/index.js";

import { PASSWORD, eventually, logIn, register, start, until } from "./clients.js";

/** For what waits until a killed server is back and others have noticed. */
export const LONG_MS = 120_000;

// The Rust parts tell what they do here, whatever logger the client has.
for (const level of ["debug", "info", "log", "warn"]) {
    console[level] = () => {};
}

/** Somebody whose client encrypts, with what he wrote down to get at his secrets. */
export class Person {
    /** A new user of `server`, with cross-signing keys, secret storage and, unless told otherwise, a key backup. */
    static async register(server, name, { backup = true } = {}) {
        const person = new Person(server);
        const client = await register(server, name, { cryptoCallbacks: person.callbacks });
        await person.begin(client);
        const crypto = client.getCrypto();
        const key = await crypto.createRecoveryKeyFromPassphrase();
        person.recoveryKey = key.encodedPrivateKey;
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (request) => person.prove(request) });
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: backup,
        });
        assert.ok(await crypto.isCrossSigningReady(), "cross-signing is set up");
        assert.ok(await crypto.isSecretStorageReady(), "secret storage is set up");
        return person;
    }

    constructor(server) {
        this.server = server;
        this.callbacks = {
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], decodeRecoveryKey(this.recoveryKey)],
        };
    }

    get id() {
        return this.client.getUserId();
    }

    get crypto() {
        return this.client.getCrypto();
    }

    async begin(client, options) {
        this.client = client;
        await client.initRustCrypto({ useIndexedDB: false });
        // Left to itself, the SDK asks for ten events a sync, and misses what it cannot tell from its own.
        const filter = new Filter(client.getUserId());
        filter.setTimelineLimit(100);
        await start(client, { filter, ...options });
    }

    /** Makes a request, and once more with the password if the server asks for that. */
    async prove(request) {
        try {
            return await request(null);
        } catch (error) {
            if (error.httpStatus !== 401) {
                throw error;
            }
            const identifier = { type: "m.id.user", user: this.id };
            return request({ type: "m.login.password", identifier, password: PASSWORD, session: error.data.session });
        }
    }

    /** The same person on a device that knows nothing but the recovery key. */
    async onFreshDevice(options) {
        const fresh = new Person(this.server);
        fresh.recoveryKey = this.recoveryKey;
        await fresh.begin(await logIn(this.server, this.id, { cryptoCallbacks: fresh.callbacks }), options);
        // Takes the private keys from secret storage, once it knows the public ones, and signs the device with them.
        assert.ok(await fresh.crypto.userHasCrossSigningKeys(this.id, true), "there are cross-signing keys");
        await fresh.crypto.bootstrapCrossSigning({});
        return fresh;
    }

    room(roomId) {
        return this.client.getRoom(roomId);
    }

    /** The events that were loaded: where a sync left a gap, there are several timelines. */
    events(roomId) {
        const timelines = this.room(roomId)?.getUnfilteredTimelineSet().getTimelines() ?? [];
        return timelines.flatMap((timeline) => timeline.getEvents());
    }

    /** Says `body`, however often it takes, and only once. */
    async say(roomId, body) {
        const transaction = this.client.makeTxnId();
        const content = { msgtype: "m.text", body };
        const sent = this.client.sendEvent(roomId, null, EventType.RoomMessage, content, transaction);
        if (await sent.then(() => true, () => false)) {
            return;
        }
        await eventually(
            this.client,
            `"${body}" is sent`,
            async () => {
                const echo = this.events(roomId).find((event) => event.getTxnId() === transaction);
                if (echo?.status !== EventStatus.NOT_SENT) {
                    return echo?.status === null;
                }
                return this.client.resendEvent(echo, this.room(roomId)).then(() => true, () => false);
            },
            LONG_MS,
        );
    }

    /** The messages that can be read, and how many cannot. */
    read(roomId) {
        const events = this.events(roomId).filter((event) => event.isEncrypted());
        const read = events.filter((event) => event.getType() === EventType.RoomMessage && event.status === null);
        return {
            bodies: read.filter((event) => !event.isDecryptionFailure()).map((event) => event.getContent().body),
            sessions: new Set(read.map((event) => event.getWireContent().session_id)),
            unreadable: events.filter((event) => event.isDecryptionFailure()).map((event) => event.decryptionFailureReason),
        };
    }
}

/** A room with encryption that `alice` made and `bob` joined. */
export async function meet(alice, bob) {
    const invited = until(
        bob.client,
        RoomMemberEvent.Membership,
        (_event, member) => member.userId === bob.id && member.membership === "invite",
    );
    const { room_id: roomId } = await alice.client.createRoom({
        preset: "trusted_private_chat",
        invite: [bob.id],
        initial_state: [
            { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
        ],
    });
    await invited;
    await bob.client.joinRoom(roomId);
    for (const { client, crypto } of [alice, bob]) {
        await eventually(client, "both are joined", () => client.getRoom(roomId)?.getJoinedMemberCount() === 2);
        await eventually(client, "the room is encrypted", () => crypto.isEncryptionEnabledInRoom(roomId));
    }
    return roomId;
}

/** Waits until a request or a verification is in `phase`. */
async function phase(request, wanted) {
    if (request.phase !== wanted) {
        await until(request, VerificationRequestEvent.Change, () => request.phase === wanted);
    }
}

/** Both compare emoji, and find that they are the same. */
export async function verify(alice, bob, roomId) {
    await eventually(alice.client, "Bob's keys are there", () => alice.crypto.userHasCrossSigningKeys(bob.id, true));
    const asked = until(bob.client, CryptoEvent.VerificationRequestReceived, (request) => request.roomId === roomId);
    const ofAlice = await alice.crypto.requestVerificationDM(bob.id, roomId);
    const ofBob = await asked;
    await ofBob.accept();
    await phase(ofAlice, VerificationPhase.Ready);
    const begins = phase(ofBob, VerificationPhase.Started);
    const verifiers = [await ofAlice.startVerification("m.sas.v1")];
    await begins;
    verifiers.push(ofBob.verifier);
    const shown = verifiers.map((verifier) => until(verifier, VerifierEvent.ShowSas, () => true));
    const done = verifiers.map((verifier) => verifier.verify());
    const callbacks = await Promise.all(shown);
    const [emoji, same] = callbacks.map(({ sas }) => sas.emoji);
    assert.equal(emoji.length, 7);
    assert.deepEqual(emoji, same);
    await Promise.all(callbacks.map((callback) => callback.confirm()));
    await Promise.all(done);
    for (const [one, other] of [
        [alice, bob],
        [bob, alice],
    ]) {
        await eventually(one.client, "the other is verified", async () =>
            (await one.crypto.getUserVerificationStatus(other.id)).isCrossSigningVerified(),
        );
    }
}

/** Waits until `person` can read all that was said, and checks that it is that. */
export async function readAll(person, roomId, said) {
    let found;
    try {
        await eventually(
            person.client,
            "everything can be read",
            async () => {
                found = person.read(roomId);
                if (found.bodies.length >= said.length && found.unreadable.length === 0) {
                    return true;
                }
                await person.client.scrollback(person.room(roomId), 50).catch(() => {});
                return false;
            },
            LONG_MS,
        );
    } catch {
        const missing = said.filter((body) => !found.bodies.includes(body));
        assert.fail(`${missing.length} not read, the first "${missing[0]}"; undecryptable: ${found.unreadable}`);
    }
    assert.deepEqual([...found.bodies].sort(), [...said].sort(), "each message is there once");
    return found;
}
