"""What two people do with each other through matrix-nio, the SDK of most Python bots, unchanged, against a real server."""

import asyncio
import itertools
import sys
import unittest

from nio import (
    AsyncClient,
    AsyncClientConfig,
    InviteMemberEvent,
    JoinError,
    LoginResponse,
    MessageDirection,
    ReactionEvent,
    ReceiptEvent,
    RedactedEvent,
    RedactionEvent,
    RegisterResponse,
    RoomMessageText,
    RoomPreset,
    WhoamiError,
)

from server import Server

PASSWORD = "a password of some length"
DEADLINE = 30.0

server: Server
names = itertools.count(1)


def setUpModule() -> None:
    global server
    server = Server()


def tearDownModule() -> None:
    status = server.stop()
    assert status == 0, f"the server stops in order when asked to, and exited with {status}"


class Person:
    """A client that syncs, and what it has seen."""

    def __init__(self, user: str) -> None:
        config = AsyncClientConfig(encryption_enabled=False, max_limit_exceeded=0, max_timeouts=0)
        self.client = AsyncClient(server.base_url, user, config=config)
        self.seen: list = []
        self.receipts: list = []
        self.invites: list[str] = []
        self._moved = asyncio.Event()
        self._syncing: asyncio.Task | None = None
        kinds = (RoomMessageText, ReactionEvent, RedactionEvent)
        self.client.add_event_callback(self._on_event, kinds)
        self.client.add_event_callback(self._on_invite, (InviteMemberEvent,))
        self.client.add_ephemeral_callback(self._on_receipt, (ReceiptEvent,))

    @property
    def id(self) -> str:
        return self.client.user_id

    async def register(self) -> None:
        answer = await self.client.register(self.client.user, PASSWORD)
        assert isinstance(answer, RegisterResponse), answer

    async def start(self) -> None:
        """Syncs until `stop`; answers when the first sync is there."""
        await self.client.sync(timeout=0, full_state=True)
        self._syncing = asyncio.create_task(self.client.sync_forever(timeout=10_000, loop_sleep_time=0))

    async def stop(self) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        await self.client.close()

    async def say(self, room_id: str, body: str, **more: object) -> str:
        """Sends a text message and answers its event id."""
        return await self.send(room_id, "m.room.message", {"msgtype": "m.text", "body": body, **more})

    async def send(self, room_id: str, kind: str, content: dict) -> str:
        answer = await self.client.room_send(room_id, kind, content)
        assert hasattr(answer, "event_id"), answer
        return answer.event_id

    async def until(self, what: str, check):
        """Waits until `check` gives a truthy value, looking again whenever something arrives."""

        async def look():
            while not (value := check()):
                self._moved.clear()
                try:
                    await asyncio.wait_for(self._moved.wait(), 0.2)
                except asyncio.TimeoutError:
                    pass
            return value

        if self._syncing is not None and self._syncing.done():
            raise AssertionError(f"syncing ended: {self._syncing.exception()}")
        try:
            return await asyncio.wait_for(look(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{what} within {DEADLINE} s") from None

    def texts(self, room_id: str) -> list[str]:
        """The bodies of the messages seen in a room, in the order of their arrival."""
        return [event.body for room, event in self.seen if room == room_id and isinstance(event, RoomMessageText)]

    def find(self, kind: type, accept):
        """The first event of a kind that `accept` takes."""
        return next((event for _, event in self.seen if isinstance(event, kind) and accept(event)), None)

    async def _on_event(self, room, event) -> None:
        self.seen.append((room.room_id, event))
        self._moved.set()

    async def _on_invite(self, room, event) -> None:
        if event.state_key == self.id and event.membership == "invite":
            self.invites.append(room.room_id)
            self._moved.set()

    async def _on_receipt(self, _room, event) -> None:
        self.receipts.extend(event.receipts)
        self._moved.set()


class Conversation(unittest.IsolatedAsyncioTestCase):
    """Each test has two new users, Alice and Bob, in a room that she made and he was invited to."""

    async def asyncSetUp(self) -> None:
        number = next(names)
        self.alice = Person(f"alice-{number}")
        self.bob = Person(f"bob-{number}")
        for person in (self.alice, self.bob):
            self.addAsyncCleanup(person.stop)
            await person.register()
            await person.start()
        created = await self.alice.client.room_create(
            name="Two of us", preset=RoomPreset.private_chat, invite=[self.bob.id]
        )
        self.room = created.room_id
        await self.bob.until("an invitation", lambda: self.room in self.bob.invites)
        joined = await self.bob.client.join(self.room)
        self.assertNotIsInstance(joined, JoinError, joined)
        for person in (self.alice, self.bob):
            await person.until("both are joined", lambda person=person: self._joined(person) == {self.alice.id, self.bob.id})

    def _joined(self, person: Person) -> set[str]:
        room = person.client.rooms.get(self.room)
        return {user.user_id for user in room.users.values() if not user.invited} if room else set()

    async def test_two_users_meet_in_a_room(self) -> None:
        self.assertEqual(self.bob.client.rooms[self.room].name, "Two of us")
        answer = await self.bob.client.joined_rooms()
        self.assertEqual(answer.rooms, [self.room])
        self.assertEqual((await self.bob.client.whoami()).user_id, self.bob.id)

    async def test_fifty_messages_each_way_arrive_once_and_in_order(self) -> None:
        async def speak(person: Person, name: str) -> list[str]:
            sent = [f"{name} {number}" for number in range(50)]
            for body in sent:
                await person.say(self.room, body)
            return sent

        of_alice, of_bob = await asyncio.gather(speak(self.alice, "alice"), speak(self.bob, "bob"))
        for person in (self.alice, self.bob):
            await person.until("a hundred messages", lambda person=person: len(person.texts(self.room)) >= 100)
            texts = person.texts(self.room)
            self.assertEqual(len(texts), 100)
            self.assertEqual([text for text in texts if text.startswith("alice")], of_alice)
            self.assertEqual([text for text in texts if text.startswith("bob")], of_bob)
        self.assertEqual(self.alice.texts(self.room), self.bob.texts(self.room))

    async def test_an_edit_a_reaction_and_a_redaction_reach_the_other_side(self) -> None:
        first = await self.alice.say(self.room, "frist")
        await self.bob.until("the message", lambda: self.bob.find(RoomMessageText, lambda event: event.event_id == first))

        edit = await self.alice.say(
            self.room,
            "* first",
            **{
                "m.new_content": {"msgtype": "m.text", "body": "first"},
                "m.relates_to": {"rel_type": "m.replace", "event_id": first},
            },
        )
        seen = await self.bob.until(
            "the edit", lambda: self.bob.find(RoomMessageText, lambda event: event.event_id == edit)
        )
        self.assertEqual(seen.source["content"]["m.new_content"]["body"], "first")

        await self.bob.send(
            self.room,
            "m.reaction",
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "👍"}},
        )
        reaction = await self.alice.until("the reaction", lambda: self.alice.find(ReactionEvent, lambda _: True))
        self.assertEqual((reaction.reacts_to, reaction.key, reaction.sender), (first, "👍", self.bob.id))

        redacted = await self.alice.client.room_redact(self.room, first, reason="said too much")
        self.assertTrue(hasattr(redacted, "event_id"), redacted)
        redaction = await self.bob.until("the redaction", lambda: self.bob.find(RedactionEvent, lambda _: True))
        self.assertEqual((redaction.redacts, redaction.reason), (first, "said too much"))
        event = (await self.bob.client.room_get_event(self.room, first)).event
        self.assertIsInstance(event, RedactedEvent)
        self.assertEqual(event.source["content"], {})

    async def test_a_read_receipt_is_seen_by_the_other_and_clears_ones_own_count(self) -> None:
        message = await self.alice.say(self.room, "have you read this?")
        unread = lambda: self.bob.client.rooms[self.room].unread_notifications  # noqa: E731
        await self.bob.until("an unread message", lambda: unread() >= 1)

        answer = await self.bob.client.room_read_markers(self.room, message, read_event=message)
        self.assertEqual(type(answer).__name__, "RoomReadMarkersResponse", answer)
        receipt = await self.alice.until(
            "the receipt",
            lambda: next((r for r in self.alice.receipts if r.user_id == self.bob.id and r.event_id == message), None),
        )
        self.assertEqual(receipt.receipt_type, "m.read")
        await self.bob.until("nothing unread", lambda: unread() == 0)
        self.assertEqual(self.bob.client.rooms[self.room].fully_read_marker, message)

    async def test_history_pages_back_to_the_beginning_of_a_room(self) -> None:
        sent = [f"line {number}" for number in range(40)]
        for body in sent:
            await self.alice.say(self.room, body)
        # A second session of Bob's, which has seen nothing.
        again = Person(self.bob.id)
        self.addAsyncCleanup(again.stop)
        answer = await again.client.login(PASSWORD)
        self.assertIsInstance(answer, LoginResponse, answer)
        self.assertNotEqual(again.client.device_id, self.bob.client.device_id)
        first = await again.client.sync(timeout=0, sync_filter={"room": {"timeline": {"limit": 5}}})
        timeline = first.rooms.join[self.room].timeline
        self.assertTrue(timeline.limited)
        self.assertEqual([event.body for event in timeline.events], sent[-5:])

        found: list = list(reversed(timeline.events))
        token = timeline.prev_batch
        for _ in range(20):
            page = await again.client.room_messages(self.room, token, direction=MessageDirection.back, limit=10)
            found.extend(page.chunk)
            token = page.end
            if not token:
                break
        bodies = [event.body for event in reversed(found) if isinstance(event, RoomMessageText)]
        self.assertEqual(bodies, sent)
        self.assertEqual(found[-1].source["type"], "m.room.create")

    async def test_logging_out_ends_the_session_and_no_other(self) -> None:
        again = Person(self.bob.id)
        self.addAsyncCleanup(again.stop)
        answer = await again.client.login(PASSWORD)
        self.assertIsInstance(answer, LoginResponse, answer)
        token = again.client.access_token
        await again.client.logout()
        again.client.access_token = token
        refused = await again.client.whoami()
        self.assertIsInstance(refused, WhoamiError, refused)
        self.assertEqual(refused.status_code, "M_UNKNOWN_TOKEN")
        self.assertEqual((await self.bob.client.whoami()).user_id, self.bob.id)


if __name__ == "__main__":
    outcome = unittest.main(exit=False, verbosity=2).result
    broken = len(outcome.failures) + len(outcome.errors)
    skipped = len(outcome.skipped)
    # Read by `cargo xtask test`.
    print(f"matrix-nio: {outcome.testsRun - broken - skipped} passed, {broken} failed, {skipped} skipped", flush=True)
    sys.exit(1 if broken else 0)
