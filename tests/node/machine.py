# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of a tree, booted by systemd-nspawn: its own systemd, process IDs, /run, /tmp and cgroups.

The host needs no systemd of its own; cgroup v2 is asked for explicitly, whatever the host has.  It
shares the host's network and kernel, so loop devices and FUSE are made available by their numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

BOOT_SECONDS: Final = 60
INSIDE: Final = Path(__file__).with_name("inside.py")
_REBOOT: Final = 133
_LOOPS: Final = 64
_ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PVE_PYBRIDGE_PERL_DIR": "/usr/share/perl5",  # the installed shim, not the testing kit's copy
}


class CannotBoot(Exception):
    """This host can't run a node; says why."""


class Failed(Exception):
    """Something in the node wasn't as it must be."""


class Machine:
    """One node, from the copy of its tree to the removal of it."""

    def __init__(
        self, tree: Path, binds: Sequence[Path] = (), env: Mapping[str, str] | None = None
    ):
        self._base = Path(tempfile.mkdtemp(prefix="pve-pybridge-node-", dir="/var/tmp"))
        self.root = self._base / "root"
        self._binds = binds
        self._env = {**_ENVIRONMENT, **(env or {})}
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        subprocess.run(["cp", "-a", "--reflink=auto", tree, self.root], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)

    def start(self) -> float:
        """Boot; returns the seconds it took."""
        started = time.monotonic()
        command = [
            *("systemd-nspawn", "--quiet", "--boot", "--directory", str(self.root)),
            *("--register=no", "--keep-unit", "--console=pipe", "--kill-signal=SIGRTMIN+3"),
            *("--capability=all", f"--machine=node-{os.getpid()}", "--link-journal=no"),
            *(f"--bind-ro={path}" for path in self._binds),
        ]
        with (self._base / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                command,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        while not self._is_up():
            if self._nspawn.poll() is not None or time.monotonic() - started > BOOT_SECONDS:
                tail = (self._base / "console").read_text(errors="replace").splitlines()[-3:]
                raise CannotBoot(" / ".join(tail) or f"not up after {BOOT_SECONDS} s")
            time.sleep(0.1)
        self._make_devices()
        return time.monotonic() - started

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        try:
            self._leader = int(children.read_text().split()[0])
            comm = Path(f"/proc/{self._leader}/comm").read_text().strip()
        except (OSError, IndexError, ValueError):
            return False
        if comm != "systemd":
            return False
        state = self.run("systemctl is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _make_devices(self) -> None:
        nodes = [("loop-control", "c 10 237"), ("fuse", "c 10 229")]
        nodes += [(f"loop{i}", f"b 7 {i}") for i in range(_LOOPS)]
        self.run("; ".join(f"[ -e /dev/{n} ] || mknod -m 600 /dev/{n} {kind}" for n, kind in nodes))

    def reboot(self) -> float:
        """Reboot by the node's own command; returns the seconds until it is up again."""
        assert self._nspawn is not None
        started = time.monotonic()
        self.run("systemctl reboot", check=False)
        status = self._nspawn.wait(BOOT_SECONDS)
        if status != _REBOOT:
            raise Failed(f"the node ended with status {status} instead of rebooting")
        self.start()
        return time.monotonic() - started

    def stop(self) -> None:
        """Power off; by force if it takes too long."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def run(
        self, script: str, *, check: bool = True, timeout: float = 300, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the node."""
        try:
            done = subprocess.run(
                [*self._enter(), "sh", "-c", script],
                env=self._env,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{script}: no end after {timeout:g} s") from None
        if check and done.returncode != 0:
            raise Failed(f"{script}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, script: str, **options: Any) -> str:
        """What a script prints, stripped."""
        return self.run(script, **options).stdout.strip()

    def inside(self, command: str, *args: object, timeout: float = 300) -> Any:
        """Run a command of ``inside.py`` in the node; its answer."""
        target = self.root / "root/inside.py"
        shutil.copyfile(INSIDE, target)
        call = f"python3 /root/inside.py {command}"
        done = self.run(call, stdin=json.dumps(args), timeout=timeout)
        return json.loads(done.stdout)

    def background(self, command: str, *args: object) -> subprocess.Popen[str]:
        """The same, running on; its answer is its standard output."""
        shutil.copyfile(INSIDE, self.root / "root/inside.py")
        process = subprocess.Popen(
            [*self._enter(), "python3", "/root/inside.py", command],
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(args) + "\n")
        process.stdin.close()
        process.stdin = None
        return process

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the node, from outside."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._leader), "-m", "-p", "-u", "-i", "-C", "-r", "-w"]
