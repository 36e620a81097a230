# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Watch PVE's storage calls arrive in Python plugins: ``make demo``.

Real plugin servers, the real Perl shim under ``perl -T`` and PVE::Storage: the stand-in, or genuine
PVE modules where PVE_PERL5LIB points to them.  Every step is checked; one that differs from what it
expects makes the demo fail.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import directory
import loop
import nbd
from stage import Failed, Stage

ACTS = {"pydir": directory, "pyloop": loop, "pynbd": nbd}
"""Plugin → its act; one that can't be played here says why and is left out."""


def main() -> int:
    """Run all steps; the exit status says whether each did what it should."""
    with (
        tempfile.TemporaryDirectory(prefix="pve-pybridge-demo-", dir="/var/tmp") as base,
        Stage(Path(base), list(ACTS)) as stage,
    ):
        print(stage.headline())
        try:
            for act in ACTS.values():
                act.play(stage)
            stage.leave_out("pyrbd", "it needs a Ceph cluster: make ceph-test starts one")
        except Failed as err:
            print(f"\n{stage.bad('FAILED')}: {err}")
            return 1
        print(stage.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
