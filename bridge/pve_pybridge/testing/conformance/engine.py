# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the statements, one after the other, on a storage of the suite's own.

Nothing a plugin does ends the run: a call that hangs or a server that crashes is that statement's
failure, and the next one gets a new process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ...errors import StorageError
from . import settings as configuration
from .catalogue import CHECKS, ELSEWHERE, LAST, Check
from .node import Node
from .outcome import (
    BLOCKED,
    FAILED,
    NOT_APPLICABLE,
    PASSED,
    Blocked,
    Failed,
    NotApplicable,
    Result,
)
from .outcome import ELSEWHERE as NOT_ABOUT
from .settings import Settings, Values
from .statements import STATEMENTS
from .subject import SECOND, STOREID, Subject

logger = logging.getLogger(__name__)

MANIFEST_SECONDS: Final = 60
HANGS: Final = 2
"""After so many a method isn't waited for any more."""


class Engine:
    """A plugin, its node, and what was found out about it."""

    def __init__(self, plugin: str, settings: Settings):
        self.plugin = plugin
        self.settings = settings
        self.left: list[str] = []
        """Volumes of ours that couldn't be freed."""
        self._base = Path(tempfile.mkdtemp(prefix="pve-pybridge-check-"))
        self._directories = 0
        self._node: Node | None = None
        self._hangs: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, remove their directories."""
        if self._node is not None:
            self._node.close()
        shutil.rmtree(self._base, ignore_errors=True)

    # --- preparation ---------------------------------------------------------------------------

    def _open(self) -> None:
        text = _manifest(self.plugin)
        self.manifest: dict[str, Any] = json.loads(text)
        type_ = self.manifest["type"]
        node = Node(self._base / "node", self.plugin, type_, self.settings.apiver)
        self._node = node
        node.manifest.write_text(text)
        if self.settings.etc is not None:
            shutil.copytree(self.settings.etc, node.etc, dirs_exist_ok=True)
        make = self._directory
        first = configuration.first(self.manifest, self.settings, make)
        second = configuration.second(self.manifest, self.settings, make)
        gone = configuration.unreachable(self.manifest, self.settings, make)
        node.start()
        self._add(node, STOREID, first)
        if second is not None:
            self._add(node, SECOND, second)
        version = node.perl("PVE::Storage::APIVER()").ok()  # genuine modules have their own
        told = replace(self.settings, apiver=int(version))
        self.subject = Subject(node, self.manifest, told, first, second, gone)

    def _directory(self) -> str:
        self._directories += 1
        path = self._base / "node" / f"dir{self._directories}"
        path.mkdir()
        return str(path)

    def _add(self, node: Node, storeid: str, values: Values) -> None:
        result = node.api("create", {"storage": storeid, "type": self.manifest["type"], **values})
        if result.error is not None:
            why = " ".join(result.error.split())
            raise StorageError(f"the storage under test can't be added, check --config: {why}")

    # --- running -------------------------------------------------------------------------------

    def run(self, only: Collection[str] = ()) -> Iterator[Result]:
        """The results, as they come; statements about the whole run are last."""
        for index, number in enumerate(STATEMENTS):
            if (only and number not in only) or number in LAST:
                continue
            yield self.try_one(number, index)
        for number in LAST:
            if not only or number in only:
                yield self.try_one(number, len(STATEMENTS))

    def try_one(self, number: str, index: int = 0) -> Result:
        """One statement."""
        statement = STATEMENTS[number]
        if number in ELSEWHERE:
            return Result(statement, NOT_ABOUT, ELSEWHERE[number])
        check = CHECKS.get(number) or LAST[number]
        began = time.monotonic()
        self.subject.begin(index)
        outcome, reason = self._outcome(check)
        reason, outcome = self._mind_the_server(reason, outcome)
        result = Result(
            *(statement, outcome, reason),
            calls=list(self.subject.calls),
            remarks=list(self.subject.remarks),
            telling=self.subject.telling,
        )
        if number not in LAST:
            self.left += self.subject.tidy()
            self._mind_the_server("", outcome)
        result.seconds = time.monotonic() - began
        return result

    def _outcome(self, check: Check) -> tuple[str, str]:
        try:
            check(self.subject)
        except Failed as err:
            return FAILED, str(err)
        except Blocked as err:
            return BLOCKED, str(err)
        except NotApplicable as err:
            return NOT_APPLICABLE, str(err)
        except StorageError as err:  # a server that doesn't start again, a client that gets no word
            return FAILED, str(err)
        except (OSError, KeyError, TypeError, ValueError, IndexError) as err:
            # the plugin's answer was so odd that the statement's own code fell over it
            logger.debug("%s", check, exc_info=True)
            return FAILED, f"the answer can't be used: {type(err).__name__}: {err}"
        return PASSED, ""

    def _mind_the_server(self, reason: str, outcome: str) -> tuple[str, str]:
        """A hung or ended server is replaced."""
        node, subject = self.subject.node, self.subject
        status = node.server_ended(within=0.2 if outcome == FAILED else 0.0)
        if subject.hung is not None:
            self._hangs[subject.hung] = self._hangs.get(subject.hung, 0) + 1
            if self._hangs[subject.hung] >= HANGS:
                subject.hopeless.add(subject.hung)
            subject.hung = None
            node.restart(signal.SIGKILL)
        elif status is not None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            reason = f"the plugin's server ended with {how}: {node.last_words()}"
            outcome = FAILED
            node.restart()
        return reason, outcome


def _manifest(plugin: str) -> str:
    """By a process of its own: what a plugin does when it is imported stays there."""
    command = [sys.executable, "-m", "pve_pybridge", "manifest", plugin]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=MANIFEST_SECONDS,
            stdin=subprocess.DEVNULL,
            env=os.environ,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(f"{plugin}: importing it hung for {MANIFEST_SECONDS} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no manifest, and no word why"]
        raise StorageError(lines[-1].removeprefix("pve-pybridge: "))
    return done.stdout
