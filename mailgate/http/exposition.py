"""Numbers as Prometheus reads them.

Owns prometheus_client, of which only the format is used: the counting is ``metrics``'.
Every family is shown with its meaning, also before it has any sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from mailgate.metrics.families import FAMILIES, Family
from mailgate.metrics.tally import Totals


def exposition(totals: Totals, accept: str = "", *, process: bool = True) -> tuple[bytes, str]:
    """The page and its content type; OpenMetrics where ``accept`` asks for it.

    With ``process`` it begins with this process's own CPU time, memory and descriptors.
    """
    registry = CollectorRegistry()
    if process:
        ProcessCollector(registry=registry)
    registry.register(_Totals(totals))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Totals:
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES.values():
            yield _spread(family, self._totals) if family.buckets else _plain(family, self._totals)


def _plain(family: Family, totals: Totals) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for (name, labels), number in totals.numbers.items():
        if name == family.name:
            metric.add_metric(labels, number)
    if not family.labels and not metric.samples and family.kind == "counter":
        # A counter without labels begins at nothing, so that its first step is seen.
        metric.add_metric((), 0)
    return metric


def _spread(family: Family, totals: Totals) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    bounds = [*(f"{bound:g}" for bound in family.buckets), "+Inf"]
    for (name, labels), spread in totals.spreads.items():
        if name == family.name:
            counts = accumulate(spread[:-1])
            buckets = list(zip(bounds, counts, strict=True))
            metric.add_metric(labels, buckets=buckets, sum_value=spread[-1])
    return metric
