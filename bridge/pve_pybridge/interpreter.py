# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The Python that runs a plugin: the bridge's own, or the one its manifest names.

A vendor's virtual environment ends conflicts between the dependencies of plugins (D6).  It gets
this very package by ``lend.py``, so it needs nothing of ours installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .errors import StorageError

if TYPE_CHECKING:
    import subprocess

_LEND = Path(__file__).with_name("lend.py")

lent = False
"""Whether ``lend.py`` started this process: then it runs in the interpreter asked for."""


def command(interpreter: str | None, *args: str) -> list[str]:
    """The command line of ``pve-pybridge ARGS`` under *interpreter*; None: the one we run in."""
    return [interpreter or sys.executable, str(_LEND), *args]


def environment() -> Mapping[str, str]:
    """What the command needs to know besides: where our msgpack is."""
    found = importlib.util.find_spec("msgpack")  # imported only by who speaks with a server
    where = str(Path(found.origin).parent) if found and found.origin else ""
    return {**os.environ, "PVE_PYBRIDGE_MSGPACK": where}


def run(interpreter: str | None, *args: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run that command to its end; OSError, TimeoutExpired."""
    import subprocess  # noqa: PLC0415  every server would load it

    return subprocess.run(
        command(interpreter, *args),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Why the command failed, in one line."""
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return said[-1].removeprefix("pve-pybridge: ")


def become(interpreter: str, *args: str) -> NoReturn:
    """Go on as ``pve-pybridge ARGS`` under *interpreter*: same process, same descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(interpreter, command(interpreter, *args), environment())
    except OSError as err:
        raise StorageError(f"can't run the interpreter {interpreter}: {err.strerror}") from None
