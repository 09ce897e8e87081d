"""The benchmark's picture: the ratios, and what a message costs step by step.

Owns a few lines of SVG. Never measures.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, ROW = 860, 250, 26


def drawn(document: Mapping[str, Any]) -> str:
    """SVG of a file that ``bench throughput`` wrote."""
    ratios = [
        (load["side"], statistics.median(load["times_plain"]))
        for load in document["load"].values()
        if load["times_plain"]
    ]
    costs = list(document.get("budget_us", {}).items())
    title = f"mailgate {document.get('commit', '')}, {document['cores']} cores, {document['at']}"
    first, top = _bars("Messages a second, times the plain pattern", ratios, 70, "×")
    second, end = _bars("Processor time a message by step, SQLite", costs, top + 30, "µs")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end + 20}"
 font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="20" y="28" font-size="16">{escape(title)}</text>
{first}
{second}
</svg>
"""


def _bars(title: str, rows: Sequence[tuple[str, float]], top: int, unit: str) -> tuple[str, int]:
    """Bars from ``top`` down, and where they end."""
    if not rows:
        return "", top
    across = (WIDTH - LEFT - 90) / max(*(value for _, value in rows), 1e-9)
    lines = [f'<text x="20" y="{top}" font-weight="bold">{escape(title)}</text>']
    for n, (name, value) in enumerate(rows):
        y = top + 14 + n * ROW
        width = round(max(0.0, value) * across, 1)
        told = f"{value:.1f}" if unit == "×" else f"{value:.0f}"
        lines.append(
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{width}" height="{ROW - 8}" fill="#2563eb"/>'
            f'<text x="{LEFT + width + 6}" y="{y + 14}">{told} {unit}</text>'
        )
    return "\n".join(lines), top + 14 + len(rows) * ROW
