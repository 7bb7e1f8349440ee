# SPDX-License-Identifier: Apache-2.0
"""The QEMU process that is the lab, and the conversation with its agent."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import secrets
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast_lab.common import LabError, find_tool
from holdfast_lab.host_tsc import host_tsc_khz

_MIB = 1 << 20
_PR_SET_PDEATHSIG = 1
# Nested XSAVE is broken in TCG: a Linux guest inside would panic. Without XSAVE there must be no
# AVX either: Linux 7.3 trusts the AVX bit alone and dies of an invalid opcode in its crypto test.
_CPU = "max,xsave=off,avx=off,avx2=off,f16c=off,fma=off,vaes=off,vpclmulqdq=off,mpx=off,pku=off"


@dataclass(frozen=True)
class Machine:
    """What to boot and how large."""

    kernel: Path
    initrd: Path
    base: Path
    payload: Path
    debian: Path | None = None
    memory_mib: int = 8192
    # One CPU and thread=single. With two CPUs, half of all nested boots hung: the guest had taken a
    # timer interrupt with its interrupts off. The likely cause, from QEMU's source and not
    # proven with a patched one: VMRUN leaves the vector of an injected interrupt behind as an
    # exception, which is delivered again if another thread kicks the CPU before its next VM exit,
    # and thread=single kicks every 100 ms to change the CPU. Under thread=multi the lab's own
    # kernel died now and then. One CPU showed neither. Guests inside have as many as asked.
    cpus: int = 1
    thread: str = "single"
    append: str = ""


class LabDied(LabError):
    """The lab hung, panicked or ended by itself; its log tells more."""


def parse_size(text: str) -> int:
    """Returns MiB for '8G', '512M' or a plain number of MiB."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "M")
    if unit not in "MG" or not number.isdigit() or int(number) == 0:
        raise LabError(f"--memory {text}: a size such as 8G or 512M is needed")
    return int(number) * (1024 if unit == "G" else 1)


def command_line(machine: Machine, log: Path, control: int, terminal: int) -> list[str]:
    """Returns the QEMU command; `control` and `terminal` are descriptors of connected sockets."""
    half = machine.memory_mib // 2
    first = (machine.cpus + 1) // 2
    nodes = [(half, f"0-{first - 1}")]
    # The second NUMA node has memory even when there is no CPU left for it.
    nodes.append((machine.memory_mib - half,
                  f"{first}-{machine.cpus - 1}" if machine.cpus > 1 else ""))
    numa: list[str] = []
    for node, (size, cpus) in enumerate(nodes):
        where = f",cpus={cpus}" if cpus else ""
        numa += ["-object", f"memory-backend-ram,id=node{node},size={size}M",
                 "-numa", f"node,nodeid={node},memdev=node{node}{where}"]
    # A socket a node, as in a real machine; the kernel warns about any other picture.
    sockets = 2 if machine.cpus % 2 == 0 else 1
    append = ("console=ttyS0 panic=-1 mitigations=off tsc=reliable "
              f"tsc_early_khz={host_tsc_khz()} no_timer_check audit=0 apparmor=0 "
              f"rdinit=/init printk.time=1 log_buf_len=4M {machine.append}").strip()
    drive = "file={},if=none,id={},format=raw,readonly=on"
    debian: list[str] = []
    if machine.debian:
        # May be written to; what is written goes with the lab.
        debian = ["-drive", f"file={machine.debian},if=none,id=debian,format=raw,snapshot=on,"
                  "cache=unsafe,discard=unmap",
                  "-device", "virtio-blk-pci,drive=debian,serial=debian"]
    return [
        find_tool("qemu-system-x86_64"), "-name", "holdfast-lab", "-nodefaults", "-no-user-config",
        "-M", "q35", "-accel", f"tcg,thread={machine.thread}",
        "-cpu", _CPU, "-smp", f"{machine.cpus},sockets={sockets}",
        "-m", f"{machine.memory_mib}M", *numa,
        "-display", "none", "-no-reboot", "-nic", "none",
        "-kernel", str(machine.kernel), "-initrd", str(machine.initrd), "-append", append,
        "-serial", f"file:{log}",
        "-drive", drive.format(machine.base, "base"), "-device", "virtio-blk-pci,drive=base",
        "-drive", drive.format(machine.payload, "payload"),
        "-device", "virtio-blk-pci,drive=payload", *debian,
        "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=control,fd={control}",
        "-device", "virtserialport,chardev=control,name=holdfast.control",
        "-chardev", f"socket,id=terminal,fd={terminal}",
        "-device", "virtconsole,chardev=terminal",
    ]


