# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Write the generated parts of docs/ from their one home; ``--check`` only compares.

docs/methods.md    the method table, and the test that proves each row
docs/checklist.md  the contract's checklist, and the tests that claim each statement
docs/detection.md  the deliberate mistakes, and the statement that finds each
docs/protocol.md   the tables between ``<!-- generated -->`` marks
docs/index.md      the same: each reader's way, from tools/site/pages.py
docs/sdk.md        every public name, by sdk_page.py
man/, completions/ the manual page and bash completion, see command_docs.py
statements.txt     the checklist for the installed conformance suite, which has no docs/
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import command_docs
import sdk_page
from pve_pybridge import codec, errors, methods
from pve_pybridge.loader import load
from pve_pybridge.manifest import build, call_of

sys.path.insert(0, str(Path(__file__).parent / "site"))
import pages

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
STATEMENTS = ROOT / "bridge/pve_pybridge/testing/conformance/statements.txt"
HEAD = "<!-- Written by tools/generate_docs.py; edit its sources instead. -->\n\n"
Claims = dict[str, dict[str, list[str]]]


def main() -> int:
    """Write, or with --check tell what would change."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in documents().items():
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text, "utf-8")
    if stale:
        print(("not up to date, run make docs: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


def documents() -> dict[Path, str]:
    """Every generated document with the text it should have."""
    claims = scan_tests(ROOT / "tests")
    return {
        DOCS / "methods.md": HEAD + method_page(claims),
        DOCS / "checklist.md": HEAD + checklist_page(claims),
        DOCS / "protocol.md": protocol_page((DOCS / "protocol.md").read_text("utf-8")),
        **command_docs.documents(),
        DOCS / "sdk.md": HEAD + sdk_page.page(),
        DOCS / "index.md": filled((DOCS / "index.md").read_text("utf-8"), {"paths": pages.paths()}),
        DOCS / "detection.md": HEAD + detection_page(),
        STATEMENTS: statements_file(),
    }


# --- what the tests claim ------------------------------------------------------------------------


def scan_tests(directory: Path) -> Claims:
    """Marker name → its argument → tests that carry it, read from the source."""
    claims: Claims = {"contract": defaultdict(list), "method": defaultdict(list)}
    for file in sorted(directory.glob("test_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                for marker, argument in _markers(node):
                    claims[marker][argument].append(f"{file.stem}::{node.name}")
    return claims


def _markers(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
) -> Iterator[tuple[str, str]]:
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Attribute):
            continue
        if decorator.func.attr in ("contract", "method"):
            for argument in decorator.args:
                if isinstance(argument, ast.Constant):
                    yield decorator.func.attr, str(argument.value)


# --- pages ---------------------------------------------------------------------------------------


def method_page(claims: Claims) -> str:
    """All rows of the method table."""
    pydir = build(load(str(ROOT / "python_plugins/pydir.py")))
    lines = [
        "# Storage methods",
        "",
        "One row for each method PVE can call on a storage plugin. *Without it*: what PVE gets",
        "when a plugin lacks the method. *pydir*: how the bundled directory plugin answers.",
        "*Proved by*: a test that goes through PVE and the shim (or shows the fallback).",
        "",
        "| Method | Since | Without it | Time | Lock | Repeat | Arguments after the class | Result "
        "| pydir | Proved by |",
        "|" + "---|" * 10,
    ]
    for row in methods.METHODS.values():
        answered = call_of(pydir, row.name)
        if row.name in methods.LOCAL:
            answered = "inherit"
        proofs = claims["method"].get(row.name, [])
        cells = [
            f"`{row.name}`",
            str(row.since),
            row.absent,
            row.timing,
            "yes" if row.locked else "",
            "yes" if row.retry else "",
            ", ".join(_argument(arg) for arg in row.args) or "–",
            f"{row.result} ({row.context})",
            {"forward": "forwarded", "inherit": "inherited", "refuse": "refused"}.get(
                answered, answered
            ),
            proofs[0] if proofs else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "`?` may be undef; `@N` exists since APIVER N. Types: see [protocol](protocol.md).",
    ]
    return "\n".join(lines) + "\n"


def _argument(arg: methods.Arg) -> str:
    type_ = "" if arg.type == arg.name else f":{arg.type}"
    since = f"@{arg.since}" if arg.since > 1 else ""
    return f"{arg.name}{type_}{'?' if arg.optional else ''}{since}"


def checklist_page(claims: Claims) -> str:
    """The checklist of the contract with who proves each statement."""
    contract = (DOCS / "contract.md").read_text("utf-8")
    excused = tomllib.loads((DOCS / "not-applicable.toml").read_text("utf-8"))
    lines = [
        "# Checklist",
        "",
        "The statements of [the contract](contract.md), section 9, and the tests that prove them",
        "for the bridge and the bundled `pydir`.",
    ]
    for line in contract.splitlines():
        if match := re.match(r"### ([A-Z])\. (.*)", line):
            lines += [
                "",
                f"## {match[1]}. {match[2]}",
                "",
                "| | Statement | Proved by |",
                "|---|---|---|",
            ]
        elif match := re.match(r"- (C-\d+) (.*)", line):
            number, statement = match[1], match[2].replace("|", "\\|")
            proofs = claims["contract"].get(number, [])
            shown = ", ".join(proofs[:3]) or f"not applicable: {excused.get(number, '?')}"
            lines.append(f"| {number} | {statement} | {shown} |")
    return "\n".join(lines) + "\n"


def detection_page() -> str:
    """The wrong plugins of the tests, by the statement that has to find them."""
    sys.path.insert(0, str(ROOT / "tests"))
    wrong = importlib.import_module("plugins.wrong")
    for file in sorted(Path(wrong.__file__).parent.glob("[!_]*.py")):
        importlib.import_module(f"plugins.wrong.{file.stem}")
    found = sorted(wrong.MISTAKES, key=lambda mistake: (mistake.statement, mistake.text))
    numbers = {mistake.statement for mistake in found}
    lines = [
        "# What the conformance suite finds",
        "",
        f"{len(found)} plugins with one deliberate mistake each, and the statement of",
        "[the checklist](checklist.md) that finds it when [`pve-pybridge check`](check.md)",
        f"tries the plugin; {len(numbers)} statements are concerned. `tests/test_detection.py`",
        "tries them all, and shows that the correct plugins are blamed for nothing: `pydir`,",
        "`pyloop`, `pynbd`, `pyrbd`, the examples of README and author's guide, and the plugin",
        "that the wrong ones derive from.",
        "",
        "| Found by | Mistake | Plugin |",
        "|---|---|---|",
    ]
    for mistake in found:
        where = mistake.plugin.__module__.rpartition(".")[2]
        name = f"{where}.{mistake.plugin.__name__}"
        lines.append(f"| {mistake.statement} | {' '.join(mistake.text.split())} | `{name}` |")
    return "\n".join(lines) + "\n"


def statements_file() -> str:
    """The checklist as plain lines: a group's name, then its statements."""
    contract = (DOCS / "contract.md").read_text("utf-8")
    lines = ["# Written by tools/generate_docs.py from docs/contract.md, section 9."]
    for match in re.finditer(r"^(?:### ([A-Z]\. .*)|- (C-\d+ .*))$", contract, re.M):
        lines.append(match[1] or match[2])
    return "\n".join(lines) + "\n"


def protocol_page(text: str) -> str:
    """docs/protocol.md with its tables written anew."""
    tables = {
        "kinds": _table(
            ["Kind", "From", "Fields after the kind"],
            [
                [
                    f"`{kind}`",
                    "client" if kind in ("hello", "call", "cancel") else "server",
                    ", ".join(f),
                ]
                for kind, f in codec.FIELDS.items()
            ],
        ),
        "errors": _table(
            ["Kind", "Meaning"], [[f"`{k}`", text] for k, text in errors.KINDS.items()]
        ),
        "limits": _table(
            ["What", "Value"],
            [
                ["wire version", str(codec.WIRE_VERSION)],
                ["table version", str(methods.TABLE_VERSION)],
                ["largest payload", f"{codec.MAX_FRAME} bytes"],
            ],
        ),
    }
    return filled(text, tables)


def filled(text: str, parts: Mapping[str, str]) -> str:
    """A page with what stands between its marks written anew."""
    for name, part in parts.items():
        head, rest = text.split(f"<!-- generated: {name} -->\n", 1)
        tail = rest[rest.index("<!-- end -->") :]
        text = f"{head}<!-- generated: {name} -->\n{part}{tail}"
    return text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
