# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Plugins with one realistic mistake each, to show that the conformance suite finds it.

A class derives from a correct plugin (``vault.Vault``, or a bundled one).  Its docstring says what
the mistake is; ``@caught_by`` names the statement that must find it, and what the suite is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T", bound=type[Any])


@dataclass(frozen=True)
class Mistake:
    """A wrong plugin and who must notice."""

    plugin: type[Any]
    statement: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the mistake is."""
        return (self.plugin.__doc__ or "").strip()


MISTAKES: list[Mistake] = []


def caught_by(statement: str, **settings: Any) -> Callable[[T], T]:
    """Register a wrong plugin; *settings* are those of the conformance suite."""

    def register(plugin: T) -> T:
        MISTAKES.append(Mistake(plugin, statement, settings))
        return plugin

    return register
