# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The faulty plugin from a test's side: serve it, call it, look at what it left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bridge_util import Node, Server
from pve_pybridge.crew import SPARE
from pve_pybridge.testing.perl import PerlResult, PerlSession
from wire_util import Client

FAULTY: Final = Path(__file__).parent / "plugins" / "faulty.py"
TOTAL: Final = 1 << 40
USED: Final = 1 << 30
IDLE_THREADS: Final = 3 + SPARE
"""At most so many has an idle server: who accepts, watches, leads, and the spare ones."""
Outcome = tuple[PerlResult, float]
"""An answer and the seconds it took."""
CALL: Final = """
    my ($method, @given) = @ARGS;
    return PVE::Storage::Custom::PyBridge::faulty->$method(@given);
"""


class Faults:
    """A node on which the faulty plugin is served."""

    def __init__(self, node: Node, *options: str):
        self.node = node
        self.options = options
        self.server: Server = node.serve(FAULTY, *options)
        self.gate = node.base / "gate"
        self.journal = node.base / "journal"
        self.volumes = node.base / "volumes"
        self.volumes.mkdir()

    def restart(self) -> None:
        """Another server in place of one that has ended."""
        self.server = self.node.serve(FAULTY, *self.options)

    def scfg(self, mode: str = "", **options: object) -> dict[str, object]:
        """A section with these options of the plugin."""
        given = {f"faulty-{key}": str(value) for key, value in options.items()}
        given.setdefault("faulty-journal", str(self.journal))
        return {"type": "faulty", "content": {"images": 1}, "faulty-mode": mode, **given}

    # --- calls ---------------------------------------------------------------------------------

    def call(self, method: str, *args: object, **options: Any) -> PerlResult:
        """Call the class method as PVE does, in the node's Perl process."""
        return self.node.perl(CALL, method, *args, **options)

    @staticmethod
    def call_in(perl: PerlSession, method: str, *args: object, **options: Any) -> PerlResult:
        """The same in a process of its own."""
        return perl.run(CALL, method, *args, **options)

    def alloc(self, storeid: str, scfg: dict[str, object], tag: str, **options: Any) -> PerlResult:
        """Make a volume called by its tag."""
        return self.call("alloc_image", storeid, scfg, 100, "raw", tag, 1024, **options)

    def at_once(self, count: int, method: str, *args: Any) -> list[PerlResult]:
        """The same call from several processes, in list context."""
        return [answer for answer, _ in self.together([(method, args)] * count)]

    def together(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Outcome]:
        """Several calls at the same time, each in a process of its own, in list context."""
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(self.node.session()) for _ in calls]
            for perl in sessions:
                self.call_in(perl, "path", {"type": "faulty"}, "vm-1-a", "s").ok()

            def run(perl: PerlSession, call: tuple[str, tuple[Any, ...]]) -> Outcome:
                started = time.monotonic()
                answer = self.call_in(perl, call[0], *call[1], context="list")
                return answer, time.monotonic() - started

            with ThreadPoolExecutor(len(calls)) as pool:
                return list(pool.map(run, sessions, calls))

    @staticmethod
    @contextlib.contextmanager
    def raw_clients(node: Node, type_: str, count: int) -> Iterator[list[Client]]:
        """Connections without Perl."""
        hello = {"wire": 1, "type": type_}
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(Client(node.run / f"{type_}.sock", hello)) for _ in range(count)
            ]

    # --- what there is to see ------------------------------------------------------------------

    @contextlib.contextmanager
    def shut_gate(self) -> Iterator[None]:
        """Let the hangs hang as long as this lasts."""
        with self.gate.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def journalled(self, prefix: str = "") -> list[str]:
        """Tags in the journal."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line.split()[0] for line in lines if line and line.startswith(prefix)]

    def status(self, key: str) -> int:
        """A number of the server's /proc/<pid>/status."""
        text = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(text.partition(f"\n{key}:")[2].split()[0])

    def threads(self) -> int:
        """Threads of the server."""
        return self.status("Threads")

    def memory(self) -> int:
        """MiB that the server occupies."""
        return self.status("VmRSS") >> 10

    def descriptors(self) -> int:
        """Open descriptors of the server."""
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    @staticmethod
    def commands(word: str) -> list[str]:
        """Command lines of all processes that have this in them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if word in line:
                    found.append(line)
        return found

    def stats(self) -> dict[str, Any]:
        """What ``pve-pybridge stats --json`` says of the server."""
        done = self.node.cli("stats", "--json", "faulty")
        found: dict[str, Any] = json.loads(done.stdout)["faulty"]
        return found

    @staticmethod
    def wait_for(condition: Callable[[], object], seconds: float = 10) -> float:
        """Until it holds; how long that took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, "did not happen"
            time.sleep(0.02)
        return time.monotonic() - started


HELLO: Final = {"wire": 1, "type": "faulty"}


@contextlib.contextmanager
def listening(node: Node) -> Iterator[socket.socket]:
    """The plugin's socket as systemd holds it: across the life of servers."""
    node.enable(FAULTY)
    node.run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(str(node.run / "faulty.sock"))
        it.listen(64)
        yield it


def start_call(node: Node, seconds: float, **meta: object) -> Client:
    """A caller whose call takes that long, and has begun."""
    client = Client(node.run / "faulty.sock", HELLO)
    scfg = {"faulty-mode": "hang", "faulty-delay": str(seconds)}
    client.send("call", 1, "activate_volume", "s", scfg, {"volname": "vm-1-a"}, meta)
    time.sleep(0.2)
    return client


BECOME = """
import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3)
if fd != 3:
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Inherited:
    """A server that is handed its listening socket and reports as systemd asks for."""

    def __init__(self, node: Node, listener: socket.socket, *options: str, plugin: Path = FAULTY):
        self.address = node.base / f"notify-{time.monotonic_ns()}"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.address))
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        fd = listener.fileno()
        command = [sys.executable, "-m", "pve_pybridge", "serve", str(plugin), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", BECOME, str(fd), *command],
            env={
                **os.environ,
                **node.env,
                "LISTEN_FDS": "1",
                "NOTIFY_SOCKET": str(self.address),
                "WATCHDOG_USEC": "600000",
            },
            pass_fds=[fd],
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Inherited:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.notify.shutdown(socket.SHUT_RD)
        self.notify.close()

    def _listen(self) -> None:
        """Read at once, as systemd does: a server waits while ten things lie there unread."""
        while said := self.notify.recv(100):
            self._said.put(said.decode())

    def said(self) -> str:
        """The next thing it said."""
        return self._said.get(timeout=10)

    def state(self) -> str:
        """The next thing it said, the watchdog aside."""
        ends = time.monotonic() + 10
        while (state := self.said()) == "WATCHDOG=1":
            assert time.monotonic() < ends, "it only feeds the watchdog"
        return state

    def end(self) -> tuple[int, str]:
        """Exit status and what it printed."""
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors
