# SPDX-License-Identifier: Apache-2.0
"""A private apt: the machine's own mirror, other suites, nothing installed."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast_lab.common import LabError, cache_dir, find_tool, run_tool

SUITES = ("trixie-backports", "sid")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Package:
    """One entry of the index."""

    name: str
    version: str
    size: int


def release_and_mirror() -> tuple[str, str]:
    """Returns this machine's release and from where its apt takes Debian's main component."""
    out = run_tool(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
                    "Created-By: Packages"]).decode()
    entries = [line.split() for line in out.splitlines() if len(line.split()) == 3]
    # The security archive carries no backports and no sid, so it cannot serve here.
    found = [(release, uri) for uri, release, component in entries
             if component == "main" and "security" not in release and not uri.startswith("cdrom:")]
    if not found:
        raise LabError("apt on this machine has no entry for Debian's main component, "
                       "so the lab knows no mirror to take its kernels from")
    return ([entry for entry in found if "-" not in entry[0]] or found)[0]


def mirror() -> str:
    """Returns the address from which this machine's apt takes Debian's main component."""
    return release_and_mirror()[1]


class PrivateApt:
    """apt with its whole state in the project's cache."""

    def __init__(self) -> None:
        self.root = cache_dir() / "apt"
        self.stamp = self.root / "checked"

    def _options(self) -> list[str]:
        root = self.root
        pairs = {
            "Dir::State": root, "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status", "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "Dir::Etc::sourcelist": root / "sources.list", "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-", "Dir::Etc::preferences": "-",
            "APT::Architecture": "amd64", "APT::Architectures": "amd64",
            # A mirror may lag behind the suite it mirrors. The signature is still checked, and what
            # is fetched runs in the lab only.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none", "Acquire::Retries": "2", "Acquire::http::Timeout": "20",
            # The cache may be in a home folder that apt's own user cannot read.
            "APT::Sandbox::User": "",
        }
        return [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")]

    def _prepare(self) -> None:
        for folder in ("lists/partial", "archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        if not KEYRING.is_file():
            raise LabError(f"{KEYRING} is missing; install the package debian-archive-keyring")
        uri = mirror()
        lines = [f"deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n" for suite in SUITES]
        (self.root / "sources.list").write_text("".join(lines), encoding="ascii")

    def index_age(self) -> float:
        """Returns the seconds since the index was last fetched (infinite when it never was)."""
        try:
            return time.time() - self.stamp.stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def update(self) -> None:
        """Fetches the index; apt refuses it when a signature does not verify."""
        self._prepare()
        command = [find_tool("apt-get"), *self._options(), "-qq",
                   "-o", "APT::Update::Error-Mode=any", "update"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        if done.returncode != 0:
            why = [line for line in done.stdout.splitlines() if line.startswith("E:")]
            raise LabError("the kernel index cannot be fetched: "
                           + (" ".join(why) or done.stdout.strip()))
        self.stamp.touch()

    def find(self, regex: str) -> list[Package]:
        """Returns the packages whose name matches, in the newest version of each."""
        found = run_tool(["apt-cache", *self._options(), "search", "--names-only", regex]).decode()
        names = [line.split()[0] for line in found.splitlines() if line]
        if not names:
            return []
        text = run_tool(["apt-cache", *self._options(), "show", "--no-all-versions",
                         *names]).decode()
        packages = []
        for entry in text.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Size): (.*)$", entry, re.MULTILINE))
            if len(fields) == 3:
                packages.append(Package(fields["Package"], fields["Version"], int(fields["Size"])))
        return packages

    def download(self, names: list[str], folder: Path) -> list[Path]:
        """Downloads packages into `folder`; apt checks each against the signed index."""
        run_tool(["apt-get", *self._options(), "-qq", "download", *names], cwd=folder)
        debs = sorted(folder.glob("*.deb"))
        if len(debs) != len(names):
            raise LabError(f"apt downloaded {len(debs)} of {len(names)} packages: {names}")
        return debs
