# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A storage's section of storage.cfg, as a caller sends it with each call."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from . import codec
from .coerce import mapping, text


class Section(dict[str, Any]):
    """The section as text; one object for all calls of a connection that bring the same one.

    Callers send it packed, so that to compare bytes is enough where nothing has changed.
    """

    typed: tuple[object, Any] = (None, None)
    """Whose typed configuration this is, and the configuration: the host's own note."""

    quick: set[str]
    """Methods of the storage that took no time when they were last called."""

    def __init__(self, storeid: object, received: object):
        self.storeid = text(storeid)
        self.received = received
        if isinstance(received, bytes):
            received = codec.unpack(received, "call frame: 'scfg'")
        super().__init__(mapping(received))

    @cached_property
    def words(self) -> str:
        """The same in one string, to find equal ones."""
        return repr(sorted(self.items()))
