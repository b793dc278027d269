// What two people do with each other through matrix-js-sdk: the client behind Element Web, unchanged, against a real server.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import {
    ClientEvent,
    EventType,
    MatrixEventEvent,
    RelationType,
    RoomEvent,
    RoomMemberEvent,
} from "matrix-js-sdk";

import { connect, eventually, logIn, register, start, stopClients, until } from "./clients.js";
import { startServer } from "./server.js";

let server;

before(async () => {
    server = await startServer();
});

afterEach(stopClients);

after(async () => {
    const { code, log } = await server.stop();
    assert.equal(code, 0, `the server stops in order when asked to; its log ends:\n${log}`);
});

/** Alice and Bob, both syncing, in a room that she made and he was invited to. */
async function pair() {
    const [alice, bob] = await Promise.all([register(server, "alice"), register(server, "bob")]);
    await Promise.all([start(alice), start(bob)]);
    const invited = until(
        bob,
        RoomMemberEvent.Membership,
        (_event, member) => member.userId === bob.getUserId() && member.membership === "invite",
    );
    const { room_id: roomId } = await alice.createRoom({
        name: "Two of us",
        preset: "private_chat",
        invite: [bob.getUserId()],
    });
    await invited;
    await bob.joinRoom(roomId);
    for (const client of [alice, bob]) {
        await eventually(client, "both are joined", () => client.getRoom(roomId)?.getJoinedMemberCount() === 2);
    }
    return { alice, bob, roomId };
}

/** The bodies of all messages in the live timeline of `roomId`, oldest first. */
function bodies(client, roomId) {
    return client
        .getRoom(roomId)
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === EventType.RoomMessage)
        .map((event) => event.getContent().body);
}

/** Sends `body` from `sender` and waits until `reader` has it; answers the reader's event. */
async function say(sender, reader, roomId, body) {
    const { event_id: eventId } = await sender.sendTextMessage(roomId, body);
    return eventually(reader, `"${body}" arrives`, () => reader.getRoom(roomId).findEventById(eventId));
}

test("two users meet in a room", async () => {
    const { alice, bob, roomId } = await pair();
    const room = bob.getRoom(roomId);
    assert.equal(room.name, "Two of us");
    assert.equal(room.getMyMembership(), "join");
    assert.equal(room.getCreator(), alice.getUserId());
    assert.equal((await bob.whoami()).user_id, bob.getUserId());
    assert.deepEqual((await bob.getJoinedRooms()).joined_rooms, [roomId]);
});

test("fifty messages each way arrive once and in order", async () => {
    const { alice, bob, roomId } = await pair();
    const speak = async (client, name) => {
        const sent = [];
        for (let i = 0; i < 50; i++) {
            const body = `${name} ${i}`;
            sent.push(body);
            await client.sendTextMessage(roomId, body);
        }
        return sent;
    };
    const [ofAlice, ofBob] = await Promise.all([speak(alice, "alice"), speak(bob, "bob")]);
    for (const client of [alice, bob]) {
        const all = await eventually(client, "a hundred messages", () => {
            const found = bodies(client, roomId);
            return found.length >= 100 && found;
        });
        assert.equal(all.length, 100);
        assert.deepEqual(
            all.filter((body) => body.startsWith("alice")),
            ofAlice,
        );
        assert.deepEqual(
            all.filter((body) => body.startsWith("bob")),
            ofBob,
        );
        await eventually(client, "every local echo meets the event that it stands for", () =>
            client
                .getRoom(roomId)
                .getLiveTimeline()
                .getEvents()
                .every((event) => event.status === null),
        );
        assert.equal(bodies(client, roomId).length, 100);
    }
    // What a client shows while it sends is its own guess; the server's order is the same for all.
    const views = [];
    for (const client of [alice, bob]) {
        const { chunk } = await client.createMessagesRequest(roomId, null, 200, "b");
        views.push(chunk.map((event) => event.event_id));
    }
    assert.deepEqual(views[0], views[1]);
});

