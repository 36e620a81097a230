# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The node that is measured: manifests, storages, the plugin server and the references."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pve_pybridge import manifest
from pve_pybridge.loader import load
from pve_pybridge.offnode import Files
from pve_pybridge.testing import perl

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
REFERENCES: Final = HERE / "references"
PERL: Final = HERE / "perl"
SHIM: Final = perl._shim_dir()
"""As it stands in @INC."""
PLUGINS: Final = [
    HERE / "plugin.py",
    *(ROOT / "python_plugins" / f"{name}.py" for name in ("pydir", "pyloop", "pynbd", "pyrbd")),
]
STORAGES: Final = 50


class Stage:
    """Everything lives in one directory and ends with it."""

    def __init__(self, base: Path, short: bool):
        self.base = base
        self.short = short
        self.run = base / "run"
        self._files = Files(base, self.run)
        self.manifests = self._files.manifests
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PYTHONPYCACHEPREFIX": str(base / "pycache"),  # a package comes compiled
            "PYTHONPATH": f"{ROOT / 'bridge'}:{ROOT}",
            **self._files.env,
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._files.make()
        self.run.mkdir(mode=0o700)
        for plugin in PLUGINS:
            self._files.enable(manifest.build(load(str(plugin))))
        self._files.storage_cfg.write_text(_storages())
        self.server = self.serve(PLUGINS[0], "bench")
        self.floor = self._start([sys.executable, str(REFERENCES / "floor.py")], "floor")
        self.has_echo = self._echo()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    def serve(self, plugin: Path, type_: str) -> subprocess.Popen[bytes]:
        """A plugin's server, as systemd would start it."""
        command = [sys.executable, "-m", "pve_pybridge", "serve", str(plugin)]
        return self._start([*command, "--socket"], type_)

    def _start(self, command: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        path = self.run / f"{name}.sock"
        with (self.base / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(path)],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        ends = time.monotonic() + 20
        while not path.exists():
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError((self.base / f"{name}.log").read_text() or f"no {name}")
            time.sleep(0.01)
        return process

    def _echo(self) -> bool:
        compiler = shutil.which("cc")
        if compiler is None:
            return False
        binary = self.base / "echo"
        subprocess.run([compiler, "-O2", "-o", binary, REFERENCES / "echo.c"], check=True)
        self._start([str(binary)], "echo")
        return True

    def perl(self, *script: str, shim: bool = True) -> list[str]:
        """The command line of a PVE process, without the shim when that is asked."""
        command = [*perl._command((PERL, REFERENCES, REFERENCES / "lib"), True)[:-1], *script]
        return command if shim else [word for word in command if word != f"-I{SHIM}"]

    @contextmanager
    def worker(self, *, one_processor: bool = False) -> Iterator[Worker]:
        """A new measuring process, maybe on one processor with the servers: the work alone.

        On two of them a call also waits for the other one to wake, on a virtual machine for longer
        than the floor takes; who is put where is the scheduler's choice, and not the same for all.
        """
        before = os.sched_getaffinity(0)
        servers = (self.server.pid, self.floor.pid)
        with Worker(self) as worker:
            if one_processor:
                _pin((worker.pid, *servers), {min(before)})
            try:
                yield worker
            finally:
                _pin(servers, before)


@contextmanager
def awake() -> Iterator[bool]:
    """Processors that wait don't halt; False where that can't be asked for.

    A virtual machine's host must wake one that has, which takes 20 to 40 µs.  The kernel keeps them
    awake as long as somebody asks for no latency, as tuned's profile latency-performance does.
    """
    try:
        asking = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    except OSError:
        yield False
        return
    try:
        os.write(asking, struct.pack("i", 0))
        yield True
    finally:
        os.close(asking)


class Worker:
    """A PVE process that takes jobs; see worker.pl."""

    def __init__(self, stage: Stage):
        spawn = [sys.executable, str(REFERENCES / "spawn.py")]
        self._process = subprocess.Popen(
            stage.perl(str(PERL / "worker.pl"), str(stage.run), *spawn),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=stage.env,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def do(self, do: str, /, **job: object) -> Any:
        """The result of one job."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **job}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "worker died"}')
        if "error" in answer:
            raise RuntimeError(f"{do} {job}: {answer['error']}")
        return answer["result"]


def _pin(pids: Iterable[int], processors: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)


def _storages() -> str:
    """Fifty storages of the bridge and of each in-process reference."""
    counts = {"bridge": STORAGES, "native": STORAGES, "spawn": 1}
    types = {"bridge": "bench", "native": "benchnative", "spawn": "benchspawn"}
    return "".join(
        f"{types[name]}: {name}{n}\n\tcontent images\n\n"
        for name, count in counts.items()
        for n in range(1, count + 1)
    )
