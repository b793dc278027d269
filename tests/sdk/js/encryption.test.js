// What two people whose clients encrypt do with each other through matrix-js-sdk and its Rust crypto. The server sees
// none of what they say; whether it hands out keys rightly shows in what they can read.
//
// `LAYOUTS` in the environment chooses servers: `one`, which CI runs, `two` (of ours), `synapse` (ours and a Synapse),
// and, to see whether a test asks for more than Synapse does, `synapses`.

import assert from "node:assert/strict";
import { afterEach, describe, test, before, after } from "node:test";

import { EventType } from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

import { eventually, stopClients, until } from "./clients.js";
import { LONG_MS, Person, meet, readAll, verify } from "./people.js";
import { startFederation } from "./server.js";

/** The servers of each layout, and which of them is killed while people talk. */
const LAYOUTS = {
    one: { kinds: ["myelin"], killed: 0 },
    two: { kinds: ["myelin", "myelin"], killed: 1 },
    synapse: { kinds: ["myelin", "synapse"], killed: 0 },
    synapses: { kinds: ["synapse", "synapse"], killed: 1 },
};
const WANTED = (process.env.LAYOUTS ?? "one").split(" ");

/** How many messages each of the two says. */
const MESSAGES = 100;

for (const layout of WANTED) {
    const { kinds, killed } = LAYOUTS[layout];
    describe(`with ${kinds.join(" and ")}`, () => {
        let federation;
        let servers;

        before(async () => {
            federation = await startFederation(kinds);
            servers = federation.servers;
        });

        afterEach(stopClients);

        after(async () => {
            for (const { code, log } of await federation.stop()) {
                assert.equal(code, 0, `the server stops in order when asked to; its log ends:\n${log}`);
            }
        });

        test("two people verify each other, talk over a crash, and one reads it all again on a new device", async (t) => {
            const alice = await Person.register(servers[0], "alice");
            const bob = await Person.register(servers.at(-1), "bob");
            const roomId = await meet(alice, bob);
            await verify(alice, bob, roomId);

            const said = [];
            const talk = async (person, name, from, to) => {
                for (let i = from; i < to; i++) {
                    said.push(`${name} ${i}`);
                    await person.say(roomId, `${name} ${i}`);
                }
            };
            const both = (from, to) => Promise.all([talk(alice, "alice", from, to), talk(bob, "bob", from, to)]);
            await both(0, MESSAGES / 2);
            for (const { crypto } of [alice, bob]) {
                await crypto.forceDiscardSession(roomId);
            }
            // Not more than a sync brings: what a client has sent itself hides a gap from it.
            const most = MESSAGES / 2 + 20;
            const meanwhile = both(MESSAGES / 2, most);
            await servers[killed].kill();
            await servers[killed].start();
            await meanwhile;
            for (const person of [alice, bob]) {
                await readAll(person, roomId, said);
            }
            // New sessions, too: the SDK gives a backup up that fails, and tries again when there is something new.
            for (const { crypto } of [alice, bob]) {
                await crypto.forceDiscardSession(roomId);
            }
            await both(most, MESSAGES);

            let checked = 0;
            for (const person of [alice, bob]) {
                const { sessions } = await readAll(person, roomId, said);
                assert.ok(sessions.size >= 4, `${sessions.size} sessions: two of each`);
                checked += said.length;
            }

            // Everything that Alice can read is in her backup.
            const keys = (await alice.crypto.exportRoomKeys()).length;
            await eventually(
                alice.client,
                "the backup has every key",
                async () => (await alice.client.http.authedRequest("GET", "/room_keys/version")).count === keys,
                LONG_MS,
            );
            await alice.client.stopClient();

            const fresh = await alice.onFreshDevice({ initialSyncLimit: 20 });
            const device = fresh.client.getDeviceId();
            await fresh.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
            const { imported, total } = await fresh.crypto.restoreKeyBackup();
            assert.equal(total, keys);
            assert.equal(imported, keys);
            const room = fresh.room(roomId);
            const create = () => fresh.events(roomId).some((event) => event.getType() === EventType.RoomCreate);
            for (let page = 0; page < 50 && !create(); page++) {
                await fresh.client.scrollback(room, 30);
            }
            await readAll(fresh, roomId, said);
            checked += said.length;

            // The new device is trusted by both, and knows whom its owner verified.
            const signed = async (person) =>
                (await person.crypto.getDeviceVerificationStatus(alice.id, device))?.crossSigningVerified;
            await eventually(fresh.client, "the device is signed", () => signed(fresh));
            await eventually(bob.client, "Bob sees that it is signed", () => signed(bob), LONG_MS);
            const status = await fresh.crypto.getUserVerificationStatus(bob.id);
            assert.ok(status.isCrossSigningVerified(), "Bob is verified");

            // And they go on talking.
            for (const [person, body] of [
                [bob, "bob again"],
                [fresh, "alice again"],
            ]) {
                said.push(body);
                await person.say(roomId, body);
            }
            for (const person of [fresh, bob]) {
                await readAll(person, roomId, said);
                checked += 2;
            }
            t.diagnostic(`${checked} messages checked, none undecryptable`);
        });

        test("a dehydrated device takes keys while nobody is logged in", async (t) => {
            const alice = await Person.register(servers[0], "alice", { backup: false });
            const bob = await Person.register(servers.at(-1), "bob");
            const roomId = await meet(alice, bob);
            assert.ok(await alice.crypto.isDehydrationSupported());
            await alice.crypto.startDehydration();
            // Bob knows of the device before he speaks, as a client that is online does.
            await eventually(
                bob.client,
                "Bob sees both devices",
                async () => (await bob.crypto.getUserDeviceInfo([alice.id], true)).get(alice.id)?.size === 2,
                LONG_MS,
            );
            await alice.client.logout(true);
            await eventually(
                bob.client,
                "Bob sees that one is left",
                async () => (await bob.crypto.getUserDeviceInfo([alice.id], true)).get(alice.id)?.size === 1,
                LONG_MS,
            );
            const said = [];
            for (let i = 0; i < 5; i++) {
                said.push(`bob ${i}`);
                await bob.say(roomId, `bob ${i}`);
                await bob.crypto.forceDiscardSession(roomId);
            }
            const fresh = await alice.onFreshDevice();
            const rehydrated = until(fresh.crypto, CryptoEvent.RehydrationCompleted, () => true);
            await fresh.crypto.startDehydration();
            await rehydrated;
            await readAll(fresh, roomId, said);
            t.diagnostic(`${said.length} messages checked, none undecryptable`);
        });
    });
}
