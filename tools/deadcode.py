# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Vulture over the whole tree, knowing the names that the host calls by table.

The methods and arguments of storage plugins, and the fields of what they return, are used without
being named anywhere; everything else must have a user in the code, the tests or the tools.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

from pve_pybridge import block, config, model
from pve_pybridge.directory import config as directory
from pve_pybridge.methods import METHODS


def known() -> set[str]:
    """Names with users that can't be seen."""
    names = set(METHODS) | {arg.name for row in METHODS.values() for arg in row.args}
    for module in (block, config, directory, model):
        for item in vars(module).values():
            if dataclasses.is_dataclass(item):
                names |= {field.name for field in dataclasses.fields(item)}
    names |= {"__getattr__", "delimiter", "dont_write_bytecode"}  # read by Python itself
    names |= {
        "do_*",
        "log_message",
        "daemon_threads",
        "handle_starttag",
        "get_code",
        "fullname",
    }  # the library's own
    names |= {"toctrees"}  # Sphinx runs tools/site/conf.py
    names |= {"pytest*", "runtest", "reportinfo", "style"}  # pytest's
    return names | {"operation", "guest_is_windows", "tb", "frame", "Py*"}


def main() -> int:
    """Vulture's own exit status."""
    where = ["bridge", "python_plugins", "tests", "demo", "tools", "benchmarks"]
    ignored = ",".join(sorted(known()))
    command = ["vulture", *where, "--min-confidence", "60", "--ignore-names", ignored]
    command += ["--ignore-decorators", "@pytest.fixture*,@pytest.hookimpl*"]
    command += ["--exclude", "tests/plugins,benchmarks/plugin.py,tools/site/conf.py"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
