# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One picture for each series, SVG: distributions as shares, sizes and widths as lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from .figures import Series

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS: Final = {
    "bridge": "#c0392b",
    "floor": "#2c3e50",
    "native": "#27ae60",
    "spawn": "#8e44ad",
    "bare": "#7f8c8d",
    "inline": "#e67e22",
    "parser": "#27ae60",
    "direct": "#2c3e50",
}
POINTS: Final = 400
"""Points of a distribution's line; more can't be seen."""


def draw(series: Sequence[Series], folder: Path) -> None:
    """Write ``<name>.svg`` for each series."""
    mpl.rcParams.update({"svg.hashsalt": "pve-pybridge", "font.size": 10, "axes.grid": True})
    mpl.rcParams.update({"grid.alpha": 0.3, "legend.frameon": False})
    for one in series:
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        if one.bars:
            _bars(axes, one)
        else:
            for label, points in one.lines.items():
                axes.plot(*zip(*points, strict=True), "o-", label=label, color=COLOURS.get(label))
            for label, samples in one.samples.items():
                axes.plot(*_shares(samples), label=label, color=COLOURS.get(label))
            _logarithmic(axes.set_xscale, axes.xaxis)
            if one.lines:
                _logarithmic(axes.set_yscale, axes.yaxis)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            figure.legend(loc="outside lower center", ncols=2)
        axes.set(title=one.name, xlabel=one.x, ylabel=f"{one.y}, %" if one.samples else one.y)
        name = one.name.replace(" ", "-")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _logarithmic(set_scale: Callable[[str], object], axis: Axis) -> None:
    """Plain numbers, and where there is room more than one for each power of ten."""
    set_scale("log")
    least, most = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 1000 * least else (1,)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def _shares(samples: Sequence[float]) -> tuple[list[float], list[float]]:
    """How many of the samples are at most so long; the last percent of them without the worst."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    picks = sorted({round(last * n / POINTS) for n in range(POINTS + 1)})
    return [ordered[n] for n in picks], [100 * (n + 1) / len(ordered) for n in picks]


def _bars(axes: Any, one: Series) -> None:
    """Groups of bars: for each label on the axis one bar of each contender."""
    places = list(next(iter(one.bars.values())))
    width = 0.8 / len(one.bars)
    for number, (label, values) in enumerate(one.bars.items()):
        at = [place + (number - (len(one.bars) - 1) / 2) * width for place in range(len(places))]
        heights = [values[place] for place in places]
        axes.barh(at, heights, width, label=label, color=COLOURS.get(label))
    axes.set_yticks(range(len(places)), places)
    axes.invert_yaxis()
