"""The dashboard, the alert rules and the manual speak of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mailgate.http.exposition import exposition
from mailgate.metrics.families import FAMILIES
from mailgate.metrics.tally import Totals

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "monitoring" / "grafana-dashboard.json").read_text())
ALERTS = (ROOT / "monitoring" / "alerts.yml").read_text()
MANUAL = (ROOT / "docs" / "monitoring.md").read_text()

_WORDS = {
    *("by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless"),
    *("sum", "max", "min", "topk", "rate", "increase", "histogram_quantile", "absent"),
}
#: What comes from prometheus_client itself, and what Prometheus adds to every series.
_FOREIGN = {"process_resident_memory_bytes", "instance", "job"}


def _alert_expressions() -> list[str]:
    blocks = re.findall(r"^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", ALERTS, re.MULTILINE)
    return [" ".join((folded or plain).split()) for folded, plain in blocks]


def _expressions() -> list[str]:
    panels = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
    return [t["expr"] for p in panels for t in p["targets"]] + _alert_expressions()


def _shown() -> set[str]:
    """Every name under which a family is served."""
    names: set[str] = set()
    for family in FAMILIES.values():
        suffixes = ("_bucket", "_count", "_sum") if family.kind == "histogram" else ("",)
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("expression", _expressions())
def test_a_query_names_metrics_and_labels_that_there_are(expression: str) -> None:
    assert expression.count("(") == expression.count(")")
    bare = re.sub(r'"[^"]*"', '""', re.sub(r"\[[^\]]*\]", "", expression))
    names = set(re.findall(r"\b[a-z_]+\b", bare)) - _WORDS - _FOREIGN
    metrics = {name for name in names if name.startswith("mailgate_")}
    assert metrics
    assert metrics <= _shown()
    used = [f for f in FAMILIES.values() if any(m.startswith(f.name) for m in metrics)]
    labels = {label for family in used for label in family.labels}
    labels |= {"le"} if any(family.kind == "histogram" for family in used) else set()
    assert names - metrics <= labels
    for metric in re.findall(r"(?:rate|increase)\((mailgate_[a-z_]+)", bare):
        assert metric.endswith(("_total", "_bucket")), "a rate of what is no counter"


def test_every_metric_is_on_the_dashboard_and_in_the_manual() -> None:
    shown = " ".join(_expressions())
    rows = dict(re.findall(r"^\| `(mailgate_\w+)` \| (\w+) \|", MANUAL, re.MULTILINE))
    assert rows == {family.name: family.kind for family in FAMILIES.values()}
    for family in FAMILIES.values():
        assert family.name in shown or family.name == "mailgate_journal_look_seconds", family.name
        [row] = [line for line in MANUAL.splitlines() if line.startswith(f"| `{family.name}`")]
        assert family.help in row, family.name
        for label in family.labels:
            assert f"`{label}`" in row, f"{family.name}: {label}"


def test_each_alert_has_a_meaning_and_an_answer() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len(set(alerts)) == len(_alert_expressions())
    assert ALERTS.count("severity:") == ALERTS.count("summary:") == len(alerts)
    for alert in alerts:
        assert f"| `{alert}` |" in MANUAL


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place: dict[str, int] = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on another panel"
                taken.add((x, y))
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        assert panel["type"] in ("stat", "timeseries")
        refs: list[Any] = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_name_stands_on_the_page_before_anything_was_counted() -> None:
    page = exposition(Totals(), process=False)[0].decode()
    for family in FAMILIES.values():
        assert f"# HELP {family.name.removesuffix('_total')}" in page
