"""The report as text for a terminal."""

from collections.abc import Iterable, Sequence

from server.evaluation.comparison import Comparison
from server.evaluation.measures import NAMES
from server.evaluation.report import Report
from server.evaluation.significance import ALPHA

SHOWN = 10  # queries of each kind

Row = tuple[str, ...]

_LONGEST = 60  # characters of a query


def as_text(report: Report) -> str:
    """Head, stages, comparisons, milliseconds, and the queries that changed most."""
    figures = report.means[report.final]
    head = [(name, plain(value)) for name, value in report.about.items()]
    head += [(name, f"{figures[name]:.4f}") for name in NAMES]
    parts = [_lines(head, left=2), _stages(report)]
    if report.comparisons:
        parts.append(_comparisons(report.comparisons))
    if report.latencies:
        rows: list[Row] = [("milliseconds", "median", "95 %", "longest")]
        rows += [
            (each.part, *(f"{ms:.1f}" for ms in (each.median, each.p95, each.longest)))
            for each in report.latencies
        ]
        parts.append(_lines(rows))
    parts += _changes(report)
    return "\n\n".join(parts)


def signed(value: float) -> str:
    return f"{value:+.4f}"


def p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<.0001"


def plain(value: object) -> str:
    """A value of the head in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(str(each) for each in value)
    return str(value)


def place(ranks: Iterable[int | None]) -> str:
    """Ranks in the runs, as "3 · – · 1"."""
    return " · ".join("–" if rank is None else str(rank) for rank in ranks)


def _stages(report: Report) -> str:
    rows: list[Row] = [("stage", *NAMES)]
    rows += [
        (name, *(f"{figures[measure]:.4f}" for measure in NAMES))
        for name, figures in report.means.items()
    ]
    return _lines(rows)


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    measure = comparisons[0].measure
    rows: list[Row] = [
        (measure, "difference", "95 % interval", "p", "p (Holm)", "better", "equal", "worse")
    ]
    for each in comparisons:
        test = each.paired
        equal = len(each.deltas) - each.better - each.worse
        rows.append(
            (
                f"{each.run} against {each.baseline}",
                signed(test.difference) + ("*" if each.p_adjusted < ALPHA else " "),
                f"{signed(test.low)} to {signed(test.high)}",
                p_value(test.p),
                p_value(each.p_adjusted),
                *(str(count) for count in (each.better, equal, each.worse)),
            )
        )
    return _lines(rows)


def _changes(report: Report) -> list[str]:
    runs = " · ".join(report.rankings)
    parts = []
    for title, query_ids, changes in _groups(report):
        rows = [
            (signed(changes[query_id]), query_id, _ranks(report, query_id), _text(report, query_id))
            for query_id in query_ids[:SHOWN]
        ]
        if rows:
            head = f"{title}; best relevant document's rank in {runs}"
            parts.append(f"{head}\n{_lines(rows, left=4)}")
    return parts


def _groups(report: Report) -> list[tuple[str, list[str], dict[str, float]]]:
    if not report.comparisons:
        values = report.values[report.final][report.measure]
        return [(f"Lowest {report.measure}", report.worst(), values)]
    first = report.comparisons[0]
    about = f"{first.measure} of {first.run} against {first.baseline}"
    return [
        (f"Largest losses, {about}", first.losses(), dict(first.deltas)),
        (f"Largest gains, {about}", first.gains(), dict(first.deltas)),
    ]


def _ranks(report: Report, query_id: str) -> str:
    """The best rank of any relevant document in each run."""
    places = report.places(query_id).values()
    best = {
        name: min((ranks[name] or 0 for ranks in places if ranks[name]), default=None)
        for name in report.rankings
    }
    return place(best.values())


def _text(report: Report, query_id: str) -> str:
    text = " ".join(report.dataset.queries[query_id].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _lines(rows: Sequence[Row], *, left: int = 1) -> str:
    """Columns of equal width; the first ``left`` to the left, the others, figures, to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
