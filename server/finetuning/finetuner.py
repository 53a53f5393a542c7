"""Finetuner: from a collection to a model that is better at its questions, or to nothing at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.errors import InvalidInput, ModelUnavailable
from server.finetuning import sources
from server.finetuning.answers import Answers
from server.finetuning.base import EmbedderBase, RerankerBase
from server.finetuning.corpus import Corpus
from server.finetuning.mining import Example, Miner, ranked
from server.finetuning.questions import Question, counts, merged
from server.finetuning.shelf import Shelf, new_name
from server.finetuning.split import Split, split
from server.finetuning.training import Options, train_embedder, train_reranker
from server.finetuning.trial import (
    CANDIDATES,
    Gain,
    compare,
    measure_embedder,
    measure_order,
    measure_reranker,
    pool,
)
from server.finetuning.written import Written, write
from server.models import tuned
from server.models.contract import Embedder, Generator
from server.retrieval.searcher import Searcher

Progress = Callable[[str, int, int], None]  # what goes on, steps done, steps in all
Train = Callable[[Path, Options, list[Example], Callable[[int, int], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """``titles``: use them; ``written``: of how many passages the language model is asked;
    ``share``: of the questions that is held out; ``pool``: chunks that an embedder's trial ranks;
    ``keep``: the model also where it gains nothing."""

    titles: bool = True
    written: int = 0
    share: float = 0.2
    pool: int = 20_000
    keep: bool = False
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInput("The share to hold out lies between 0 and 1.", field="held_out")
        if self.written < 0 or self.pool < 100:
            raise InvalidInput("--written is at least 0 and --pool at least 100.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """``refused``: questions of the language model that were thrown away, by reason."""

    split: Split
    refused: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {
            "train": counts(self.split.train),
            "held_out": counts(self.split.held_out),
            "left_out_as_leaking": self.split.leaking,
            "written_refused": dict(self.refused),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``model``: as the setting names it, where one was kept. ``against``: by what it was compared with,
    the model that it was made of first; empty where the trained model could not be used (``reason``)."""

    gained: bool
    model: str
    reason: str
    examples: int
    material: Material
    against: Mapping[str, Gain]
    served: Gain | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "gained": self.gained,
            "model": self.model,
            "reason": self.reason,
            "examples": self.examples,
            **self.material.as_dict(),
            "ndcg@10": {name: asdict(gain) for name, gain in self.against.items()},
            "served": asdict(self.served) if self.served else None,
        }


