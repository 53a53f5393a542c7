"""Shapes of the report's charts as SVG path data, in a box of WIDTH by HEIGHT that the page stretches.

Only shapes stand in it: words and figures stand beside it, so that they keep their size on any screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

WIDTH, HEIGHT = 1000.0, 200.0


@dataclass(frozen=True, slots=True)
class Gains:
    """Areas of the bars above and below the ``zero`` line; ``top`` and ``bottom`` are the scale."""

    gained: str
    lost: str
    zero: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a stacked bar: ``x`` and ``width`` within WIDTH, and its share of the whole."""

    name: str
    kind: str
    count: int
    share: float
    x: float
    width: float


def gains(deltas: Sequence[float]) -> Gains:
    """One bar a query that changed, the largest gain to the left, the largest loss to the right."""
    falling = sorted((delta for delta in deltas if delta), reverse=True)
    if not falling:
        return Gains("", "", HEIGHT / 2, 0.0, 0.0)
    top, bottom = max(0.0, falling[0]), min(0.0, falling[-1])
    scale = HEIGHT / (top - bottom)
    zero = HEIGHT * (top / (top - bottom))
    width = WIDTH / len(falling)
    won = [zero - delta * scale for delta in falling if delta > 0]
    lost = [zero - delta * scale for delta in falling if delta < 0]
    return Gains(
        gained=steps(won, width=width, base=zero),
        lost=steps(lost, width=width, base=zero, start=len(won) * width),
        zero=zero,
        top=top,
        bottom=bottom,
    )


def shares(counts: Sequence[int], highest: float) -> str:
    """The area of a histogram whose bins are shares of its own sum; ``highest`` fills the box."""
    whole = sum(counts)
    if not whole or not highest:
        return ""
    tops = [HEIGHT - HEIGHT * count / whole / highest for count in counts]
    return steps(tops, width=WIDTH / len(counts), base=HEIGHT)


def highest_share(*histograms: Sequence[int]) -> float:
    """The largest share that any bin has of its histogram."""
    return max((max(counts) / sum(counts) for counts in histograms if sum(counts)), default=0.0)


def stacked(parts: Sequence[tuple[str, str, int]]) -> list[Part]:
    """A bar of (name, kind, count) side by side; of width 0 where all counts are 0."""
    whole = sum(count for _, _, count in parts) or 1
    widths = [WIDTH * count / whole for _, _, count in parts]
    starts = accumulate(widths[:-1], initial=0.0)
    return [
        Part(name, kind, count, count / whole, x, width)
        for (name, kind, count), x, width in zip(parts, starts, widths, strict=True)
    ]


def steps(tops: Sequence[float], *, width: float, base: float, start: float = 0.0) -> str:
    """An area with a flat top for each value, down to ``base``; neighbours alike are one step."""
    if not tops:
        return ""
    path = [f"M{start:.2f} {base:.2f}"]
    previous = None
    for at, top in enumerate(tops):
        if top != previous:
            path.append(f"H{start + at * width:.2f}V{top:.2f}")
        previous = top
    path.append(f"H{start + len(tops) * width:.2f}V{base:.2f}Z")
    return "".join(path)
