"""What a measurement gives, and how it is shown: a table, JSON, a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pygal
from pygal.style import Style


@dataclass(frozen=True)
class Row:
    """One thing, done by this plugin and by the baseline, in turns.

    Attributes:
        name: What was measured.
        baseline: What it is held against.
        unit: ``s``, ``ms`` or ``MiB``.
        ours: A figure a round.
        theirs: The baseline's.
    """

    name: str
    baseline: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """Of the medians; below 1 the plugin takes less."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def ratios(self) -> tuple[float, float]:
        """The least and the most of a round's ratio to the baseline's median."""
        base = statistics.median(self.theirs)
        return min(self.ours) / base, max(self.ours) / base


def spread(figures: Sequence[float], unit: str) -> str:
    """Median, and from the least to the most."""
    digits = 2 if unit == "s" and max(figures) < 10 else 1
    least, middle, most = min(figures), statistics.median(figures), max(figures)
    return f"{middle:.{digits}f} {unit} ({least:.{digits}f} to {most:.{digits}f})"


def line(row: Row) -> str:
    """For a terminal, as soon as the row is there."""
    return (
        f"{row.name}: {spread(row.ours, row.unit)}, {row.baseline}: "
        f"{spread(row.theirs, row.unit)}, ratio {row.ratio:.3f}"
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table, ratios only: absolute times are a machine's."""
    lines = ["| What | Held against | Ratio (least to most) |", "| --- | --- | --- |"]
    for row in rows:
        least, most = row.ratios
        lines.append(
            f"| {row.name} | {row.baseline} | {row.ratio:.3f} ({least:.3f} to {most:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def write_json(rows: Sequence[Row], path: Path, about: dict[str, object]) -> None:
    """All figures, and what they were measured on."""
    found = [
        {**asdict(row), "ratio": row.ratio, "least": row.ratios[0], "most": row.ratios[1]}
        for row in rows
    ]
    path.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n")


def plot(rows: Sequence[Row], path: Path) -> None:
    """The medians' ratios as bars on a logarithmic scale, in SVG."""
    style = Style(
        background="white", plot_background="white", colors=("#3b6ea5",), font_family="sans-serif",
        label_font_size=13, value_font_size=13, title_font_size=16,
    )  # fmt: skip
    chart = pygal.HorizontalBar(
        style=style, js=[], show_legend=False, logarithmic=True, print_values=True,
        value_formatter=lambda ratio: f"{ratio:.3g}", width=900, height=60 + 42 * len(rows),
        title="Time by pytest-lima, where the baseline's is 1 (logarithmic)",
    )  # fmt: skip
    chart.x_labels = [row.name for row in reversed(rows)]
    chart.add("", [row.ratio for row in reversed(rows)])
    path.write_bytes(chart.render())


def show(rows: Sequence[Row]) -> None:
    """Print each row."""
    for row in rows:
        print(line(row), flush=True)
