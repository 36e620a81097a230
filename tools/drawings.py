# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/drawings/*.dot and *.seq → SVG beside them, readable in light and dark.

A .dot file is Graphviz'; a node's or an edge's ``class`` says what it is, the colours are ours.  A
.seq file is a sequence of messages between lanes, see `Sequence`.  Each SVG carries the digest of
what it was made from, so that a check needs no Graphviz: ``--check`` only compares those.
"""

from __future__ import annotations

import hashlib
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "drawings"
FONT: Final = "'DejaVu Sans', Verdana, 'Helvetica Neue', Arial, sans-serif"
NODE_DEFAULTS: Final = (
    *("-Nshape=box", "-Nstyle=rounded", "-Nfontsize=12", "-Nmargin=0.18,0.1"),
    *("-Efontsize=11", "-Gfontsize=12", "-Gpad=0.25", "-Earrowsize=0.7"),
    *("-Gfontname=DejaVu Sans", "-Nfontname=DejaVu Sans", "-Efontname=DejaVu Sans"),
)
LIGHT: Final = {
    "back": "#ffffff", "edge": "#d5dbe1", "ink": "#1d2731", "dim": "#56626e", "line": "#6a7681",
    "box": "#f3f5f7", "mine": "#dcebfb", "blue": "#1663ae", "good": "#dff3e3", "green": "#2b7a3d",
    "warn": "#fdeeda", "amber": "#a85f00", "group": "#fafbfc",
}  # fmt: skip
DARK: Final = {
    "back": "#15191e", "edge": "#333b44", "ink": "#e4e9ee", "dim": "#a3adb8", "line": "#8894a0",
    "box": "#252c34", "mine": "#173553", "blue": "#7db9f5", "good": "#1b3a24", "green": "#7fd08f",
    "warn": "#40301a", "amber": "#f0b35c", "group": "#1b2026",
}  # fmt: skip
RULES: Final = """
.back {{ fill: {back}; stroke: {edge} }}
text {{ font-family: {font}; fill: {ink} }}
.edge text, .dim {{ fill: {dim} }}
.node path, .node polygon, .node ellipse, .lane {{ fill: {box}; stroke: {line} }}
.node.mine path, rect.mine {{ fill: {mine}; stroke: {blue} }}
.node.good path {{ fill: {good}; stroke: {green} }}
.node.warn path, .node.data polygon, rect.warn {{ fill: {warn}; stroke: {amber} }}
.node.outside path {{ fill: {back}; stroke: {line} }}
.cluster polygon, .cluster path {{ fill: {group}; stroke: {edge} }}
.cluster text {{ fill: {dim} }}
.edge path, .arrow, .life {{ fill: none; stroke: {line} }}
.edge polygon, .head {{ fill: {line}; stroke: {line} }}
.edge.wire path, .arrow.strong {{ stroke: {blue}; stroke-width: 2 }}
.edge.wire polygon, .head.strong {{ fill: {blue}; stroke: {blue} }}
.edge.quiet path, .life {{ stroke-dasharray: 4 4 }}
.arrow.soft {{ stroke-dasharray: 5 4 }}
.part {{ fill: {blue}; font-weight: bold }}
.rule {{ stroke: {edge} }}
"""


def main() -> int:
    """Draw what is not current; with --check only say so."""
    stale = []
    for source in sorted((*FOLDER.glob("*.dot"), *FOLDER.glob("*.seq"))):
        target = source.with_suffix(".svg")
        if target.exists() and digest(source) in target.read_text("utf-8"):
            continue
        stale.append(target.name)
        if "--check" not in sys.argv[1:]:
            target.write_text(draw(source), "utf-8")
            print(f"drawn: {target.name}")
    if stale and "--check" in sys.argv[1:]:
        print(f"not up to date, run make docs: {', '.join(stale)}")
        return 1
    return 0


def digest(source: Path) -> str:
    """What the drawing depends on: its source and this program."""
    return hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:32]


def draw(source: Path) -> str:
    """The whole SVG of one source."""
    if source.suffix == ".dot":
        width, height, body = graph(source)
    else:
        width, height, body = Sequence.read(source.read_text("utf-8")).drawn()
    light, dark = (RULES.format(font=FONT, **colours) for colours in (LIGHT, DARK))
    return (
        "<!-- SPDX-FileCopyrightText: 2026 pve-pybridge contributors\n"
        "     SPDX-License-Identifier: Apache-2.0\n"
        f"     made from {source.name} {digest(source)} -->\n"
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n'
        f"<style>{light}@media (prefers-color-scheme: dark) {{{dark}}}</style>\n"
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" '
        f'rx="8"/>\n{body}\n</svg>\n'
    )


def graph(source: Path) -> tuple[int, int, str]:
    """A .dot file by Graphviz, without its colours and its page."""
    made = subprocess.run(
        ["dot", "-Tsvg", *NODE_DEFAULTS, str(source)], capture_output=True, text=True, check=True
    ).stdout
    size = re.search(r'viewBox="[0-9.]+ [0-9.]+ ([0-9.]+) ([0-9.]+)"', made)
    assert size is not None
    body = made[made.index("<g id=") : made.rindex("</svg>")]
    body = re.sub(r"<title>.*?</title>\n|<!--.*?-->\n", "", body, flags=re.S)
    body = re.sub(
        r'<polygon fill="white" stroke="(?:none|transparent)" points="[^"]*"/>\n', "", body, count=1
    )
    body = re.sub(r' (?:fill|stroke|font-family)="[^"]*"', "", body)
    return math.ceil(float(size[1])), math.ceil(float(size[2])), body.strip()


@dataclass
class Sequence:
    """Messages between lanes, from top to bottom.

    ``lanes: a | b``; ``1 -> 2: text`` a message, ``-->`` one in passing, ``=>`` one that matters;
    ``2: text`` what happens in a lane; ``-- title`` begins a part.
    """

    lanes: list[str]
    steps: list[tuple[str, ...]] = field(default_factory=list)
    step_width: int = 212
    margin: int = 106

    @classmethod
    def read(cls, text: str) -> Sequence:
        """The sequence a .seq file describes; ValueError names a line that is none of its kind."""
        self = cls([])
        for line in filter(None, (raw.split("#")[0].strip() for raw in text.splitlines())):
            if line.startswith("lanes:"):
                self.lanes = [lane.strip() for lane in line.removeprefix("lanes:").split("|")]
            elif line.startswith("-- "):
                self.steps.append(("part", line[3:]))
            elif match := re.fullmatch(r"(\d) (-->|->|=>) (\d): (.*)", line):
                self.steps.append(("arrow", *match.groups()))
            elif match := re.fullmatch(r"(\d): (.*)", line):
                self.steps.append(("note", *match.groups()))
            else:
                raise ValueError(f"not a step: {line}")
        return self

    def x(self, lane: str | int) -> int:
        """Where a lane's line is."""
        return self.margin + (int(lane) - 1) * self.step_width

    def drawn(self) -> tuple[int, int, str]:
        """Width, height, body."""
        width = 2 * self.margin + (len(self.lanes) - 1) * self.step_width
        draw_step: dict[str, Callable[..., int]] = {
            "part": self._part,
            "arrow": self._arrow,
            "note": self._note,
        }
        out: list[str] = []
        y = 82
        for step in self.steps:
            y = draw_step[step[0]](out, y, width, *step[1:])
        height = y + 4
        frame = []
        for number, lane in enumerate(self.lanes, 1):
            x = self.x(number)
            kind = "mine" if number == len(self.lanes) else "lane"
            frame.append(f'<line class="life" x1="{x}" x2="{x}" y1="52" y2="{height - 14}"/>')
            frame.append(
                f'<rect class="{kind}" x="{x - 90}" y="18" width="180" height="34" rx="7"/>'
                + _text(x, 40, lane, 13)
            )
        return width, height, "\n".join(frame + out)

    def _part(self, out: list[str], y: int, width: int, title: str) -> int:
        out.append(
            f'<rect class="back" style="stroke:none" x="8" y="{y - 14}" '
            f'width="{width - 16}" height="28"/>'
        )
        out.append(f'<line class="rule" x1="16" x2="{width - 16}" y1="{y + 9}" y2="{y + 9}"/>')
        out.append(_text(16, y + 2, title, 12.5, "part", "start"))
        return y + 42

    def _arrow(self, out: list[str], y: int, width: int, *step: str) -> int:
        start, kind, end, text = step
        x1, x2 = self.x(start), self.x(end)
        look = {"->": "", "-->": " soft", "=>": " strong"}[kind]
        lines = textwrap.wrap(text, max(26, abs(x2 - x1) // 7 - 2))
        for line in lines:
            out.append(_label((x1 + x2) / 2, y, line))
            y += 16
        y -= 8
        tip = -8 if x2 > x1 else 8
        out.append(f'<line class="arrow{look}" x1="{x1}" x2="{x2 + tip / 2}" y1="{y}" y2="{y}"/>')
        points = f"{x2},{y} {x2 + tip},{y - 4} {x2 + tip},{y + 4}"
        out.append(f'<polygon class="head{look}" points="{points}"/>')
        return y + 30

    def _note(self, out: list[str], y: int, width: int, lane: str, text: str) -> int:
        lines = textwrap.wrap(text, 27)
        tall = 16 * len(lines) + 10
        x = self.x(lane)
        out.append(
            f'<rect class="warn" x="{x - 98}" y="{y - 16}" width="196" height="{tall}" rx="4"/>'
        )
        for number, line in enumerate(lines):
            out.append(_text(x, y + 16 * number, line, 11.5))
        return y + tall + 14


def _text(
    x: float, y: float, text: str, size: float, kind: str = "", anchor: str = "middle"
) -> str:
    return (
        f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _label(x: float, y: float, text: str) -> str:
    """Text on a patch of background, so that lanes don't cross it."""
    half = len(text) * 3.5 + 4
    patch = (
        f'<rect class="back" style="stroke:none" x="{x - half:g}" y="{y - 11:g}" '
        f'width="{2 * half:g}" height="15"/>'
    )
    return patch + _text(x, y, text, 11.5)


if __name__ == "__main__":
    sys.exit(main())
