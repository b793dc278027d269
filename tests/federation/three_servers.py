"""Two Myelin servers and a Synapse in the same rooms: whatever happens, all three end up with the same.

Every server makes rooms of several versions; people of all three meet there. In the environment, `TESTS`, a regular
expression, chooses among the tests, and `SERVERS` other servers: with `synapse synapse synapse` one sees whether a test
asks for more than Synapse does.
"""

import functools
import os
import re
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from servers import Authority, Gates, Myelin, Person, Refused, Server, Synapse

VERSIONS = os.environ.get("VERSIONS", "1 6 10 11 12").split()
DEADLINE = float(os.environ.get("DEADLINE", "90"))

directory = tempfile.TemporaryDirectory(prefix="myelin-federation-")
gates = Gates()
servers: list[Server] = []
people: list[Person] = []


def setUpModule() -> None:
    root = Path(directory.name)
    authority = Authority(root)
    kinds = {"myelin": Myelin, "synapse": Synapse}
    wanted = os.environ.get("SERVERS", "myelin myelin synapse").split()
    for index, kind in enumerate(wanted):
        servers.append(kinds[kind](root / str(index), authority, gates))
    for server, name in zip(servers, ["alice", "bob", "carol"]):
        people.append(Person(server, name))


def tearDownModule() -> None:
    for server in servers:
        server.stop()
    directory.cleanup()


def until(what: str, check, deadline: float = DEADLINE):
    """Waits until `check` gives a truthy value."""
    end, last = time.monotonic() + deadline, None
    while time.monotonic() < end:
        try:
            if value := check():
                return value
        except Refused as refused:
            last = refused
        time.sleep(0.1)
    raise AssertionError(f"not within {deadline} s: {what}" + (f" (last answer: {last})" if last else ""))


def of_all_kinds(versions: list[str] = VERSIONS):
    """Runs a test with a version and the maker of a room, for all versions and makers."""

    def decorate(test):
        @functools.wraps(test)
        def run(self: unittest.TestCase) -> None:
            for version in versions:
                for maker in people:
                    with self.subTest(version=version, maker=str(maker)):
                        test(self, version, maker)

        return run

    return decorate


