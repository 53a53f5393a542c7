"""The report as one HTML page that needs nothing else: no script, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from server.evaluation import charts
from server.evaluation.comparison import Comparison
from server.evaluation.evidence import Overlap
from server.evaluation.measures import NAMES
from server.evaluation.report import Report
from server.evaluation.significance import ALPHA
from server.evaluation.table import SHOWN, p_value, plain, signed

_RELEVANT = 5  # documents of a query that are listed
_PARTS: Mapping[str, str] = {
    "search": "the whole search",
    "analyze": "terms of the query",
    "embed": "vector of the query",
    "retrieve": "both retrievers",
    "bm25": "of it: bm25",
    "vector": "of it: vector",
    "fuse": "fusion",
    "rerank_passages": "passages for the reranker",
    "rerank": "reranker",
    "passages": "passages of the page",
    "highlight": "highlights",
}


@dataclass(frozen=True, slots=True)
class _Query:
    """A query as it is listed. ``places``: relevant document → run → rank; ``unlisted``: how many more
    of them there are."""

    id: str
    text: str
    figure: str
    kind: str
    places: Mapping[str, Mapping[str, int | None]]
    unlisted: int


@dataclass(frozen=True, slots=True)
class _Interval:
    """A row of the comparisons' chart; positions from 0 to charts.WIDTH."""

    comparison: Comparison
    low: float
    middle: float
    high: float
    equal: int
    certain: bool


def as_html(report: Report) -> str:
    """The page, with everything that came from data escaped."""
    first = report.comparisons[0] if report.comparisons else None
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            about={name: plain(value) for name, value in report.about.items() if name != "data"},
            measures=NAMES,
            figures=report.means[report.final],
            best={name: max(each[name] for each in report.means.values()) for name in NAMES},
            intervals=_intervals(report.comparisons),
            first=first,
            gains=charts.gains([*first.deltas.values()]) if first else None,
            losses=[_changed(report, first, key) for key in first.losses()] if first else [],
            wins=[_changed(report, first, key) for key in first.gains()] if first else [],
            worst=[_low(report, query_id) for query_id in report.worst()[:SHOWN]],
            overlaps=[(each, _bar(each)) for each in report.overlaps],
            distributions=[
                (
                    each,
                    charts.shares(each.relevant, high),
                    charts.shares(each.others, high),
                    sum(each.relevant),
                    sum(each.others),
                )
                for each in report.scores
                for high in (charts.highest_share(each.relevant, each.others),)
            ],
            slowest=max((each.p95 for each in report.latencies), default=0.0),
            parts=_PARTS,
            shown=SHOWN,
            width=charts.WIDTH,
            height=charts.HEIGHT,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("server.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "p": p_value}
    return environment


def _intervals(comparisons: Sequence[Comparison]) -> list[_Interval]:
    """On one scale, with no difference in the middle."""
    ends = [abs(end) for each in comparisons for end in (each.paired.low, each.paired.high)]
    scale = charts.WIDTH / 2 / (max(ends, default=0.0) or 1.0) * 0.96
    middle = charts.WIDTH / 2
    return [
        _Interval(
            each,
            middle + each.paired.low * scale,
            middle + each.paired.difference * scale,
            middle + each.paired.high * scale,
            len(each.deltas) - each.better - each.worse,
            each.p_adjusted < ALPHA,
        )
        for each in comparisons
    ]


def _changed(report: Report, comparison: Comparison, query_id: str) -> _Query:
    delta = comparison.deltas[query_id]
    return _query(report, query_id, signed(delta), "good" if delta > 0 else "bad")


def _low(report: Report, query_id: str) -> _Query:
    value = report.values[report.final][report.measure][query_id]
    return _query(report, query_id, f"{value:.4f}", "plain")


def _query(report: Report, query_id: str, figure: str, kind: str) -> _Query:
    places = report.places(query_id)
    return _Query(
        query_id,
        report.dataset.queries[query_id],
        figure,
        kind,
        dict([*places.items()][:_RELEVANT]),
        max(0, len(places) - _RELEVANT),
    )


def _bar(overlap: Overlap) -> list[charts.Part]:
    return charts.stacked(
        [
            ("in both", "both", overlap.both),
            (f"only {overlap.first}", "first", overlap.only_first),
            (f"only {overlap.second}", "second", overlap.only_second),
            ("in neither", "neither", overlap.neither),
        ]
    )
