# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Ask a file system something without hanging on it.

A dead network mount blocks every system call on it, in a way no signal ends.  PVE forks for such
questions; here a thread asks and the caller stops waiting after two seconds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from os import fsencode, path
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS: Final = 2.0
_asking: Final[dict[str, threading.Thread]] = {}


class Unreachable(Exception):
    """No answer in time."""


def ask(about: str, question: Callable[[], T]) -> T:
    """The answer to *question* about directory *about*; Unreachable when it takes too long.

    While an earlier question about the same directory hangs, no further thread is spent on it.
    """
    stuck = _asking.get(about)
    if stuck is not None:
        stuck.join(PATIENCE_SECONDS)
        if stuck.is_alive():
            raise Unreachable
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(question())
        except BaseException as err:
            errors.append(err)
        finally:
            if _asking.get(about) is threading.current_thread():
                del _asking[about]

    thread = threading.Thread(target=run, name=f"probe {about}", daemon=True)
    thread.start()
    _asking[about] = thread  # started: others may join it; if it's over already, that's at once
    thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise Unreachable
    return answers[0]


def is_mounted(directory: str) -> bool:
    """Whether *directory* is a mount point right now; bind mounts count, symbolic links resolve."""
    wanted = fsencode(path.realpath(directory))
    with open("/proc/self/mounts", "rb") as mounts:
        return any(_unescape(line.split(b" ")[1]) == wanted for line in mounts)


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field)
