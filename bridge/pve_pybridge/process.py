# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run external commands for a call: logged, within its deadline, killed with it.

Every command gets a session of its own, so that TERM and then KILL reach the whole process group.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from .alive import stat_of
from .errors import StorageError, one_line

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
"""How soon a cancelled or late call is noticed while a command runs."""
KILL_AFTER_SECONDS: Final = 3.0
MAX_OUTPUT: Final = 64 << 20
ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished command: exit status (negative: killed by that signal) and what it printed."""

    args: Sequence[str]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are no UTF-8 survive as surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")


def run(
    args: Sequence[str],
    *,
    checkpoint: Callable[[], None],
    stdin: int | None = None,
    stdout: int | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    on_stderr: Callable[[str], None] | None = None,
) -> Completed:
    """Run *args* to its end and return what it printed.

    *stdin*/*stdout* are descriptors to hand over (default: empty, captured).  *checkpoint* is asked
    every 0.1 s and stops the command by raising (``Cancelled``, ``DeadlineExceeded``); *timeout*
    is in seconds.  *on_stderr* gets each line of standard error as it comes.  A status other than 0
    raises StorageError with the command's last words, unless *check* is false.
    """
    checkpoint()
    logger.debug("run: %s", args)
    try:
        process = subprocess.Popen(
            list(args),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )
    except OSError as err:
        raise StorageError(f"can't run '{args[0]}': {err.strerror}") from None
    try:
        out, errors = _collect(process, checkpoint, timeout, on_stderr)
    except BaseException:
        kill_group(process)
        raise
    done = Completed(args, process.returncode, out, errors)
    if check and done.status != 0:
        raise StorageError(_failure(done))
    return done


def _collect(
    process: subprocess.Popen[bytes],
    checkpoint: Callable[[], None],
    timeout: float | None,
    on_stderr: Callable[[str], None] | None,
) -> tuple[bytes, bytes]:
    """Read both pipes until the command ends, asking *checkpoint* now and then."""
    ends = None if timeout is None else time.monotonic() + timeout
    kept: dict[IO[bytes], bytearray] = {}
    pending = bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                kept[pipe] = bytearray()
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(POLL_SECONDS):
                pipe = key.fileobj  # type: ignore[assignment]  # we registered IO[bytes] only
                assert pipe is not None
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(pipe)
                elif len(kept[pipe]) < MAX_OUTPUT:
                    kept[pipe] += chunk
                if pipe is process.stderr and on_stderr is not None:
                    pending = _lines(pending + chunk, on_stderr, last=not chunk)
            _check(process, checkpoint, ends)
    while process.poll() is None:
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            _check(process, checkpoint, ends)
    for pipe in kept:
        pipe.close()
    return (
        bytes(kept.get(process.stdout, b"")) if process.stdout else b"",
        bytes(kept[process.stderr]) if process.stderr else b"",
    )


def _check(
    process: subprocess.Popen[bytes], checkpoint: Callable[[], None], ends: float | None
) -> None:
    checkpoint()
    if ends is not None and time.monotonic() > ends:
        raise StorageError(f"command '{_name(process.args)}' got timeout")  # V22: "got timeout"


def _lines(buffer: bytearray, on_line: Callable[[str], None], *, last: bool) -> bytearray:
    """Hand over complete lines; carriage returns (progress of dd, qemu-img) end a line, too."""
    *lines, rest = buffer.replace(b"\r", b"\n").split(b"\n")
    if last:
        lines, rest = [*lines, rest], bytearray()
    for line in lines:
        if line.strip():
            on_line(line.decode("utf-8", "replace").rstrip())
    return rest


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """TERM the command's process group, KILL what of it is still there after three seconds."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        ends = time.monotonic() + KILL_AFTER_SECONDS
        while (alive := _group_alive(process)) and time.monotonic() < ends:
            time.sleep(0.02)
        if not alive:
            break
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _group_alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anybody of the group still runs: its leader may end before its members do."""
    if process.poll() is None:
        return True
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return any(_runs_in_group(pid, process.pid) for pid in pids)


def _runs_in_group(pid: int, group: int) -> bool:
    """A zombie that nobody has waited for yet doesn't count."""
    try:
        state, _, its_group, *_ = stat_of(pid)
    except (OSError, ValueError):
        return False  # gone meanwhile
    return its_group == str(group) and state not in "ZX"


def _failure(done: Completed) -> str:
    words = one_line(done.stderr.decode("utf-8", "replace")[-2000:])
    how = f"exit code {done.status}" if done.status > 0 else f"signal {-done.status}"
    reason = "" if words == "unknown error" else f": {words}"
    return f"command '{_name(done.args)}' failed with {how}{reason}"


def _name(args: object) -> str:
    return " ".join(map(str, args)) if isinstance(args, list | tuple) else str(args)