class Finetuner:
    """For one collection. ``given``: questions of people; ``generator`` None: there is none;
    ``answers``: what it wrote before; ``scratch``: an empty folder of ``shelf``."""

    def __init__(
        self,
        searcher: Searcher,
        collection: str,
        corpus: Corpus,
        given: Sequence[Question],
        *,
        generator: Generator | None,
        answers: Answers,
        shelf: Shelf,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._searcher = searcher
        self._collection = collection
        self._corpus = corpus
        self._given = given
        self._generator = generator
        self._answers = answers
        self._shelf = shelf
        self._scratch = scratch
        self._progress = progress

    def material(self, wanted: Wanted) -> Material:
        """Gather and split the questions. Raises InvalidInput where they are too few."""
        asked = [*self._given]
        if wanted.titles:
            asked += sources.titles(self._corpus)
        written = Written(questions=(), refused={})
        if wanted.written:
            if self._generator is None:
                raise InvalidInput("There is no language model to write questions.")
            written = write(
                self._generator,
                self._searcher,
                self._collection,
                self._corpus,
                passages=wanted.written,
                seed=wanted.options.seed,
                answers=self._answers,
                progress=self._told("write questions"),
            )
        questions = merged([*asked, *written.questions])
        divided = split(questions, self._corpus, share=wanted.share, seed=wanted.options.seed)
        return Material(split=divided, refused=written.refused)

    def embedder(
        self, base: EmbedderBase, material: Material, wanted: Wanted, *, live: Embedder | None
    ) -> Result:
        """Fine-tune an embedder. ``live``: what the collection is served with, which a gain must beat
        as well. Raises EmbedderUnavailable for models that were there before."""
        held_out = material.split.held_out
        chunk_ids = pool(self._corpus, held_out, size=wanted.pool, seed=wanted.options.seed)

        def measure(embedder: Embedder, what: str) -> list[float]:
            told = self._told(f"measure {what}")
            return measure_embedder(embedder, self._corpus, chunk_ids, held_out, told)

        before = {base.embedder.name: measure(base.embedder, "before")}
        if live is not None and live.fingerprint != base.embedder.fingerprint:
            before[live.name] = measure(live, "what serves now")
        return self._run(
            material,
            wanted,
            kind=base.kind,
            source=base.embedder.name,
            before=before,
            train=lambda folder, options, examples, told: train_embedder(
                base, examples, folder, options, told
            ),
            after=lambda folder, name: measure(base.open(folder, name), "after"),
            manifest={
                "component": "embedder",
                "fingerprint_of_source": base.embedder.fingerprint,
                "temperature": base.embedder.temperature,
            },
        )

    def reranker(self, base: RerankerBase, material: Material, wanted: Wanted) -> Result:
        """Fine-tune a reranker. Raises RerankerUnavailable for one that was there before."""
        held_out = material.split.held_out
        candidates = {
            each.text: [
                chunk_id
                for chunk_id in ranked(self._searcher, self._collection, each.text)
                if chunk_id in self._corpus.pieces
            ][:CANDIDATES]
            for each in held_out
        }

        def measure(folder: Path, name: str) -> list[float]:
            reranker = base.reranker if folder == base.folder else base.open(folder, name)
            told = self._told("measure before" if folder == base.folder else "measure after")
            return measure_reranker(reranker, self._corpus, candidates, held_out, told)

        return self._run(
            material,
            wanted,
            kind=base.kind,
            source=base.reranker.name,
            before={base.reranker.name: measure(base.folder, "")},
            train=lambda folder, options, examples, told: train_reranker(
                base, examples, folder, options, told
            ),
            after=measure,
            manifest={"component": "reranker"},
            fused=measure_order(candidates, held_out),
        )

    def _run(
        self,
        material: Material,
        wanted: Wanted,
        *,
        kind: str,
        source: str,
        before: Mapping[str, Sequence[float]],
        train: Train,
        after: Callable[[Path, str], list[float]],
        manifest: Mapping[str, Any],
        fused: Sequence[float] | None = None,
    ) -> Result:
        """Train in the scratch folder, compare, and place the model on gain."""
        miner = Miner(
            self._searcher,
            self._collection,
            self._corpus,
            material.split,
            negatives=wanted.options.negatives,
            seed=wanted.options.seed,
        )
        examples = miner.examples(material.split.train, self._told("find negatives"))
        made = self._scratch / "model"
        train(made, wanted.options, examples, self._told("train"))
        against: dict[str, Gain] = {}
        reason, served = "", None
        try:
            values = after(made, f"{kind}:{made}")
        except ModelUnavailable as error:  # training went astray: no numbers come out
            reason = error.message
        else:
            against = {name: compare(each, values) for name, each in before.items()}
            served = compare(fused, values) if fused is not None else None
        gained = bool(against) and all(gain.is_sure for gain in against.values())
        result = Result(
            gained=gained,
            model="",
            reason=reason,
            examples=len(examples),
            material=material,
            against=against,
            served=served,
        )
        if not gained and not (wanted.keep and not reason):
            return result
        name = new_name(source, self._collection)
        facts = {
            **manifest,
            "source": source,
            "collection": self._collection,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": asdict(wanted.options),
            **{key: value for key, value in result.as_dict().items() if key != "model"},
        }
        tuned.write(made, facts)
        self._shelf.place(made, name)
        return replace(result, model=f"{kind}:{name}")

    def _told(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(what, done, total)