def _die_with_parent() -> None:
    """Makes the kernel end QEMU when the lab's own process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Lab:
    """A running lab. Use it as a context manager: leaving ends QEMU."""

    def __init__(self, machine: Machine, log: Path, boot_timeout: float) -> None:
        self.log = log
        self.started = time.monotonic()
        self.control, control = socket.socketpair()
        self.terminal, terminal = socket.socketpair()
        command = command_line(machine, log, control.fileno(), terminal.fileno())
        self._errors = open(f"{log}.qemu", "w+b")  # pylint: disable=consider-using-with
        with control, terminal:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
                pass_fds=(control.fileno(), terminal.fileno()), preexec_fn=_die_with_parent)
        self._buffer = b""
        self._silence: float | None = None
        self._heard = self.started
        try:
            self._until_mark("ready", boot_timeout, lambda data: None, "booting")
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - self.started

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends QEMU; its disks are read-only, so there is nothing to lose."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for handle in (self.control, self.terminal, self._errors):
            handle.close()

    def run(self, script: str, timeout: float | None, sink: Callable[[bytes], None],
            silence: float | None = None) -> int:
        """Runs a shell script in the lab, hands its output to `sink`; returns its exit status.

        It may take `timeout` seconds, and print nothing for `silence` seconds.
        """
        self._silence = silence
        return self._until_mark(self._send("run", script), timeout, sink, "running a command")

    def _send(self, verb: str, script: str) -> str:
        token = secrets.token_hex(16)
        encoded = base64.b64encode(script.encode()).decode()
        self.control.sendall(f"{verb} {token} {encoded}\n".encode())
        return token

    def run_on_terminal(self, script: str, stdin: int, stdout: int, size: Callable[[], str]) -> int:
        """Runs a script on the lab's terminal, joined to ours. `size` gives 'ROWS COLUMNS'."""
        resized = [True]
        previous = signal.signal(signal.SIGWINCH, lambda *_: resized.__setitem__(0, True))
        token = ""
        watch: dict[int, Callable[[], None]] = {
            self.terminal.fileno(): lambda: _copy(self.terminal.recv(65536), stdout)}

        def typed() -> None:
            data = os.read(stdin, 4096)
            self.terminal.sendall(data or b"\x04")
            if not data:
                del watch[stdin]

        def pending() -> None:
            if resized[0]:
                resized[0] = False
                self.control.sendall(f"size {size()}\n".encode())

        watch[stdin] = typed
        pending()
        token = self._send("tty", script)
        try:
            return self._until_mark(token, None, lambda data: _copy(data, stdout), "the terminal",
                                    watch, pending)
        finally:
            with contextlib.suppress(OSError):
                self.terminal.setblocking(False)
                _copy(self.terminal.recv(_MIB), stdout)
            signal.signal(signal.SIGWINCH, previous)

    def _until_mark(self, token: str, timeout: float | None, sink: Callable[[bytes], None],
                    doing: str, watch: dict[int, Callable[[], None]] | None = None,
                    tick: Callable[[], None] = lambda: None) -> int:
        """Reads output until the end mark of `token`; returns the status that stands in it."""
        mark = b"\x00" + token.encode() + b" "
        self._heard = time.monotonic()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            start = self._buffer.find(mark)
            end = self._buffer.find(b"\n", start) if start >= 0 else -1
            if end >= 0:
                sink(self._buffer[:start])
                status = int(self._buffer[start + len(mark):end])
                self._buffer = self._buffer[end + 1:]
                return status
            if start < 0:
                # Hold back only what may be the beginning of the mark.
                cut = self._buffer.rfind(b"\x00", max(0, len(self._buffer) - len(mark)))
                cut = len(self._buffer) if cut < 0 else cut
                if cut:
                    sink(self._buffer[:cut])
                    self._buffer = self._buffer[cut:]
            tick()
            self._wait(deadline, doing, watch or {})

    def _wait(self, deadline: float | None, doing: str,
              watch: dict[int, Callable[[], None]]) -> None:
        """Waits for output, for input, or for the lab's end."""
        if deadline is not None and time.monotonic() >= deadline:
            raise LabDied(f"the lab was stopped: {doing} took longer than allowed")
        if self._silence is not None and time.monotonic() - self._heard >= self._silence:
            raise LabDied(f"the lab was stopped: nothing was heard for {self._silence:.0f} s")
        with selectors.DefaultSelector() as selector:
            selector.register(self.control, selectors.EVENT_READ)
            for fd in list(watch):
                selector.register(fd, selectors.EVENT_READ)
            left = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
            ready = selector.select(left)
        for key, _ in ready:
            if key.fileobj is not self.control:
                watch[key.fd]()
                continue
            try:
                data = self.control.recv(_MIB)
            except ConnectionResetError:
                data = b""
            if not data:
                self.process.wait()
                raise LabDied(self._last_words(doing))
            self._heard = time.monotonic()
            self._buffer += data

    def _last_words(self, doing: str) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return (f"the lab ended by itself while {doing} (QEMU's status {self.process.returncode})"
                + (f"; QEMU said: {said}" if said else ""))


def _copy(data: bytes, fd: int) -> None:
    while data:
        data = data[os.write(fd, data):]
