# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The suite in pytest: ``pytest --pve-plugin FILE`` adds one test per statement.

Loaded by its entry point wherever pve-pybridge is installed (or by ``-p`` and this module's name);
without the option it does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .engine import Engine
    from .outcome import Result

_KEY = pytest.StashKey["Engine"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command's options, with pve- before them."""
    group = parser.getgroup("pve", "conformance of a Proxmox VE storage plugin")
    group.addoption("--pve-plugin", metavar="FILE", help="try this plugin, a test per statement")
    for name, text in (
        ("config", "option of the storage under test"),
        ("second", "difference of a second storage"),
        ("unreachable", "difference of a storage whose backend doesn't answer"),
    ):
        group.addoption(
            f"--pve-{name}", action="append", default=[], metavar="KEY=VALUE", help=text
        )
    group.addoption("--pve-previous", metavar="MANIFEST", help="the previous release's manifest")
    group.addoption("--pve-apiver", type=int, default=15, metavar="N")
    group.addoption("--pve-timeout", type=float, default=30, metavar="SECONDS")


class StatementItem(pytest.Item):
    """One statement as a test."""

    number: str

    def runtest(self) -> None:
        """Try it; what doesn't concern the plugin is skipped."""
        from .outcome import ELSEWHERE, NOT_APPLICABLE, PASSED

        engine = _engine(self.config)
        from .statements import STATEMENTS

        result = engine.try_one(self.number, list(STATEMENTS).index(self.number))
        if result.outcome in (NOT_APPLICABLE, ELSEWHERE):
            pytest.skip(f"{result.outcome}: {result.reason}")
        for remark in result.remarks:
            self.add_report_section("call", "remark", remark)
        if result.outcome != PASSED:
            raise StatementBroken(_told(result))

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """The plugin's failure needs no traceback of ours."""
        if isinstance(excinfo.value, StatementBroken):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it says it comes from."""
        return self.path, None, self.name


class StatementBroken(Exception):
    """The statement doesn't hold; the text has the calls."""


def _told(result: Result) -> str:
    lines = [f"{result.number} {result.statement.text}", result.reason, ""]
    for call in result.calls:
        lines += [call.text, f"  → {call.answer}"]
    return "\n".join(lines)


def _engine(config: pytest.Config) -> Engine:
    """One for the whole session, started by the first statement."""
    from .engine import Engine
    from .settings import Settings, pairs

    if _KEY not in config.stash:
        previous = config.getoption("--pve-previous")
        settings = Settings(
            config=pairs(config.getoption("--pve-config")),
            second=pairs(config.getoption("--pve-second")),
            unreachable=pairs(config.getoption("--pve-unreachable")),
            previous=json.loads(Path(previous).read_text()) if previous else None,
            apiver=config.getoption("--pve-apiver"),
            timeout=config.getoption("--pve-timeout"),
        )
        engine = Engine(config.getoption("--pve-plugin"), settings)
        config.stash[_KEY] = engine.__enter__()
    return config.stash[_KEY]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the statements after the session's other tests, before -k and -m choose."""
    if config.getoption("--pve-plugin"):
        items.extend(_items(session))


def _items(session: pytest.Session) -> Iterator[StatementItem]:
    from .catalogue import LAST
    from .statements import STATEMENTS

    for number in [*(n for n in STATEMENTS if n not in LAST), *LAST]:
        item = StatementItem.from_parent(session, name=number)
        item.number = number
        yield item


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the plugin's server."""
    if _KEY in config.stash:
        config.stash[_KEY].close()
