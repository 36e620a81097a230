# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs in the node, on the installed packages: PVE's calls, through the shim, under ``perl -T``.

``inside.py COMMAND``, arguments as a JSON list on STDIN, the answer as JSON on STDOUT.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# By its file: the package imports msgpack, which one step takes away.
KIT = "/usr/lib/python3/dist-packages/pve_pybridge/testing/perl.py"
_spec = importlib.util.spec_from_file_location("pve_pybridge_testing_perl", KIT)
assert _spec is not None
assert _spec.loader is not None
_perl = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _perl
_spec.loader.exec_module(_perl)
PerlCrashed, PerlSession = _perl.PerlCrashed, _perl.PerlSession

PRELOAD = "use PVE::Storage; use PVE::API2::Storage::Config;"
CFG = "my $cfg = PVE::Storage::config();\n"
STOP = Path("/run/node-test-stop")
PAUSE = 0.05
"""Between a caller's calls: a busy node, which can still be upgraded in finite time."""


def perl(code: str, *args: object) -> dict[str, Any]:
    """Run a few lines in a process of their own, which has loaded PVE's modules before."""
    with PerlSession(preload=PRELOAD) as session:
        started = time.monotonic()
        result = session.run(CFG + code, *args)
        return {
            "ms": (time.monotonic() - started) * 1000,
            "value": result.value,
            "error": result.error,
            "stderr": result.stderr,
            "loading": session.startup_stderr,
            "tainted": result.tainted,
        }


def life(storeid: str, type_: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Add a storage; the life of a volume on it.  Fails with the first call that does."""
    with PerlSession(preload=PRELOAD) as session:

        def call(code: str, *args: object) -> Any:
            result = session.run(CFG + code, *args)
            if result.error is not None:
                raise SystemExit(f"{code}: {result.error}{result.stderr}")
            if result.tainted:
                raise SystemExit(f"{code}: the answer is tainted")
            return result.value

        parameters = {"storage": storeid, "type": type_, "content": "images", **properties}
        call("PVE::API2::Storage::Config->create($ARGS[0]); undef", parameters)
        call("PVE::Storage::activate_storage($cfg, $ARGS[0]); undef", storeid)
        volid = call("PVE::Storage::vdisk_alloc($cfg, $ARGS[0], 100, 'raw', undef, 8192)", storeid)
        call("PVE::Storage::activate_volumes($cfg, [$ARGS[0]], undef, {}); undef", volid)
        path = call("scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)
        size = call("scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))", volid)
        found = call(
            "[map {$_->{volid}} PVE::Storage::vdisk_list($cfg, $ARGS[0])->{$ARGS[0]}->@*]", storeid
        )
        info = call("PVE::Storage::storage_info($cfg)->{$ARGS[0]}->{active}", storeid)
        call("PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]]); undef", volid)
        call("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", volid)
        good = size == 8 << 20 and found == [volid] and info == 1
        return {"good": good, "path": path, "size": size, "found": found, "active": info}


CALLS = {
    "status": "PVE::Storage::storage_info($cfg)->{$ARGS[0]}->{active} or die 'inactive'; undef",
    "list": "PVE::Storage::vdisk_list($cfg, $ARGS[0]); undef",
    "alloc": "PVE::Storage::vdisk_alloc($cfg, $ARGS[0], $ARGS[1], 'raw', undef, 1024)",
    "activate": "PVE::Storage::activate_volumes($cfg, [$ARGS[2]], undef, {}); undef",
    "deactivate": "PVE::Storage::deactivate_volumes($cfg, [$ARGS[2]]); undef",
    "free": "PVE::Storage::vdisk_free($cfg, $ARGS[2]); undef",
}


def callers(count: int, storages: list[str]) -> dict[str, Any]:
    """That many PVE processes, each in a loop of calls, until /run/node-test-stop is there."""
    STOP.unlink(missing_ok=True)
    failed: list[str] = []
    times: list[float] = []

    def work(number: int) -> None:
        storeid = storages[number % len(storages)]
        try:
            with PerlSession(preload=PRELOAD) as session:
                while not STOP.exists():
                    volid = None
                    for name, code in CALLS.items():
                        started = time.monotonic()
                        result = session.run(CFG + code, storeid, 1000 + number, volid)
                        times.append(time.monotonic() - started)
                        time.sleep(PAUSE)
                        volid = result.value if name == "alloc" else volid
                        if result.error is not None:
                            failed.append(f"{storeid} {name}: {result.error}{result.stderr}")
        except PerlCrashed as err:
            failed.append(str(err))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"calls": len(times), "failed": failed, "slowest_ms": max(times) * 1000}


COMMANDS: dict[str, Callable[..., Any]] = {"perl": perl, "life": life, "callers": callers}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*json.loads(sys.stdin.readline()))))
