# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole run: engine and account together, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from .engine import Engine
from .node import modules
from .outcome import Result
from .report.account import Account
from .settings import Settings


def run(
    plugin: str,
    settings: Settings,
    *,
    only: Collection[str] = (),
    on_begin: Callable[[Account], None] = lambda account: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Account:
    """Try *plugin*; an interrupt ends the run early, what was found until then is kept."""
    began = time.monotonic()
    with Engine(plugin, settings) as engine:
        account = describe(engine)
        on_begin(account)
        try:
            for result in engine.run(only):
                account.results.append(result)
                on_result(result)
        finally:
            account.left = engine.left
            account.seconds = time.monotonic() - began
    return account


def describe(engine: Engine) -> Account:
    """An empty account of what is going to be tried."""
    secret = engine.manifest["sensitive"]
    values = engine.subject.values
    return Account(
        plugin=engine.plugin,
        type=engine.manifest["type"],
        modules=modules(),
        apiver=engine.subject.settings.apiver,
        config={key: "***" if key in secret else value for key, value in values.items()},
    )
