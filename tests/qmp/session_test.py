# SPDX-License-Identifier: Apache-2.0
"""Whole sessions: every command, every event, every error, held against the schema."""

from __future__ import annotations

import json
import os
import unittest
from typing import Any

from client import Client, Error, Json
from machine import Machine
from schema import Schema


class Session:
    """A client whose every command, reply and event must be as the schema says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.schema = Schema(client.run("query-qmp-schema"))
        self.ran: set[str] = set()

    def run(self, command: str, **arguments: Json) -> Json:
        """Runs a command that succeeds."""
        self.schema.check_arguments(command,
                                    {k.replace("_", "-"): v for k, v in arguments.items()})
        result = self.client.run(command, **arguments)
        self.schema.check_result(command, result)
        self.ran.add(command)
        return result

    def event(self, name: str) -> Json:
        """Waits for an event and returns its data."""
        event = self.client.wait_for(name)
        self.schema.check_event(event)
        return event.get("data", {})


class FullSession(unittest.TestCase):
    """One client that uses all there is."""

    def setUp(self) -> None:
        self.machine = self.enterContext(Machine("-smp", "2", "-name", "tiny", "-device",
                                                 "pvpanic", "-serial", "null", commands="e"))
        client = self.machine.client()
        self.addCleanup(client.close)
        self.session = Session(client)

    def fails(self, wanted: str, command: str, **arguments: Json) -> None:
        """Runs a command that must fail with `wanted`, "Class: desc"."""
        with self.assertRaises(Error) as caught:
            self.session.client.run(command, **arguments)
        self.assertEqual(str(caught.exception), wanted)

    def test_the_schema_is_closed_and_lists_what_there_is(self) -> None:
        run = self.session.run
        self.session.schema.check_closed()
        listed = sorted(one["name"] for one in run("query-commands"))
        self.assertEqual(listed, self.session.schema.of_kind("command"))
        self.session.schema.check_result("query-qmp-schema", run("query-qmp-schema"))
        for event in ("STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN", "GUEST_PANICKED"):
            self.assertIn(event, self.session.schema.of_kind("event"))

    def test_queries_tell_how_the_machine_was_made(self) -> None:
        run = self.session.run
        self.assertEqual(run("query-version")["qemu"]["major"], 11)
        self.assertEqual(run("query-name"), {"name": "tiny"})
        self.assertEqual(run("query-uuid")["UUID"], "00000000-0000-0000-0000-000000000000")
        self.assertEqual(run("query-status"), {"running": False, "status": "prelaunch"})
        self.assertEqual(run("query-kvm"), {"enabled": True, "present": True})
        cpus = run("query-cpus-fast")
        self.assertEqual([cpu["cpu-index"] for cpu in cpus], [0, 1])
        for cpu in cpus:
            self.assertTrue(os.path.exists(
                f"/proc/{self.machine.process.pid}/task/{cpu['thread-id']}"))
        self.assertEqual({one["qom-path"] for one in run("query-hotpluggable-cpus")},
                         {cpu["qom-path"] for cpu in cpus})
        self.assertEqual(run("query-machines")[0]["name"], "q35")
        self.assertFalse(run("query-current-machine")["wakeup-suspend-support"])
        self.assertEqual(run("query-memory-size-summary"),
                         {"base-memory": 32 << 20, "plugged-memory": 0})
        self.assertEqual(run("query-memory-devices"), [])
        self.assertEqual(run("query-iothreads"), [])
        self.assertEqual(run("query-sev"), {
            "enabled": False, "api-major": 0, "api-minor": 0, "build-id": 0, "state": "uninit",
            "sev-type": "sev", "policy": 0, "handle": 0})
        self.assertEqual(run("human-monitor-command", command_line="info sev"),
                         "SEV is not enabled\r\n")
        labels = [one["label"] for one in run("query-chardev")]
        self.assertEqual(sorted(labels), ["compat_monitor0", "compat_monitor1", "serial0"])

    def test_migrations_go_as_they_are_set(self) -> None:
        run = self.session.run
        run("migrate-set-parameters", downtime_limit=20, tls_hostname=None)
        self.assertEqual(run("query-migrate-parameters")["downtime-limit"], 20)
        run("migrate-set-capabilities",
            capabilities=[{"capability": "auto-converge", "state": True}])
        on = [one["capability"] for one in run("query-migrate-capabilities") if one["state"]]
        self.assertEqual(on, ["auto-converge"])
        self.fails("GenericError: Postcopy preempt requires postcopy-ram",
                   "migrate-set-capabilities",
                   capabilities=[{"capability": "postcopy-preempt", "state": True}])

    def test_descriptors_are_passed_and_closed(self) -> None:
        self.fails("GenericError: No file descriptor supplied via SCM_RIGHTS", "getfd", fdname="a")
        self.fails("GenericError: File descriptor named 'a' not found", "closefd", fdname="a")

    def test_memory_backends_come_and_go(self) -> None:
        run = self.session.run
        ram, = run("query-memdev")
        self.assertEqual((ram["id"], ram["guest-memfd"], ram["size"]), ("pc.ram", True, 32 << 20))
        run("object-add", qom_type="memory-backend-guest-memfd", id="h0", size=1 << 20,
            prealloc=True)
        added = {one["id"]: one for one in run("query-memdev", placement=True)}["h0"]
        self.assertEqual(added["placement"]["allocated"], 1 << 20)
        self.assertEqual(sum(node["bytes"] for node in added["placement"]["nodes"]), 1 << 20)
        self.assertIn({"name": "h0", "type": "child<memory-backend-guest-memfd>"},
                      run("qom-list", path="/objects"))
        self.assertIn({"name": "size", "type": "int"}, run("qom-list", path="h0"))
        self.assertEqual(run("qom-get", path="/objects/h0", property="size"), 1 << 20)
        self.assertEqual(run("qom-get", path="h0", property="type"), "memory-backend-guest-memfd")
        self.assertEqual(run("qom-get", path="/objects", property="h0"), "/objects/h0")
        run("qom-set", path="h0", property="dump", value=False)
        self.assertFalse(run("qom-get", path="h0", property="dump"))
        run("object-del", id="h0")
        self.assertEqual(len(run("query-memdev")), 1)

    def test_descriptions_of_confidential_guests_come_and_go(self) -> None:
        run = self.session.run
        run("object-add", qom_type="sev-snp-guest", id="sev0", cbitpos=51, reduced_phys_bits=1)
        run("object-add", qom_type="tdx-guest", id="td0",
            quote_generation_socket={"type": "vsock", "cid": "2", "port": "4050"})
        self.assertEqual(run("qom-get", path="/objects/sev0", property="policy"), 0x30000)
        self.assertEqual(run("qom-get", path="/objects/td0", property="sept-ve-disable"), True)
        for name in ("sev0", "td0"):
            run("object-del", id=name)

    def test_a_backend_that_cannot_be_made_leaves_nothing_behind(self) -> None:
        descriptors = self.machine.descriptors()
        for arguments in ({"mem_path": "/nowhere/x"}, {"mem_path": "/dev/null"}):
            with self.assertRaises(Error):
                self.session.client.run("object-add", qom_type="memory-backend-file", id="f0",
                                        size=1 << 20, **arguments)
            self.assertEqual([one["id"] for one in self.session.run("query-memdev")], ["pc.ram"])
        self.assertEqual(self.machine.descriptors(), descriptors)
        self.session.run("object-add", qom_type="memory-backend-file", id="f0", size=1 << 20,
                         mem_path=self.machine.file("memory"))
        self.session.run("object-del", id="f0")

    def test_the_memory_map_adds_up(self) -> None:
        memory_map = self.session.run("holdfast-query-memory-map")
        self.assertEqual(sum(cell["size"] for cell in memory_map["cells"]), 32 << 20)

    def test_types_and_properties_are_listed(self) -> None:
        run = self.session.run
        backends = run("qom-list-types", implements="memory-backend")
        self.assertIn({"name": "memory-backend-guest-memfd", "parent": "memory-backend"}, backends)
        self.assertIn({"name": "memory-backend", "parent": "object", "abstract": True},
                      run("qom-list-types", implements="memory-backend", abstract=True))
        for one in run("qom-list-types", abstract=True):
            run("qom-list-properties", typename=one["name"])
        ioport, = (one for one in run("device-list-properties", typename="pvpanic")
                   if one["name"] == "ioport")
        self.assertEqual(ioport["default-value"], 0x505)
        root = run("qom-list", path="/")
        self.assertIn({"name": "objects", "type": "child<container>"}, root)
        self.assertEqual(
            run("qom-get", path="/machine/unattached/device[1]", property="core-id"), 1)

    def test_errors_are_qemus(self) -> None:
        add = {"qom_type": "memory-backend-memfd", "id": "h0", "size": 1 << 20}
        self.session.run("object-add", **add)
        generic = "GenericError: "
        no_device = "DeviceNotFound: Device '/nope' not found"
        table: list[tuple[str, str, dict[str, Any]]] = [
            (generic + "attempt to add duplicate property 'h0' to object (type 'container')",
             "object-add", add),
            (generic + "Parameter 'size' is missing", "object-add",
             {"qom_type": "memory-backend-memfd", "id": "h1"}),
            (generic + "Parameter 'size' expects uint64", "object-add",
             {**add, "id": "h1", "size": "1M"}),
            (generic + "Parameter 'qom-type' does not accept value 'memory-backend-foo'",
             "object-add", {**add, "qom_type": "memory-backend-foo"}),
            (generic + "Parameter 'bogus' is unexpected", "object-add",
             {**add, "id": "h1", "bogus": 1}),
            (generic + "Parameter 'id' expects an identifier", "object-add", {**add, "id": "1x"}),
            (generic + "Cannot delete host memory backend 'pc.ram' which is mapped", "object-del",
             {"id": "pc.ram"}),
            (generic + "object 'zz' not found", "object-del", {"id": "zz"}),
            (generic + "SEV launch measurement is not available", "query-sev-launch-measure", {}),
            (generic + "Parameter 'reduced-phys-bits' is missing", "object-add",
             {"qom_type": "sev-snp-guest", "id": "s0"}),
            (generic + "parameter length of 1 not equal to 32", "object-add",
             {"qom_type": "sev-snp-guest", "id": "s0", "reduced_phys_bits": 1,
              "host_data": "AA=="}),
            (generic + "Parameter 'quote-generation-socket.path' is missing", "object-add",
             {"qom_type": "tdx-guest", "id": "t0", "quote_generation_socket": {"type": "unix"}}),
            (no_device, "qom-list", {"path": "/nope"}),
            (no_device, "qom-get", {"path": "/nope", "property": "x"}),
            (no_device, "qom-set", {"path": "/nope", "property": "x", "value": 1}),
            (generic + "Property 'memory-backend-memfd.nope' not found", "qom-get",
             {"path": "/objects/h0", "property": "nope"}),
            (generic + "cannot change property size of memory-backend-memfd ", "qom-set",
             {"path": "/objects/h0", "property": "size", "value": 1}),
            (generic + "cannot change property value", "qom-set",
             {"path": "/objects/h0", "property": "share", "value": False}),
            (generic + "Invalid parameter type for 'share', expected: boolean", "qom-set",
             {"path": "/objects/h0", "property": "share", "value": "x"}),
            ("DeviceNotFound: Class 'nope' not found", "qom-list-properties",
             {"typename": "nope"}),
            ("DeviceNotFound: Device 'nope' not found", "device-list-properties",
             {"typename": "nope"}),
            (generic + "Parameter 'typename' expects a non-abstract device type",
             "device-list-properties", {"typename": "memory-backend-ram"}),
            ("CommandNotFound: The command nosuch has not been found", "nosuch", {}),
            (generic + 'unknown event "nope"', "trace-event-get-state", {"name": "nope"}),
            (generic + 'unknown event "nope"', "trace-event-set-state",
             {"name": "nope", "enable": True}),
            (generic + "Parameter 'cpu-index' expects a CPU number", "memsave",
             {"val": 0, "size": 1, "filename": "/dev/null", "cpu_index": 2}),
            (generic + "Parameter 'cpu-index' expects a CPU number", "human-monitor-command",
             {"command_line": "info status", "cpu_index": -1}),
            (generic + "Could not open '/nowhere/x': No such file or directory", "pmemsave",
             {"val": 0, "size": 1, "filename": "/nowhere/x"}),
            (generic + "Invalid addr 0x0000000002000000/size 1 specified", "pmemsave",
             {"val": 32 << 20, "size": 1, "filename": "/dev/null"}),
        ]
        for wanted, command, arguments in table:
            with self.subTest(wanted):
                self.fails(wanted, command, **arguments)

    def test_memory_is_saved_by_either_address(self) -> None:
        physical, virtual = self.machine.file("physical"), self.machine.file("virtual")
        # The guest's first instruction is yet to come: no paging, or each page at its own address.
        self.session.run("pmemsave", val=0x100001, size=10000, filename=physical)
        self.session.run("memsave", val=0x100001, size=10000, filename=virtual)
        with open(physical, "rb") as one, open(virtual, "rb") as other:
            content = one.read()
            self.assertEqual(content, other.read())
        self.assertEqual(len(content), 10000)
        self.assertNotEqual(content.strip(b"\0"), b"")

    def test_trace_events_are_switched(self) -> None:
        run = self.session.run
        self.assertEqual(run("trace-event-get-state", name="kvm_run_exit"),
                         [{"name": "kvm_run_exit", "state": "disabled"}])
        run("trace-event-set-state", name="kvm_run_e*", enable=True)
        self.assertEqual(run("trace-event-get-state", name="kvm_run_exit")[0]["state"], "enabled")
        run("trace-event-set-state", name="kvm_run_exit", enable=False)

    def test_the_dirty_rate_is_measured(self) -> None:
        run = self.session.run
        self.assertEqual(run("query-dirty-rate")["status"], "unstarted")
        self.fails("GenericError: calc-time is out of range [100, 60000] milliseconds",
                   "calc-dirty-rate", calc_time=0)
        self.fails("GenericError: sample-pages is out of range [128, 16384]",
                   "calc-dirty-rate", calc_time=1, sample_pages=1)
        self.fails("GenericError: sample-pages is used only in page-sampling mode",
                   "calc-dirty-rate", calc_time=1, sample_pages=512, mode="dirty-bitmap")
        self.fails("GenericError: this virtual machine has no dirty rings",
                   "calc-dirty-rate", calc_time=1, mode="dirty-ring")
        self.assertEqual(run("query-dirty-rate")["status"], "unstarted")
        for mode in ("page-sampling", "dirty-bitmap"):
            run("calc-dirty-rate", calc_time=200, calc_time_unit="millisecond", mode=mode)
            while (info := run("query-dirty-rate", calc_time_unit="millisecond"))[
                    "status"] == "measuring":
                self.assertNotIn("dirty-rate", info)
            self.assertEqual((info["status"], info["mode"], info["calc-time"]),
                             ("measured", mode, 200))
            self.assertGreaterEqual(info["dirty-rate"], 0)

    def test_statistics_match_their_schemas(self) -> None:
        run = self.session.run
        run("cont")
        schemas = {(one["provider"], one["target"]): one["stats"]
                   for one in run("query-stats-schemas")}
        self.assertEqual(set(schemas), {(p, t) for p in ("kvm", "holdfast")
                                        for t in ("vm", "vcpu")})
        for target in ("vm", "vcpu"):
            for result in run("query-stats", target=target):
                wanted = [stat["name"] for stat in schemas[result["provider"], target]]
                self.assertEqual([stat["name"] for stat in result["stats"]], wanted)
        mine, = run("query-stats", target="vm",
                    providers=[{"provider": "holdfast", "names": ["ram-size", "ram-allocated"]}])
        values = {stat["name"]: stat["value"] for stat in mine["stats"]}
        self.assertEqual(values["ram-size"], 32 << 20)
        self.assertGreater(values["ram-allocated"], 0)
        self.assertLess(values["ram-allocated"], 32 << 20)
        one, = run("query-stats", target="vcpu", vcpus=["/machine/unattached/device[1]"],
                   providers=[{"provider": "holdfast"}])
        self.assertEqual(one["qom-path"], "/machine/unattached/device[1]")

    def test_the_human_monitor_answers(self) -> None:
        self.assertEqual(self.session.run("human-monitor-command", command_line="info status"),
                         "VM status: paused (prelaunch)\r\n")

    def test_the_host_makes_events(self) -> None:
        run, event = self.session.run, self.session.event
        run("cont")
        self.assertEqual(event("RESUME"), {})
        run("stop")
        self.assertEqual(event("STOP"), {})
        run("system_reset")
        self.assertEqual(event("RESET"), {"guest": False, "reason": "host-qmp-system-reset"})
        run("system_powerdown")
        self.assertEqual(event("POWERDOWN"), {})
        run("quit")
        self.assertEqual(event("SHUTDOWN"), {"guest": False, "reason": "host-qmp-quit"})
        self.assertEqual(self.machine.end(), 0)
        self.assertFalse(os.path.exists(self.machine.path), "the socket stays behind")


class GuestEvents(unittest.TestCase):
    """What the guest does to itself."""

    def test_the_guest_makes_events(self) -> None:
        shutdown = {"guest": True, "reason": "guest-shutdown"}
        panic = {"guest": True, "reason": "guest-panic"}
        reset = {"guest": True, "reason": "guest-reset"}
        for commands, options, wanted in (
                ("p", (), [("RESUME", {}), ("SHUTDOWN", shutdown)]),
                ("p", ("-no-shutdown",), [("SHUTDOWN", shutdown), ("STOP", {})]),
                ("r", (), [("RESET", reset), ("RESET", reset)]),
                ("r", ("-no-reboot",), [("SHUTDOWN", reset)]),
                ("c", (), [("GUEST_PANICKED", {"action": "poweroff"}), ("SHUTDOWN", panic)]),
                ("c", ("-no-shutdown",), [("GUEST_PANICKED", {"action": "pause"}), ("STOP", {})]),
        ):
            with self.subTest(commands=commands, options=options), \
                    Machine("-device", "pvpanic", *options, commands=commands) as machine:
                session = Session(machine.client())
                session.run("cont")
                for name, data in wanted:
                    self.assertEqual((name, session.event(name)), (name, data))
                session.client.close()


class Negotiation(unittest.TestCase):
    """What comes before and beside commands."""

    def test_out_of_band_commands_need_the_capability(self) -> None:
        with Machine() as machine:
            plain = machine.client()
            plain.send({"exec-oob": "query-status"})
            self.assertEqual(plain.reply()["error"]["desc"],
                             "QMP input member 'exec-oob' is unexpected")
            client = machine.client(oob=True)
            client.send(b'{"execute": "query-qmp-schema", "id": 1}'
                        b'{"exec-oob": "query-status", "id": 2}')
            self.assertEqual([client.reply()["id"], client.reply()["id"]], [2, 1])
            for one in (plain, client):
                one.close()

    def test_nothing_works_before_negotiation(self) -> None:
        with Machine() as machine:
            client = machine.client(negotiate=False)
            self.assertEqual(client.greeting["QMP"]["capabilities"], ["oob"])
            with self.assertRaises(Error) as caught:
                client.run("query-status")
            self.assertEqual(caught.exception.error_class, "CommandNotFound")
            client.run("qmp_capabilities")
            self.assertEqual(json.dumps(client.run("query-status")["running"]), "false")
            client.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
