# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run experiments: one line per figure, exit status 1 when a goal is missed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from .farm import Farm
from .figures import Figure
from .fuzz import fuzz_caller, fuzz_server
from .kills import kill_callers, kill_server
from .load import crowd, hang, restarts, soak
from .power_cut import power_cut_pyloop, power_cut_pynbd
from .trust import leaks, refusals

EXPERIMENTS: Final[dict[str, Callable[[Farm, bool], Iterator[Figure]]]] = {
    "kill-server": kill_server,
    "kill-callers": kill_callers,
    "fuzz-server": fuzz_server,
    "fuzz-caller": fuzz_caller,
    "hang": hang,
    "restarts": restarts,
    "crowd": crowd,
    "soak": soak,
    "refusals": refusals,
    "leaks": leaks,
    "power-cut-pyloop": power_cut_pyloop,
    "power-cut-pynbd": power_cut_pynbd,
}


def main() -> int:
    """Parse, run, count."""
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument(
        "--genuine-agnostic", action="store_true", help="the stand-in for PVE, even if there is PVE"
    )
    parser.add_argument("name", nargs="*", choices=[[], *EXPERIMENTS], help="default: all")
    args = parser.parse_args()
    if args.genuine_agnostic:
        os.environ.pop("PVE_PERL5LIB", None)
    missed = 0
    for name in args.name or EXPERIMENTS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="stress-") as base, Farm(Path(base)) as farm:
            for figure in EXPERIMENTS[name](farm, args.short):
                print(f"{name}: {figure}", flush=True)
                missed += not figure.met
                for detail in () if figure.met else figure.details:
                    print(f"    {detail}", flush=True)
        print(f"{name}: took {time.monotonic() - started:.1f} s", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
