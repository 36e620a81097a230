# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure, print the table, write ``results/latest.json`` and a plot of each series.

The short form takes part of the time and exits with 1 only for ratios far beyond their goals; its
figures go to ``results/short.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Final

from .figures import MARGIN, Figure, Series, table
from .stage import HERE, Stage

ROWS: Final = (
    "call",
    "first",
    "loading",
    "vmstart",
    "listing",
    "static",
    "width",
    "transfer",
    "status",
    "idle",
    "storm",
)
RESULTS: Final = HERE / "results"


def main() -> int:
    """Parse, measure, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute; for CI")
    parser.add_argument("row", nargs="*", choices=[[], *ROWS], help="default: all")
    args = parser.parse_args()
    figures, series = measure(args.row or ROWS, args.short)
    print(f"\n{table(figures)}")
    if args.row:
        return 0  # a part is for looking, not for the record
    write(figures, series, "short" if args.short else "latest")
    missed = [one for one in figures if one.met is False]
    hopeless = [one for one in figures if one.hopeless]
    print(f"\n{len(figures)} figures, {len(missed)} goals missed")
    for one in hopeless:
        print(f"more than {MARGIN:g} times its goal: {one.name}")
    return 1 if hopeless or (missed and not args.short) else 0


def measure(rows: list[str] | tuple[str, ...], short: bool) -> tuple[list[Figure], list[Series]]:
    """Run the rows, each on a stage of its own."""
    figures: list[Figure] = []
    series: list[Series] = []
    genuine = bool(os.environ.get("PVE_PERL5LIB"))
    print(f"PVE modules: {'genuine' if genuine else 'stand-in'}; load {os.getloadavg()[0]:.2f}")
    for row in rows:
        started = time.monotonic()
        module = import_module(f"{__package__}.rows.{row}")
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as base,
            Stage(Path(base), short) as stage,
        ):
            for outcome in module.measure(stage):
                if isinstance(outcome, Series):
                    series.append(outcome)
                else:
                    figures.append(outcome)
        print(f"{row}: {time.monotonic() - started:.1f} s", flush=True)
    return figures, series


def write(figures: list[Figure], series: list[Series], name: str) -> None:
    """JSON and, where there is something to draw with, plots."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps([one.entry() for one in figures], indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    if name == "latest":
        from .plots import draw  # noqa: PLC0415  matplotlib takes a second

        draw(series, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
