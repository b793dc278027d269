"""Two Myelin servers and a Synapse in the same rooms: whatever happens, all three end up with the same.

Every server makes rooms of several versions; people of all three meet there, and the tests go on in the same rooms, since
making them is what takes most of the time. In the environment, `TESTS`, a regular expression, chooses among the tests, and
`SERVERS` other servers: with `synapse synapse synapse` one sees whether a test asks for more than Synapse does, and with
`myelin myelin dendrite` how Dendrite fits in.
"""

import functools
import os
import re
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from servers import Authority, Dendrite, Gates, Myelin, Person, Refused, Server, Synapse

VERSIONS = os.environ.get("VERSIONS", "1 6 10 11 12").split()
# The first versions in which one can knock and, a bit later, enter with a membership of another room.
CLUB_VERSIONS = [version for version in VERSIONS if int(version) >= 8]
DEADLINE = float(os.environ.get("DEADLINE", "60"))
# How many rooms things happen in at once.
AT_ONCE = 5

directory = tempfile.TemporaryDirectory(prefix="myelin-federation-")
gates = Gates()
servers: list[Server] = []
people: list[Person] = []


def setUpModule() -> None:
    root = Path(directory.name)
    authority = Authority(root)
    classes = {"myelin": Myelin, "synapse": Synapse, "dendrite": Dendrite}
    wanted = os.environ.get("SERVERS", "myelin myelin synapse").split()
    for index, kind in enumerate(wanted):
        servers.append(classes[kind](root / str(index), authority, gates))
    for server, name in zip(servers, ["alice", "bob", "carol"]):
        people.append(Person(server, name))


def tearDownModule() -> None:
    for server in servers:
        server.stop()
    directory.cleanup()


def until(what: str, check, deadline: float = DEADLINE):
    """Waits until `check` gives a truthy value."""
    end, last, pause = time.monotonic() + deadline, None, 0.05
    while time.monotonic() < end:
        try:
            if value := check():
                return value
        except Refused as refused:
            last = refused
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    raise AssertionError(f"not within {deadline} s: {what}" + (f" (last answer: {last})" if last else ""))


def others(person: Person) -> list[Person]:
    return [other for other in people if other is not person]


def kinds(versions: list[str] = VERSIONS) -> list[tuple[str, Person]]:
    """All versions with all makers."""
    return [(version, maker) for version in versions for maker in people]


class Room:
    """A room, and since when everybody is in it, in milliseconds."""

    def __init__(self, version: str, maker: Person, room_id: str) -> None:
        self.version, self.maker, self.id = version, maker, room_id
        self.met = 0

    def __str__(self) -> str:
        return f"the room {self.id} of version {self.version} that {self.maker} has made"

    def see_membership(self, expected: dict[str, str | None], *observers: Person) -> None:
        for observer in observers or people:
            until(
                f"{observer} sees {expected} in {self}",
                lambda observer=observer: {user: observer.membership(self.id, user) for user in expected} == expected,
            )

    def all_are_in(self) -> None:
        self.see_membership({other.id: "join" for other in people})
        self.met = int(time.time() * 1000)

    def difference(self) -> str | None:
        """What the servers do not agree in, if anything.

        Synapse is held to the history since everybody was there: of what was before it sometimes leaves an event out.
        """
        states = [person.state(self.id) for person in people]
        for person, state in zip(people, states):
            if state != states[0]:
                keys = {key for key in state.keys() | states[0].keys() if state.get(key) != states[0].get(key)}
                details = {key: (states[0].get(key), state.get(key)) for key in keys}
                return f"{people[0]} and {person} differ in the state: {details}"
        histories = [person.history(self.id) for person in people]
        for person, history in zip(people, histories):
            strict = isinstance(person.server, Myelin) and isinstance(people[0].server, Myelin)
            here, there = (
                {key for key, event in events.items() if strict or event["origin_server_ts"] >= self.met}
                for events in (histories[0], history)
            )
            if here != there:
                return f"{people[0]} has {here - there} and {person} has {there - here}"
        return None

    def agree(self) -> dict[str, dict]:
        """Waits until all servers have the same state and the same history, and answers the latter."""
        last: list[str] = []

        def same() -> bool:
            last[:] = [text] if (text := self.difference()) else []
            return not last

        try:
            until("agreement", same)
        except AssertionError:
            raise AssertionError(f"{self} is not the same everywhere: {last}") from None
        return people[0].history(self.id)


