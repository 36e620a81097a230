# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the command ``pve-pybridge`` under another interpreter, with this very package.

A script: ``INTERPRETER lend.py COMMAND…``, see ``interpreter.py``.  A vendor's virtual environment
need not have the bridge: it is lent this one, and msgpack if it has none of its own, and nothing
else.  So shim and server are of one release however many interpreters serve plugins.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _lend(name: str, directory: Path) -> None:
    """Make a package importable without making its neighbours so."""
    spec = importlib.util.spec_from_file_location(
        name, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  # whatever a manifest names
        print(f"pve-pybridge: {sys.executable} is too old: Python 3.11 is needed", file=sys.stderr)
        return 1
    # Our own directory: its modules would hide those of the standard library.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
    msgpack = os.environ.pop("PVE_PYBRIDGE_MSGPACK", "")
    if msgpack and importlib.util.find_spec("msgpack") is None:
        _lend("msgpack", Path(msgpack))
    _lend("pve_pybridge", _HERE)
    from pve_pybridge import interpreter  # noqa: PLC0415  # only now it can be found
    from pve_pybridge.cli import main  # noqa: PLC0415

    interpreter.lent = True
    return main()


if __name__ == "__main__":
    sys.argv[0] = "pve-pybridge"
    sys.exit(_main())