test("an edit, a reaction and a redaction reach the other side", async () => {
    const { alice, bob, roomId } = await pair();
    const message = await say(alice, bob, roomId, "frist");
    const eventId = message.getId();

    await alice.sendEvent(roomId, EventType.RoomMessage, {
        "msgtype": "m.text",
        "body": "* first",
        "m.new_content": { msgtype: "m.text", body: "first" },
        "m.relates_to": { rel_type: RelationType.Replace, event_id: eventId },
    });
    await eventually(bob, "the edit", () => message.replacingEvent());
    assert.equal(message.getContent().body, "first");

    await bob.sendEvent(roomId, EventType.Reaction, {
        "m.relates_to": { rel_type: RelationType.Annotation, event_id: eventId, key: "👍" },
    });
    const annotations = await eventually(alice, "the reaction", () =>
        alice
            .getRoom(roomId)
            .relations.getChildEventsForEvent(eventId, RelationType.Annotation, EventType.Reaction)
            ?.getSortedAnnotationsByKey(),
    );
    assert.equal(annotations.length, 1);
    assert.equal(annotations[0][0], "👍");
    assert.deepEqual([...annotations[0][1]].map((event) => event.getSender()), [bob.getUserId()]);

    const gone = until(message, MatrixEventEvent.BeforeRedaction, () => true);
    await alice.redactEvent(roomId, eventId, undefined, { reason: "said too much" });
    await gone;
    await eventually(bob, "the redaction", () => message.isRedacted());
    const raw = await bob.fetchRoomEvent(roomId, eventId);
    assert.deepEqual(raw.content, {});
    assert.equal(raw.unsigned.redacted_because.content.reason, "said too much");
});

test("a read receipt is seen by the other and clears one's own count", async () => {
    const { alice, bob, roomId } = await pair();
    const message = await say(alice, bob, roomId, "have you read this?");
    await eventually(bob, "an unread message", () => bob.getRoom(roomId).getUnreadNotificationCount("total") >= 1);

    const seen = until(alice, RoomEvent.Receipt, (event) => JSON.stringify(event.getContent()).includes(bob.getUserId()));
    await bob.sendReadReceipt(message);
    await seen;
    assert.equal(alice.getRoom(roomId).getEventReadUpTo(bob.getUserId(), true), message.getId());
    await eventually(bob, "nothing unread", () => bob.getRoom(roomId).getUnreadNotificationCount("total") === 0);
});

test("a new session pages back to the beginning of a room", async () => {
    const { alice, bob, roomId } = await pair();
    const sent = [];
    for (let i = 0; i < 40; i++) {
        sent.push(`line ${i}`);
        await alice.sendTextMessage(roomId, `line ${i}`);
    }
    const again = await logIn(server, bob.getUserId());
    assert.notEqual(again.getDeviceId(), bob.getDeviceId());
    await start(again, { initialSyncLimit: 5 });
    const room = again.getRoom(roomId);
    assert.equal(bodies(again, roomId).length, 5);

    const create = () =>
        room
            .getLiveTimeline()
            .getEvents()
            .some((event) => event.getType() === EventType.RoomCreate);
    for (let page = 0; page < 20 && !create(); page++) {
        await again.scrollback(room, 10);
    }
    assert.ok(create(), "the first event of the room is reached");
    assert.deepEqual(bodies(again, roomId), sent);
});

test("logging out ends the session and no other", async () => {
    const { bob } = await pair();
    const second = await logIn(server, bob.getUserId());
    const deviceId = second.getDeviceId();
    const session = { userId: bob.getUserId(), deviceId, accessToken: second.getAccessToken() };
    assert.equal((await second.whoami()).device_id, deviceId);
    await second.logout(true);
    const late = connect(server, session);
    await assert.rejects(late.whoami(), (error) => error.httpStatus === 401 && error.errcode === "M_UNKNOWN_TOKEN");
    assert.equal((await bob.whoami()).user_id, bob.getUserId());
});
