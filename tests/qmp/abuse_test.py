# SPDX-License-Identifier: Apache-2.0
"""Clients that misbehave, many clients, long sessions, and every way to connect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import unittest
from typing import Iterator

from client import Client, Error
from machine import HOLDFAST, GUESTS, LONG, PATIENCE, SANITIZED, Machine

_MIB = 1 << 20
# A session's input, output and events are bounded well below this.
_MOST_GROWTH = 8 * _MIB


class Abuse(unittest.TestCase):
    """Each test ends with: the monitor serves others, and costs no more memory than before."""

    def setUp(self) -> None:
        self.machine = self.enterContext(Machine("-serial", "null", commands="e"))
        self.witness = self.machine.client()
        self.addCleanup(self.witness.close)
        self.witness.run("cont")
        self.memory = self.machine.memory()
        self.descriptors = self.machine.descriptors()

    def is_well(self) -> None:
        """The guest runs, the monitor answers, and nothing is left of who misbehaved."""
        self.settle()
        self.assertEqual(self.witness.run("query-status")["status"], "running")
        self.assertEqual(self.machine.descriptors(), self.descriptors)
        if not SANITIZED:
            self.assertLess(self.machine.memory(), self.memory + _MOST_GROWTH)

    def last_words(self, client: Client) -> str:
        """The error that the client gets before it is hung up on."""
        error = client.reply()["error"]
        with self.assertRaises((EOFError, ConnectionResetError)):
            client.receive()
        client.close()
        return f"{error['class']}: {error['desc']}"

    def test_100_mb_without_a_newline(self) -> None:
        for start in (b"", b'{"execute": "', b'{"a": ['):
            with self.subTest(start=start):
                client = self.machine.client()
                client.send(start)
                try:
                    for _ in range(100):
                        client.send(b"1" * _MIB)
                    self.fail("all of it was taken")
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.assertEqual(self.last_words(client),
                                 "GenericError: JSON token size limit exceeded")
                self.is_well()

    def test_nesting_without_end(self) -> None:
        client = self.machine.client()
        client.send(b"[" * 5000 + b"]" * 5000)
        self.assertEqual(client.reply()["error"]["desc"], "JSON nesting depth limit exceeded")
        client.run("query-status")
        client.close()
        self.is_well()

    def test_half_a_message(self) -> None:
        for text in (b'{"execute": "query-', b"{", b'{"execute": "stop", "arguments": {'):
            with self.subTest(text=text):
                gone = self.machine.client()
                gone.send(text)
                gone.close()
                client = self.machine.client()
                client.send(text)
                client.socket.shutdown(socket.SHUT_WR)
                self.assertEqual(self.last_words(client), "GenericError: JSON parse error, "
                                                          "the input ends inside a message")
        self.is_well()

    def test_invalid_utf8(self) -> None:
        for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
            with self.subTest(bad=bad):
                client = self.machine.client()
                client.send(b'{"execute": "query-' + bad + b'"}')
                self.assertEqual(self.last_words(client),
                                 "GenericError: JSON parse error, invalid UTF-8")
        self.is_well()

    def test_what_was_asked_before_hanging_up_is_done(self) -> None:
        client = self.machine.client()
        client.send(b'{"execute": "query-status"}{"execute": "stop"}')
        client.close()
        self.witness.wait_for("STOP")
        self.witness.run("cont")
        self.is_well()

    def test_a_client_that_never_reads_stalls_nobody(self) -> None:
        client = self.machine.client()
        client.socket.setblocking(False)
        sent = 0
        request = b'{"execute": "query-qmp-schema"}\n'
        try:
            while sent < 100 * _MIB:
                sent += client.socket.send(request * 1000)
                self.witness.run("query-status")
        except BlockingIOError:
            pass
        self.assertLess(sent, 10 * _MIB)
        if not SANITIZED:
            self.assertLess(self.machine.memory(), self.memory + _MOST_GROWTH)
        rounds = 3000
        for _ in range(rounds):
            self.witness.run("stop")
            self.witness.run("cont")
        self.witness.events.clear()
        # It reads after all: whole replies and events, and how many events it has missed.
        client.socket.setblocking(True)
        client.socket.settimeout(PATIENCE)
        seen = lost = 0
        while seen + lost < 2 * rounds:
            message = client.receive()
            if message.get("event") == "HOLDFAST_EVENTS_LOST":
                lost += message["data"]["count"]
            elif "event" in message:
                seen += 1
        self.assertEqual(seen + lost, 2 * rounds)
        self.assertGreater(seen, 0)
        self.assertGreater(lost, 0)
        client.close()
        self.witness.run("query-status")
        self.is_well()

    def test_a_client_that_hangs_up_without_reading(self) -> None:
        for _ in range(20):
            client = self.machine.client()
            client.send(b'{"execute": "query-qmp-schema"}' * 50)
            client.close()
        # Their requests come before this one's answer only if they were connected before.
        latest = self.machine.client()
        latest.run("query-status")
        latest.close()
        self.is_well()

    def settle(self) -> None:
        """Asks until what others left behind is worked off."""
        for _ in range(20000):
            self.witness.run("query-status")
            if self.machine.descriptors() == self.descriptors:
                return

    def test_many_clients_at_once(self) -> None:
        most = 64 - 2  # the witness, and the machine's own connection
        clients = [self.machine.client() for _ in range(most)]
        refused = Client(self.machine.path, negotiate=False, timeout=PATIENCE)
        self.assertEqual(refused.greeting["error"]["desc"], "there are 64 clients already")
        refused.close()
        for number, client in enumerate(clients):
            client.send({"execute": "query-status", "id": number})
        for number, client in enumerate(clients):
            self.assertEqual(client.reply()["id"], number)
        self.witness.run("stop")
        for client in clients:
            client.wait_for("STOP")
        self.witness.run("cont")
        for client in clients:
            client.close()
        self.is_well()


class LongSessions(unittest.TestCase):
    """Repetition leaves nothing behind."""

    def repeat(self, machine: Machine, rounds: int, once: Iterator[None]) -> None:
        """Runs `once` so many times; memory and files are as before."""
        for _ in range(rounds // 10):  # first what is made once and kept
            next(once)
        memory, descriptors = machine.memory(), machine.descriptors()
        for _ in range(rounds):
            next(once)
        self.assertEqual(machine.descriptors(), descriptors)
        if not SANITIZED:
            self.assertLess(machine.memory(), memory + _MIB)

    def test_commands_leave_nothing_behind(self) -> None:
        names = ("query-status", "query-cpus-fast", "query-memdev", "query-version",
                 "query-chardev", "query-commands", "nosuch", "query-name")

        def once(client: Client) -> Iterator[None]:
            while True:
                for name in names:
                    try:
                        client.run(name)
                    except Error as error:
                        assert error.error_class == "CommandNotFound", error
                    yield

        with Machine() as machine:
            client = machine.client()
            self.repeat(machine, 100_000 if LONG else 4000, once(client))
            client.close()

    def test_objects_leave_nothing_behind(self) -> None:
        types = ("memory-backend-guest-memfd", "memory-backend-memfd", "memory-backend-ram")

        def once(client: Client) -> Iterator[None]:
            while True:
                for name in types:
                    client.run("object-add", qom_type=name, id="h0", size=2 * _MIB, prealloc=True)
                    client.run("object-del", id="h0")
                    yield

        with Machine() as machine:
            client = machine.client()
            self.repeat(machine, 10_000 if LONG else 300, once(client))
            client.close()

    def test_connections_leave_nothing_behind(self) -> None:
        def once(machine: Machine) -> Iterator[None]:
            while True:
                client = machine.client()
                client.run("query-qmp-schema")
                client.socket.shutdown(socket.SHUT_WR)
                assert client.lines.read() == b""
                client.close()
                yield

        with Machine() as machine:
            self.repeat(machine, 5000 if LONG else 200, once(machine))


class Transports(unittest.TestCase):
    """Every way to be connected."""

    def test_tcp_on_a_port_of_its_choice(self) -> None:
        with Machine("-qmp", "tcp::0,server=on,wait=off", server="null") as machine:
            # Only the connection that said "ready" can tell which port it became.
            machine.ready.settimeout(PATIENCE)
            lines = machine.ready.makefile("rb")
            lines.readline()
            machine.ready.sendall(b'{"execute": "qmp_capabilities"}{"execute": "query-chardev"}')
            lines.readline()
            names = [one["filename"] for one in json.loads(lines.readline())["return"]]
            lines.close()
            address, = (name for name in names if name.startswith("tcp:"))
            host, port = address.removeprefix("tcp:").removesuffix(",server=on").split(":")
            self.assertEqual(host, "127.0.0.1")
            with socket.create_connection((host, int(port)), PATIENCE) as connection:
                self.assertIn("QMP", json.loads(connection.makefile("rb").readline()))

    def test_a_chardev_with_qmp_and_one_with_the_human_monitor(self) -> None:
        with tempfile.TemporaryDirectory(prefix="holdfast-qmp-") as folder:
            control, human = f"{folder}/control", f"{folder}/human"
            with Machine("-chardev", f"socket,id=c0,path={control},server=on,wait=off",
                         "-mon", "chardev=c0,mode=control",
                         "-chardev", f"socket,id=c1,path={human},server=on,wait=off",
                         "-mon", "chardev=c1", server="null") as machine:
                # The last -mon is made after "ready" was said; the chardevs before.
                machine.ready.settimeout(PATIENCE)
                lines = machine.ready.makefile("rb")
                lines.readline()
                machine.ready.sendall(b'{"execute": "qmp_capabilities"}')
                lines.readline()
                lines.close()
                client = Client(control, timeout=PATIENCE)
                labels = [one["label"] for one in client.run("query-chardev")]
                self.assertLessEqual({"c0", "c1"}, set(labels))
                client.close()
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as prompt:
                    prompt.settimeout(PATIENCE)
                    prompt.connect(human)
                    prompt.sendall(b"info status\n")
                    seen = b""
                    while b"VM status: paused (prelaunch)" not in seen:
                        seen += prompt.recv(4096)

    def test_a_path_in_use_is_refused(self) -> None:
        with Machine() as machine:
            second = subprocess.run(
                [HOLDFAST, "-kernel", f"{GUESTS}/hello.elf", "-display", "none", "-qmp",
                 f"unix:{machine.path},server=on,wait=off"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
                check=False)
            self.assertEqual(second.returncode, 1)
            self.assertIn("a program listens on it already", second.stderr)
            machine.client().close()
            self.assertTrue(os.path.exists(machine.path))

    def test_a_server_that_waits_holds_the_start_until_a_client_comes(self) -> None:
        with tempfile.TemporaryDirectory(prefix="holdfast-qmp-") as folder:
            process = subprocess.Popen(
                [HOLDFAST, "-kernel", f"{GUESTS}/hello.elf", "-display", "none", "-S",
                 "-qmp", f"unix:{folder}/qmp,server=on"],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            self.assertIn("waiting for connection on: unix:", process.stderr.readline())
            client = Client(f"{folder}/qmp", timeout=PATIENCE)
            second = Client(f"{folder}/qmp", timeout=PATIENCE)
            second.run("quit")
            client.wait_for("SHUTDOWN")
            for one in (client, second):
                one.close()
            self.assertEqual(process.wait(PATIENCE), 0)
            process.stderr.close()

    def test_stdio_pretty(self) -> None:
        process = subprocess.Popen(
            [HOLDFAST, "-kernel", f"{GUESTS}/hello.elf", "-display", "none", "-S",
             "-qmp-pretty", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        output, _ = process.communicate(
            b'{"execute": "qmp_capabilities"}\n{"execute": "query-status"}{"execute": "quit"}',
            PATIENCE)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b'\r\n    "return": {\r\n        "running": false,', output)
        self.assertTrue(output.startswith(b'{\r\n    "QMP": {'), output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
