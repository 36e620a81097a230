# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes of an experiment: servers forked ready, callers forked by Perl."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from bridge_util import Node
from pve_pybridge import manifest
from pve_pybridge.host import Host
from pve_pybridge.loader import load
from pve_pybridge.server import Server
from pve_pybridge.testing import perl
from wire_util import Client

FAULTY: Final = Path(__file__).resolve().parent.parent / "plugins" / "faulty.py"
CALLERS: Final = Path(__file__).resolve().parent / "callers.pl"
STOREID: Final = "s1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line that a caller wrote."""

    kind: str
    tag: str
    start: float
    end: float
    outcome: str

    @property
    def seconds(self) -> float:
        """How long the call took."""
        return self.end - self.start

    @property
    def error(self) -> str | None:
        """What the caller died with."""
        return self.outcome.removeprefix("error: ") if self.outcome.startswith("error: ") else None


class Farm:
    """A node with the faulty plugin; at most one server at a time."""

    def __init__(self, base: Path):
        self.node = Node(base)
        os.environ.update(self.node.env)
        plugin = load(str(FAULTY))
        text = json.dumps(manifest.build(plugin))
        (self.node.manifests / "faulty.json").write_text(text)
        self.host = Host(plugin)
        self.journal = base / "journal"
        self.volumes = base / "volumes"
        self.volumes.mkdir()
        self.gate = base / "gate"
        self.log = base / "server.log"
        self.node.run.mkdir(mode=0o700)
        self.path = self.node.run / "faulty.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(512)
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None
        """A server started by the command, for experiments that want that."""
        self._files = 0
        self._perl: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._perl is not None:
            assert self._perl.stdin is not None
            self._perl.stdin.close()
            self._perl.wait(10)
            assert self._perl.stdout is not None
            self._perl.stdout.close()
        self.listener.close()
        self.node.__exit__(kind, err, tb)

    def scfg(self, mode: str = "", **options: object) -> dict[str, Any]:
        """A section with these options of the plugin."""
        given = {f"faulty-{key}": str(value) for key, value in options.items()}
        return {"type": "faulty", "content": {"images": 1}, "faulty-mode": mode, **given}

    # --- servers -------------------------------------------------------------------------------

    def start(self) -> int:
        """Fork a server; it is ready as soon as it runs: callers wait in the socket."""
        assert not self.pid
        signals = {signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            self.pid = os.fork()
            if not self.pid:
                self._serve()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return self.pid

    def _serve(self) -> NoReturn:
        """As ``pve-pybridge serve`` does."""
        try:
            fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            server = Server(self.host, self.listener)
            signal.signal(signal.SIGTERM, lambda signum, frame: server.close())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            server.serve_forever()
            server.drain(30)
        finally:
            os._exit(0)

    def kill(self, signum: int = signal.SIGKILL) -> float:
        """End the server; when the signal was sent."""
        when = time.monotonic()
        if self.pid:
            os.kill(self.pid, signum)
            os.waitpid(self.pid, 0)
            self.pid = 0
        return when

    def proc(self, key: str) -> int:
        """A number of the server's /proc/<pid>/status."""
        return proc_status(self.pid, key)

    def descriptors(self) -> int:
        """Open descriptors of the server."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> list[int]:
        """Child processes of the server."""
        found: list[int] = []
        for path in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
        return found

    def client(self) -> Client:
        """A connection of our own, to look at the server."""
        return Client(self.path, {"wire": 1, "type": "faulty"})

    def honest_call(self) -> float:
        """A call that must work; the seconds it took."""
        started = time.monotonic()
        with self.client() as client:
            kind, fields = client.call("path", scfg=self.scfg(), volname="vm-1-honest")
        assert (kind, fields["value"][0]) == ("result", "/dev/vm-1-honest"), fields
        return time.monotonic() - started

    @contextlib.contextmanager
    def shut_gate(self) -> Iterator[None]:
        """Let the hangs hang as long as this lasts."""
        with self.gate.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def executed(self) -> Counter[str]:
        """How often each tag is in the journal."""
        lines = (line.split() for line in self.journal.read_text().splitlines())
        return Counter(words[0] for words in lines if len(words) == 3)

    # --- callers -------------------------------------------------------------------------------

    def callers(self, number: int, kinds: Sequence[str], **job: Any) -> Callers:
        """Fork callers; see callers.pl for what a job may say."""
        if self._perl is None:
            self._perl = self._start_perl()
        self._files += 1
        out = self.node.base / f"callers.{self._files}"
        job = {"storeid": STOREID, "scfg": self.scfg(), **job}
        job |= {"callers": number, "kinds": kinds, "out": str(out)}
        assert self._perl.stdin is not None
        assert self._perl.stdout is not None
        self._perl.stdin.write(json.dumps(job) + "\n")
        self._perl.stdin.flush()
        return Callers([int(pid) for pid in self._perl.stdout.readline().split()], out)

    def _start_perl(self) -> subprocess.Popen[str]:
        command = [*perl._command((), True)[:-1], str(CALLERS)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            text=True,
        )


class Callers:
    """Some forked callers and what they wrote."""

    def __init__(self, pids: list[int], out: Path):
        self.pids = pids
        self.out = out

    def alive(self) -> list[int]:
        """Those that still run; who ends is gone at once, Perl doesn't wait."""
        self.pids = [pid for pid in self.pids if Path(f"/proc/{pid}").exists()]
        return self.pids

    def join(self, seconds: float) -> list[Entry]:
        """Wait for all, kill who takes longer; what they wrote."""
        ends = time.monotonic() + seconds
        while self.alive() and time.monotonic() < ends:
            time.sleep(0.01)
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        if self.pids:
            raise AssertionError(f"{len(self.pids)} callers still ran after {seconds} s")
        return self.entries()

    def entries(self) -> list[Entry]:
        """What they wrote so far."""
        found = []
        for line in self.out.read_text(errors="replace").splitlines() if self.out.exists() else ():
            kind, tag, start, end, outcome = line.split("\t", 4)
            found.append(Entry(kind, tag, float(start), float(end), outcome))
        return found


def proc_status(pid: int, key: str) -> int:
    """A number of /proc/<pid>/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"\n{key}:")[2].split()[0])


def until(condition: Callable[[], object], seconds: float) -> float:
    """Wait until it holds; the seconds that took, more than *seconds* when it never did."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            break
        time.sleep(0.01)
    return time.monotonic() - started