class Rooms(unittest.TestCase):
    """What happens in rooms in which all servers are."""

    def setUp(self) -> None:
        gates.open()
        # When everybody was in a room, in milliseconds.
        self.met: dict[str, int] = {}

    def meet(self, version: str, maker: Person, **more: object) -> str:
        """A room of everybody, made by one of them."""
        room = maker.create(version, **more)
        for person in people:
            if person is not maker:
                person.join(room, maker.server)
        self.all_are_in(room)
        return room

    def all_are_in(self, room: str) -> None:
        self.see_membership(room, {other.id: "join" for other in people})
        self.met[room] = int(time.time() * 1000)

    def see_membership(self, room: str, expected: dict[str, str | None], *observers: Person) -> None:
        for observer in observers or people:
            until(
                f"{observer} sees {expected} in {room}",
                lambda observer=observer: {user: observer.membership(room, user) for user in expected} == expected,
            )

    def agree(self, room: str) -> dict[str, dict]:
        """Waits until all servers have the same state and the same history, and answers the latter.

        Synapse is held to what came since everybody was there: of what was before it sometimes leaves an event out.
        """
        since = self.met.get(room, 0)

        def different() -> str | None:
            states = [person.state(room) for person in people]
            for person, state in zip(people, states):
                if state != states[0]:
                    keys = {key for key in state.keys() | states[0].keys() if state.get(key) != states[0].get(key)}
                    return f"{people[0]} and {person} differ in the state of {keys}"
            histories = [person.history(room) for person in people]
            for person, history in zip(people, histories):
                strict = isinstance(person.server, Myelin) and isinstance(people[0].server, Myelin)
                here, there = (
                    {key for key, event in events.items() if strict or event["origin_server_ts"] >= since}
                    for events in (histories[0], history)
                )
                if here != there:
                    return f"{people[0]} has {here - there} and {person} has {there - here}"
            return None

        end = time.monotonic() + DEADLINE
        while difference := different():
            if time.monotonic() > end:
                raise AssertionError(f"{room} is not the same everywhere: {difference}")
            time.sleep(0.3)
        return people[0].history(room)

    @of_all_kinds()
    def test_what_is_said_arrives_everywhere(self, version: str, maker: Person) -> None:
        room = self.meet(version, maker)
        said = [person.say(room, f"I am {person}") for person in people]
        edits = [
            person.say(
                room,
                "* better",
                **{
                    "m.new_content": {"msgtype": "m.text", "body": "better"},
                    "m.relates_to": {"rel_type": "m.replace", "event_id": event},
                },
            )
            for person, event in zip(people, said)
        ]
        gone = [person.say(room, "I did not say this") for person in people]
        for person in people:
            until(f"{person} has all", lambda person=person: set(said + edits + gone) <= set(person.history(room)))
        redactions = [person.redact(room, event) for person, event in zip(people, gone)]
        topic = maker.put(room, "m.room.topic", {"topic": "All of us"})
        history = self.agree(room)
        self.assertLessEqual({*said, *edits, *gone, *redactions, topic}, set(history))
        for person in people:
            until(
                f"{person} has nothing left of what was redacted",
                lambda person=person: all(not person.history(room)[event]["content"] for event in gone),
            )

    @of_all_kinds()
    def test_members_come_and_go(self, version: str, maker: Person) -> None:
        room = self.meet(version, maker)
        guests = [person for person in people if person is not maker]
        kicked, banned = guests
        maker.act(room, "kick", user_id=kicked.id, reason="test")
        self.see_membership(room, {kicked.id: "leave"}, maker, banned)
        maker.act(room, "ban", user_id=banned.id)
        self.see_membership(room, {banned.id: "ban"}, maker)
        until(f"{banned} knows", lambda: room not in banned.ask("GET", "joined_rooms")["joined_rooms"])
        with self.assertRaises(Refused):
            banned.join(room, maker.server)
        maker.act(room, "unban", user_id=banned.id)
        maker.act(room, "invite", user_id=banned.id)
        until(f"{banned} is invited", lambda: room in banned.sync()["rooms"].get("invite", {}))
        banned.join(room, maker.server)
        kicked.join(room, maker.server)
        self.see_membership(room, {person.id: "join" for person in people})
        self.agree(room)

    @of_all_kinds()
    def test_invitations_are_declined_and_taken(self, version: str, maker: Person) -> None:
        room = maker.create(version, preset="private_chat", name="By invitation")
        taken, declined = (person for person in people if person is not maker)
        for guest in (taken, declined):
            maker.act(room, "invite", user_id=guest.id)
            invite = until(
                f"{guest} is invited",
                lambda guest=guest: guest.sync()["rooms"].get("invite", {}).get(room),
            )
            shown = {event["type"] for event in invite["invite_state"]["events"]}
            self.assertLessEqual({"m.room.create", "m.room.name", "m.room.join_rules"}, shown)
        taken.join(room, maker.server)
        declined.act(room, "leave")
        self.see_membership(room, {taken.id: "join", declined.id: "leave"}, maker, taken)
        self.assertEqual(maker.state(room), taken.state(room))
        with self.assertRaises(Refused):
            declined.join(room, maker.server)

    @of_all_kinds(["10", "11", "12"])
    def test_knocks_are_heard(self, version: str, maker: Person) -> None:
        knock = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
        room = maker.create(version, preset="private_chat", initial_state=knock)
        let_in, turned_away = (person for person in people if person is not maker)
        for guest in (let_in, turned_away):
            guest.ask("POST", f"knock/{room}", {"reason": "test"}, server_name=[maker.server.name], via=[maker.server.name])
            self.see_membership(room, {guest.id: "knock"}, maker)
        maker.act(room, "kick", user_id=turned_away.id)
        maker.act(room, "invite", user_id=let_in.id)
        until(f"{let_in} is invited", lambda: room in let_in.sync()["rooms"].get("invite", {}))
        let_in.join(room, maker.server)
        self.see_membership(room, {let_in.id: "join", turned_away.id: "leave"}, maker, let_in)

    @of_all_kinds(["10", "11", "12"])
    def test_members_of_one_room_enter_another(self, version: str, maker: Person) -> None:
        member, stranger = (person for person in people if person is not maker)
        lobby = maker.create(version)
        member.join(lobby, maker.server)
        self.see_membership(lobby, {member.id: "join"}, maker)
        rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": lobby}]}
        rules = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
        room = maker.create(version, preset="private_chat", initial_state=rules)
        with self.assertRaises(Refused):
            stranger.join(room, maker.server)
        member.join(room, maker.server)
        self.see_membership(room, {member.id: "join"}, maker, member)
        self.assertEqual(maker.state(room), member.state(room))

    def test_receipts_and_typing_are_seen(self) -> None:
        room = self.meet("10", people[0])
        for person in people:
            event = person.say(room, "read this")
            others = [other for other in people if other is not person]
            for other in others:
                until(f"{other} has it", lambda other=other: event in other.history(room))
                other.ask("POST", f"rooms/{room}/receipt/m.read/{event}", {})
                other.ask("PUT", f"rooms/{room}/typing/{other.id}", {"typing": True, "timeout": 30_000})

            def seen() -> bool:
                events = person.sync()["rooms"]["join"][room]["ephemeral"]["events"]
                content = {event["type"]: event["content"] for event in events}
                readers = content.get("m.receipt", {}).get(event, {}).get("m.read", {})
                typing = content.get("m.typing", {}).get("user_ids", [])
                return all(other.id in readers and other.id in typing for other in others)

            until(f"{person} sees who has read and who types", seen)
            for other in others:
                other.ask("PUT", f"rooms/{room}/typing/{other.id}", {"typing": False})

    @of_all_kinds()
    def test_a_conflict_behind_a_partition_is_settled_alike(self, version: str, maker: Person) -> None:
        room = self.meet(version, maker)
        levels = maker.get(room, "m.room.power_levels")
        deputies = [person for person in people if person is not maker]
        levels.setdefault("users", {}).update({person.id: 100 for person in deputies})
        maker.put(room, "m.room.power_levels", levels)
        for person in deputies:
            until("the deputies have power", lambda person=person: person.get(room, "m.room.power_levels")["users"].get(deputies[0].id) == 100)
        gates.shut()
        self.addCleanup(gates.open)
        for number, person in enumerate(people):
            mine = {**levels, "users": dict(levels["users"]), "events_default": number, "invite": 10 + number}
            person.put(room, "m.room.power_levels", mine)
            person.put(room, "m.room.topic", {"topic": f"of {person.id}"})
            person.say(room, "alone")
        gates.open()
        for person in people:
            person.say(room, "together again")
        self.agree_on_state(room)

    def agree_on_state(self, room: str) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            states = [person.state(room) for person in people]
            if all(state == states[0] for state in states):
                return
            if time.monotonic() > end:
                keys = {key for state in states for key in state if any(other.get(key) != state[key] for other in states)}
                details = {key: [state.get(key) for state in states] for key in keys}
                raise AssertionError(f"{room} is not the same everywhere: {details}")
            time.sleep(0.3)

    @of_all_kinds(["10"])
    def test_a_room_is_upgraded(self, version: str, maker: Person) -> None:
        room = self.meet(version, maker)
        try:
            new = maker.ask("POST", f"rooms/{room}/upgrade", {"new_version": "11"})["replacement_room"]
        except Refused as refused:
            if refused.errcode == "M_UNRECOGNIZED":
                return  # That server has no upgrades.
            raise
        for person in people:
            until(
                f"{person} is shown the way",
                lambda person=person: person.get(room, "m.room.tombstone").get("replacement_room") == new,
            )
            if person is not maker:
                person.join(new, maker.server)
        self.all_are_in(new)
        self.agree(new)

    def test_nothing_is_lost_when_servers_are_killed(self) -> None:
        rooms = [self.meet("10", person) for person in people]
        sent: dict[str, set[str]] = {room: set() for room in rooms}
        stop = threading.Event()

        def talk(person: Person) -> None:
            number = 0
            while not stop.is_set():
                for room in rooms:
                    number += 1
                    try:
                        sent[room].add(person.say(room, f"{number} of {person.id}"))
                    except (OSError, Refused, ValueError):
                        time.sleep(0.05)  # Killed just now; what was not answered may or may not be there.

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
                sent[room].add(person.say(room, "the end"))
            history = self.agree(room)
            missing = sent[room] - set(history)
            self.assertFalse(missing, f"{len(missing)} of {len(sent[room])} messages that were answered are missing")


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
