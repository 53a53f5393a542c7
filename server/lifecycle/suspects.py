"""Suspects: findings on a live collection, which are damage only if they stand while nobody writes."""

from dataclasses import dataclass, replace

from server.lifecycle.findings import Finding, Kind

_LONGEST_PAUSE = 10.0  # seconds between two looks at one document


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What makes a finding certain: that the same was found at each of ``looks`` looks over at least
    ``seconds``, while the document kept its revision.

    ``unfinished``: the seconds for writes that are incomplete; longer than a request lives, since one
    that is under way looks the same. ``busy``: seconds more, after which a document that changed all
    the time is left to its writers, who replace whatever it has.
    """

    looks: int = 3
    seconds: float = 2.0
    unfinished: float = 300.0
    busy: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A document with findings, and since when they stand; times are of one monotonic clock.

    ``certain``: what was certain before it was mended, ``attempts`` times, of which the last failed
    for ``reason`` (empty: it did not).
    """

    document_id: str
    revision: int
    findings: tuple[Finding, ...]
    first: float
    since: float
    due: float
    looks: int = 1
    changes: int = 0
    certain: tuple[Finding, ...] = ()
    attempts: int = 0
    reason: str = ""

    @classmethod
    def new(
        cls, document_id: str, revision: int, findings: tuple[Finding, ...], now: float
    ) -> "Suspect":
        return cls(
            document_id=document_id,
            revision=revision,
            findings=findings,
            first=now,
            since=now,
            due=now,
        )

    def seen(
        self, revision: int, findings: tuple[Finding, ...], now: float, patience: Patience
    ) -> "Suspect":
        """After another look, at which there were findings."""
        if (revision, findings) == (self.revision, self.findings):
            after = replace(self, looks=self.looks + 1)
        else:
            after = replace(
                self,
                revision=revision,
                findings=findings,
                since=now,
                looks=1,
                changes=self.changes + 1,
            )
        pause = patience.seconds / max(1, patience.looks - 1)
        growing = min(_LONGEST_PAUSE, (now - after.since) / 4)
        return replace(after, due=now + max(pause, growing))

    def stands(self, now: float, patience: Patience) -> bool:
        """Whether its findings are certain."""
        return self.looks >= patience.looks and now - self.since >= self._seconds(patience)

    def is_busy(self, now: float, patience: Patience) -> bool:
        """Whether it was written all the time, so that nothing can be said."""
        return bool(self.changes) and now - self.first > patience.busy + self._seconds(patience)

    def mended(self, reason: str, now: float) -> "Suspect":
        """After an attempt to mend it: it has to be looked at as if it were new."""
        return replace(
            self,
            certain=tuple(dict.fromkeys((*self.certain, *self.findings))),
            attempts=self.attempts + 1,
            reason=reason,
            first=now,
            since=now,
            due=now,
            looks=0,
            changes=0,
        )

    def _seconds(self, patience: Patience) -> float:
        unfinished = any(each.kind is Kind.INCOMPLETE_WRITE for each in self.findings)
        return patience.unfinished if unfinished else patience.seconds
