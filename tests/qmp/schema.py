# SPDX-License-Identifier: Apache-2.0
"""Holds commands, replies and events against what query-qmp-schema says of them."""

from __future__ import annotations

from typing import Any

Json = Any

_BUILTIN = {"string": str, "boolean": bool, "int": int, "number": (int, float),
            "null": type(None)}


class Mismatch(AssertionError):
    """Something that the schema does not allow."""


class Schema:
    """The answer to query-qmp-schema, to be asked questions."""

    def __init__(self, infos: list[dict[str, Json]]) -> None:
        self.entries = {info["name"]: info for info in infos}
        if len(self.entries) != len(infos):
            raise Mismatch("a name comes twice")

    def of_kind(self, kind: str) -> list[str]:
        """The names of all commands, events, enums …"""
        return sorted(name for name, info in self.entries.items() if info["meta-type"] == kind)

    def check_arguments(self, command: str, arguments: Json) -> None:
        """The arguments of a command."""
        self.check(self.entries[command]["arg-type"], arguments, command)

    def check_result(self, command: str, result: Json) -> None:
        """What a command returned."""
        self.check(self.entries[command]["ret-type"], result, command)

    def check_event(self, event: dict[str, Json]) -> None:
        """A whole event."""
        info = self.entries.get(event["event"])
        if info is None or info["meta-type"] != "event":
            raise Mismatch(f"no such event: {event}")
        if set(event) - {"event", "timestamp", "data"}:
            raise Mismatch(f"members nobody knows: {event}")
        stamp = event["timestamp"]
        if set(stamp) != {"seconds", "microseconds"} or not 0 <= stamp["microseconds"] < 1000000:
            raise Mismatch(f"no time: {event}")
        self.check(info["arg-type"], event.get("data", {}), event["event"])

    def check_closed(self) -> None:
        """Every type that is named is described, and every description is reachable."""
        used = set()
        for name, info in self.entries.items():
            refs = [info.get("arg-type"), info.get("ret-type"), info.get("element-type")]
            refs += [m["type"] for m in info.get("members", []) if "type" in m]
            refs += [v["type"] for v in info.get("variants", [])]
            for ref in filter(None, refs):
                used.add(ref)
                if ref not in self.entries:
                    raise Mismatch(f"{name} uses {ref}, which is nowhere")
        unused = [name for name, info in self.entries.items()
                  if name not in used and info["meta-type"] not in ("command", "event")]
        if unused:
            raise Mismatch(f"used by nobody: {unused}")

    def check(self, type_name: str, value: Json, where: str) -> None:
        """Raises Mismatch unless the value is of the type."""
        info = self.entries[type_name]
        kind = info["meta-type"]
        if kind == "builtin":
            self._check_builtin(info["json-type"], value, where)
        elif kind == "enum":
            if value not in info["values"]:
                raise Mismatch(f"{where}: {value!r} is not one of {info['values']}")
        elif kind == "array":
            if not isinstance(value, list):
                raise Mismatch(f"{where}: {value!r} is no array")
            for index, element in enumerate(value):
                self.check(info["element-type"], element, f"{where}[{index}]")
        elif kind == "alternate":
            if not any(self._is(member["type"], value) for member in info["members"]):
                raise Mismatch(f"{where}: {value!r} is none of {info['members']}")
        else:
            self._check_object(info, value, where)

    def _is(self, type_name: str, value: Json) -> bool:
        try:
            self.check(type_name, value, "")
        except Mismatch:
            return False
        return True

    @staticmethod
    def _check_builtin(json_type: str, value: Json, where: str) -> None:
        if json_type == "value":
            return
        right = isinstance(value, _BUILTIN[json_type])
        if isinstance(value, bool) and json_type != "boolean":
            right = False
        if not right:
            raise Mismatch(f"{where}: {value!r} is no {json_type}")

    def _check_object(self, info: dict[str, Json], value: Json, where: str) -> None:
        if not isinstance(value, dict):
            raise Mismatch(f"{where}: {value!r} is no object")
        members = list(info["members"])
        if "tag" in info:
            chosen = [v["type"] for v in info["variants"] if v["case"] == value.get(info["tag"])]
            if len(chosen) != 1:
                raise Mismatch(f"{where}: no variant for {value.get(info['tag'])!r}")
            members += self.entries[chosen[0]]["members"]
        for member in members:
            name = member["name"]
            if name in value:
                self.check(member["type"], value[name], f"{where}.{name}")
            elif "default" not in member:
                raise Mismatch(f"{where}: '{name}' is missing in {value}")
        extra = set(value) - {member["name"] for member in members}
        if extra:
            raise Mismatch(f"{where}: {sorted(extra)} is nobody's")
