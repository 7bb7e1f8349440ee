# SPDX-License-Identifier: Apache-2.0
"""A QMP client that shares no code with the server: 60 lines, blocking, for tests."""

from __future__ import annotations

import json
import socket
from typing import Any

Json = Any


class Error(Exception):
    """A command that failed."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(f"{error['class']}: {error['desc']}")
        self.error_class = error["class"]
        self.desc = error["desc"]
        self.hint = error.get("hint", "")


class Client:
    """One connection, negotiated unless told otherwise."""

    def __init__(self, path: str, *, negotiate: bool = True, oob: bool = False,
                 timeout: float = 60) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.events: list[dict[str, Json]] = []
        self.greeting = self.receive()
        self.next_id = 0
        if negotiate:
            self.run("qmp_capabilities", **({"enable": ["oob"]} if oob else {}))

    def close(self) -> None:
        """Hangs up."""
        self.lines.close()
        self.socket.close()

    def send(self, message: Json) -> None:
        """Sends one message, without a newline: the protocol needs none."""
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode())

    def receive(self) -> Json:
        """The next message, of whatever kind; EOFError once the server has hung up."""
        line = self.lines.readline()
        if not line:
            raise EOFError("the server has hung up")
        return json.loads(line)

    def reply(self) -> Json:
        """The next message that is no event; events are kept."""
        while "event" in (message := self.receive()):
            self.events.append(message)
        return message

    def run(self, command: str, **arguments: Json) -> Json:
        """Runs a command and returns what it returns; raises Error if it fails."""
        self.next_id += 1
        self.send({"execute": command, "id": self.next_id,
                   "arguments": {name.replace("_", "-"): v for name, v in arguments.items()}})
        reply = self.reply()
        assert reply["id"] == self.next_id, reply
        if "error" in reply:
            raise Error(reply["error"])
        return reply["return"]

    def wait_for(self, event: str) -> Json:
        """The first event of this name that was not asked for yet."""
        while True:
            for index, seen in enumerate(self.events):
                if seen["event"] == event:
                    return self.events.pop(index)
            message = self.receive()
            assert "event" in message, message
            self.events.append(message)
