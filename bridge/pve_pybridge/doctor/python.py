# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Every Python that serves a plugin: there, recent enough, able to run the bridge."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess

from .. import installed, interpreter
from ..errors import StorageError
from .findings import Report, fault
from .node import Node
from .run import beside_each_other

_SECONDS = 8


def check(node: Node, report: Report) -> None:
    """Our own, and those that manifests name, if nobody else could have named or written them."""
    found: dict[str, str] = {}
    for manifest in node.manifests():
        try:
            if manifest.interpreter and os.access(manifest.interpreter, os.X_OK):
                installed.check_trust(manifest)
                found[manifest.interpreter] = str(manifest.file)
        except StorageError:  # the check of manifests tells
            continue
    report.summary = ", ".join([f"Python {platform.python_version()}", *found])
    if importlib.util.find_spec("msgpack") is None:
        what = "the Python module msgpack is missing"
        report.add([fault("Python", what, "apt install python3-msgpack")])

    def one(python: str) -> None:
        if said := _flaw(python):
            mend = "needed: Python 3.11 or later, and msgpack"
            report.add([fault(found[python], f"its interpreter {python} fails: {said}", mend)])

    beside_each_other(one, found)


def _flaw(python: str) -> str | None:
    """Import what serving a plugin needs."""
    try:
        done = interpreter.run(python, "serve", "--help", timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} s"
    except OSError as err:
        return err.strerror
    return interpreter.complaint(done) if done.returncode else None