@functools.cache
def _lock(version: str, maker: Person) -> threading.Lock:
    return threading.Lock()


_met: dict[tuple[str, Person], Room] = {}


def meet(version: str, maker: Person) -> Room:
    """The room of this version and maker that everybody is in; made when it is first asked for."""
    with _lock(version, maker):
        room = _met.get((version, maker))
        if room is None:
            room = Room(version, maker, maker.create(version))
            for person in others(maker):
                person.join(room.id, maker.server)
            room.all_are_in()
            _met[version, maker] = room
        return room


class Rooms(unittest.TestCase):
    """What happens in rooms in which all servers are. The tests run in the order of their names."""

    def setUp(self) -> None:
        gates.open()
        self._begun = time.monotonic()

    def tearDown(self) -> None:
        print(f"{time.monotonic() - self._begun:.0f} s ... ", end="", file=sys.stderr, flush=True)

    def everywhere(self, test, versions: list[str] = VERSIONS) -> None:
        """Runs a test with a version and the maker of a room, for all versions and makers, some at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = [(version, maker, pool.submit(test, version, maker)) for version, maker in kinds(versions)]
            for version, maker, outcome in outcomes:
                with self.subTest(version=version, maker=str(maker)):
                    outcome.result()

    def test_1_what_is_said_arrives_everywhere(self) -> None:
        self.everywhere(self._say)

    def _say(self, version: str, maker: Person) -> None:
        room = meet(version, maker)
        said = [person.say(room.id, f"I am {person}") for person in people]
        edits = [
            person.say(
                room.id,
                "* better",
                **{
                    "m.new_content": {"msgtype": "m.text", "body": "better"},
                    "m.relates_to": {"rel_type": "m.replace", "event_id": event},
                },
            )
            for person, event in zip(people, said)
        ]
        gone = [person.say(room.id, "I did not say this") for person in people]
        for person in people:
            until(f"{person} has all", lambda person=person: set(said + edits + gone) <= set(person.history(room.id)))
        redactions = [person.redact(room.id, event) for person, event in zip(people, gone)]
        topic = maker.put(room.id, "m.room.topic", {"topic": "All of us"})
        history = room.agree()
        self.assertLessEqual({*said, *edits, *gone, *redactions, topic}, set(history))
        for person in people:
            until(
                f"{person} has nothing left of what was redacted",
                lambda person=person: all(not person.history(room.id)[event]["content"] for event in gone),
            )

    def test_2_members_come_and_go(self) -> None:
        self.everywhere(self._come_and_go)

    def _come_and_go(self, version: str, maker: Person) -> None:
        room = meet(version, maker)
        kicked, banned = others(maker)
        since = banned.sync()["next_batch"]
        maker.act(room.id, "kick", user_id=kicked.id, reason="test")
        room.see_membership({kicked.id: "leave"}, maker, banned)
        maker.act(room.id, "ban", user_id=banned.id)
        room.see_membership({banned.id: "ban"}, maker)
        until(f"{banned} knows", lambda: room.id not in banned.ask("GET", "joined_rooms")["joined_rooms"])
        with self.assertRaises(Refused):
            banned.join(room.id, maker.server)
        maker.act(room.id, "unban", user_id=banned.id)
        maker.act(room.id, "invite", user_id=banned.id)
        until(f"{banned} is invited", lambda: room.id in banned.sync(since)["rooms"].get("invite", {}))
        banned.join(room.id, maker.server)
        kicked.join(room.id, maker.server)
        room.all_are_in()
        room.agree()

    def test_3_invitations_are_declined_and_taken(self) -> None:
        self.everywhere(self._invite)

    def _invite(self, version: str, maker: Person) -> None:
        taken, declined = others(maker)
        since = {guest: guest.sync()["next_batch"] for guest in (taken, declined)}
        room = Room(version, maker, maker.create(version, preset="private_chat", name="By invitation"))
        for guest in (taken, declined):
            maker.act(room.id, "invite", user_id=guest.id)
            invite = until(
                f"{guest} is invited",
                lambda guest=guest: guest.sync(since[guest])["rooms"].get("invite", {}).get(room.id),
            )
            shown = {event["type"] for event in invite["invite_state"]["events"]}
            self.assertLessEqual({"m.room.create", "m.room.name", "m.room.join_rules"}, shown)
        taken.join(room.id, maker.server)
        declined.act(room.id, "leave")
        room.see_membership({taken.id: "join", declined.id: "leave"}, maker, taken)
        with self.assertRaises(Refused):
            declined.join(room.id, maker.server)
        if version in CLUB_VERSIONS:
            self._enter_from(room, taken, declined)
            self._knock(room, taken, declined)
        self.assertEqual(maker.state(room.id), taken.state(room.id))

    def _enter_from(self, lobby: Room, member: Person, stranger: Person) -> None:
        """Members of one room enter another, and nobody else does."""
        maker = lobby.maker
        rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": lobby.id}]}
        rules = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
        room = Room(lobby.version, maker, maker.create(lobby.version, preset="private_chat", initial_state=rules))
        with self.assertRaises(Refused):
            stranger.join(room.id, maker.server)
        member.join(room.id, maker.server)
        room.see_membership({member.id: "join"}, maker, member)
        self.assertEqual(maker.state(room.id), member.state(room.id))

    def _knock(self, room: Room, member: Person, guest: Person) -> None:
        """Somebody knocks, is turned away, knocks again and is let in."""
        maker, via = room.maker, [room.maker.server.name]
        maker.put(room.id, "m.room.join_rules", {"join_rule": "knock"})
        for let_in in (False, True):
            guest.ask("POST", f"knock/{room.id}", {"reason": "test"}, server_name=via, via=via)
            room.see_membership({guest.id: "knock"}, maker, member)
            if not let_in:
                maker.act(room.id, "kick", user_id=guest.id)
                room.see_membership({guest.id: "leave"}, maker, member)
        since = guest.sync()["next_batch"]
        maker.act(room.id, "invite", user_id=guest.id)
        until(f"{guest} is invited", lambda: room.id in guest.sync(since)["rooms"].get("invite", {}))
        guest.join(room.id, maker.server)
        room.all_are_in()

    def test_4_receipts_and_typing_are_seen(self) -> None:
        room = meet(VERSIONS[-1], people[0])
        for person in people:
            since = person.sync()["next_batch"]
            event = person.say(room.id, "read this")
            relation = {"rel_type": "m.thread", "event_id": event}
            answer = person.say(room.id, "and this", **{"m.relates_to": relation})
            readers = others(person)
            for reader in readers:
                until(f"{reader} has it", lambda reader=reader: {event, answer} <= set(reader.history(room.id)))
                reader.ask("POST", f"rooms/{room.id}/receipt/m.read/{event}", {"thread_id": "main"})
                reader.ask("POST", f"rooms/{room.id}/receipt/m.read/{answer}", {"thread_id": event})
                reader.ask("PUT", f"rooms/{room.id}/typing/{reader.id}", {"typing": True, "timeout": 30_000})

            def seen() -> bool:
                joined = person.sync(since)["rooms"].get("join", {}).get(room.id, {})
                events = joined.get("ephemeral", {}).get("events", [])
                read: dict[str, dict] = {}
                typing: list[str] = []
                for one in events:
                    if one["type"] == "m.receipt":
                        read.update(one["content"])
                    elif one["type"] == "m.typing":
                        typing = one["content"]["user_ids"]
                return all(
                    reader.id in typing
                    and read.get(event, {}).get("m.read", {}).get(reader.id, {}).get("thread_id") == "main"
                    and read.get(answer, {}).get("m.read", {}).get(reader.id, {}).get("thread_id") == event
                    for reader in readers
                )

            until(f"{person} sees who has read what and who types", seen)
            for reader in readers:
                reader.ask("PUT", f"rooms/{room.id}/typing/{reader.id}", {"typing": False})

    def test_5_a_conflict_behind_a_partition_is_settled_alike(self) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rooms = list(pool.map(lambda kind: meet(*kind), kinds()))
            levels = dict(zip(rooms, pool.map(self._share_power, rooms)))
            self.addCleanup(gates.open)
            gates.shut()
            list(pool.map(lambda room: self._go_alone(room, levels[room]), rooms))
            gates.open()
            list(pool.map(lambda room: [person.say(room.id, "together again") for person in people], rooms))
        self.everywhere(lambda version, maker: meet(version, maker).agree())

    def _share_power(self, room: Room) -> dict:
        """Gives everybody the power of the room's maker, as far as that is given."""
        maker = room.maker
        levels = maker.get(room.id, "m.room.power_levels")
        deputies = others(maker)
        levels.setdefault("users", {}).update({person.id: 100 for person in deputies})
        maker.put(room.id, "m.room.power_levels", levels)
        for person in deputies:
            until(
                f"{person} has power in {room}",
                lambda person=person: person.get(room.id, "m.room.power_levels")["users"].get(person.id) == 100,
            )
        return levels

    def _go_alone(self, room: Room, levels: dict) -> None:
        """Everybody sets the same things, each differently, and turns on somebody else."""
        for number, person in enumerate(people):
            mine = {**levels, "users": dict(levels["users"]), "events_default": number, "invite": 10 + number}
            person.put(room.id, "m.room.power_levels", mine)
            person.put(room.id, "m.room.topic", {"topic": f"of {person.id}"})
            person.say(room.id, "alone")

    def test_6_nothing_is_lost_when_servers_are_killed(self) -> None:
        # Each version once, each server as maker.
        rooms = [meet(version, people[index % len(people)]) for index, version in enumerate(VERSIONS)]
        sent: dict[Room, set[str]] = {room: set() for room in rooms}
        stop = threading.Event()

        def talk(person: Person) -> None:
            number = 0
            while not stop.is_set():
                for room in rooms:
                    number += 1
                    try:
                        sent[room].add(person.say(room.id, f"{number} of {person.id}"))
                    except (OSError, Refused, ValueError):
                        pass  # Killed just now; what was not answered may or may not be there.
                    # Not more than the slowest of them takes in on a machine with two processors.
                    time.sleep(0.1)

        threads = [threading.Thread(target=talk, args=[person]) for person in people]
        for thread in threads:
            thread.start()
        try:
            for server in servers:
                time.sleep(2)
                server.kill()
                time.sleep(1)
                server.start()
            time.sleep(2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for room in rooms:
            for person in people:
                # Whoever missed the end of a conversation learns of it with the next event.
                sent[room].add(person.say(room.id, "the end"))
        for room in rooms:
            with self.subTest(room=str(room)):
                missing = sent[room] - set(room.agree())
                self.assertFalse(missing, f"{len(missing)} of {len(sent[room])} messages that were answered are missing")

    def test_7_a_room_is_upgraded(self) -> None:
        for maker in people:
            with self.subTest(maker=str(maker)):
                self._upgrade(meet(VERSIONS[len(VERSIONS) // 2], maker))

    def _upgrade(self, room: Room) -> None:
        maker, version = room.maker, VERSIONS[-1]
        try:
            new = maker.ask("POST", f"rooms/{room.id}/upgrade", {"new_version": version})["replacement_room"]
        except Refused as refused:
            if refused.errcode == "M_UNRECOGNIZED":
                return  # That server has no upgrades.
            raise
        for person in people:
            until(
                f"{person} is shown the way",
                lambda person=person: person.get(room.id, "m.room.tombstone").get("replacement_room") == new,
            )
        new_room = Room(version, maker, new)
        for person in others(maker):
            person.join(new, maker.server)
        new_room.all_are_in()
        new_room.agree()


if __name__ == "__main__":
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Rooms)
    chosen = re.compile(os.environ.get("TESTS", ""))
    suite = unittest.TestSuite(test for test in tests if chosen.search(test.id()))
    # As in a module's own run: the servers are started first and stopped last.
    outcome = unittest.TextTestRunner(verbosity=2).run(suite)
    broken = len({str(case).split(" (")[0] for case, _ in outcome.failures + outcome.errors})
    skipped = len(outcome.skipped)
    # Read by `cargo xtask test`.
    print(f"federation: {max(outcome.testsRun - broken - skipped, 0)} passed, {broken} failed, {skipped} skipped", flush=True)
    sys.exit(1 if broken else 0)
