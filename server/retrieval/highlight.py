"""Highlights: which spans of an original text the query's terms hit."""

from server.analysis.contract import Analysis, Analyzer, Token
from server.hits import Span

MAX_SPANS = 200  # more help nobody and cost the page


def highlight(text: str, query: Analysis, analyzer: Analyzer) -> tuple[Span, ...]:
    """Spans of ``text`` (code points, sorted, apart) whose terms stand in the query.

    Words decide. Only where no word hits do bigrams, so that words unknown to the dictionary are
    still shown, without marking chance pairs of characters elsewhere.
    """
    analysis = analyzer.analyze(text)
    return _spans(text, analysis.words, query.words) or _spans(
        text, analysis.bigrams, query.bigrams
    )


def _spans(text: str, tokens: tuple[Token, ...], wanted: tuple[Token, ...]) -> tuple[Span, ...]:
    terms = {token.term for token in wanted}
    places = sorted({(token.start, token.end) for token in tokens if token.term in terms})
    merged: list[Span] = []
    for start, end in places:
        # Neighbouring Han words read as one mark; Latin words keep the blank between them.
        if merged and start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(end, merged[-1].end))
        else:
            merged.append(Span(start, end))
    return tuple(span for span in merged if text[span.start : span.end].strip())[:MAX_SPANS]
