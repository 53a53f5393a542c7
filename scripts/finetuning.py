"""What scripts/finetune_embedder and scripts/finetune_reranker share: options, stages, what is told."""

import argparse
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

NO_GAIN, WRONG, RUNNING, FAILED, INTERRUPTED = 1, 2, 4, 5, 130


def parser(name: str, description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--collection", default="default", help="collection to learn from (default)")
    made.add_argument("--model", help="what to start from, as the setting names it")
    what = made.add_argument_group("questions")
    what.add_argument(
        "--judged",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder with queries.jsonl and qrels.tsv (BEIR form); may be repeated",
    )
    what.add_argument("--no-feedback", action="store_true", help="leave the users' feedback out")
    what.add_argument("--no-titles", action="store_true", help="leave titles and headings out")
    what.add_argument(
        "--written",
        type=int,
        default=0,
        metavar="N",
        help="let the language model write questions of N passages (0)",
    )
    what.add_argument(
        "--held-out",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the questions, with all their documents, to measure by (0.2)",
    )
    what.add_argument("--dry-run", action="store_true", help="count the questions and stop")
    how = made.add_argument_group("training")
    how.add_argument("--epochs", type=int, default=2, help="times through the examples (2)")
    how.add_argument("--rate", type=float, default=2e-5, help="highest learning rate (2e-5)")
    how.add_argument("--batch", type=int, default=32, help="examples in a batch (32)")
    how.add_argument("--negatives", type=int, default=4, help="hard negatives of an example (4)")
    how.add_argument(
        "--max-tokens", type=int, default=512, help="longer texts are cut in training (512)"
    )
    how.add_argument("--seed", type=int, default=1, help="of everything that is drawn (1)")
    made.add_argument(
        "--pool",
        type=int,
        default=20_000,
        metavar="N",
        help="passages at most that an embedder is measured over (20,000)",
    )
    made.add_argument("--keep", action="store_true", help="keep the model also without a gain")
    made.add_argument("--data", help="TANYUAN_DATA")
    made.add_argument("--store", help="TANYUAN_STORE")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def guarded(name: str, run, arguments: argparse.Namespace) -> int:
    """Run a script's ``run``; its errors as messages and exit codes."""
    from server.errors import (
        ModelUnavailable,
        RebuildFailed,
        RebuildRunning,
        Stopped,
        StoreUnavailable,
        TanyuanError,
    )

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments)
    except RebuildRunning as error:
        code, message = RUNNING, error.message
    except (RebuildFailed, StoreUnavailable, ModelUnavailable, Stopped) as error:
        code, message = FAILED, error.message
    except TanyuanError as error:
        code, message = WRONG, error.message
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "stopped; nothing was changed."
    print(f"{name}: {message}", file=sys.stderr)
    return code


class Bars:
    """A progress bar for each stage, on a terminal's stderr."""

    def __init__(self) -> None:
        self._stage, self._bar = "", None

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage != self._stage:
            self.close()
            self._stage, self._bar = stage, tqdm(total=total, desc=stage, disable=None)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def settings_of(arguments: argparse.Namespace):
    from server.settings import Settings

    return Settings.load(data=arguments.data, store=arguments.store)


def wanted_of(arguments: argparse.Namespace):
    """What the options ask for. Raises InvalidInput."""
    from server.finetuning.finetuner import Wanted
    from server.finetuning.training import Options

    return Wanted(
        titles=not arguments.no_titles,
        written=0 if arguments.dry_run else arguments.written,
        share=arguments.held_out,
        pool=arguments.pool,
        keep=arguments.keep,
        options=Options(
            epochs=arguments.epochs,
            rate=arguments.rate,
            batch=arguments.batch,
            negatives=arguments.negatives,
            max_tokens=arguments.max_tokens,
            seed=arguments.seed,
        ),
    )


def finetuner_of(services, arguments: argparse.Namespace, scratch: Path, bars: Bars):
    """A Finetuner with what people asked and judged. Raises InvalidInput, CollectionNotFound."""
    from server.evaluation.dataset import Dataset
    from server.finetuning import sources
    from server.finetuning.answers import Answers
    from server.finetuning.corpus import Corpus
    from server.finetuning.finetuner import Finetuner
    from server.finetuning.shelf import Shelf
    from server.models.choice import choose_generator

    settings, collection = services.settings, arguments.collection
    corpus = Corpus(services.store.owned_chunks(collection))
    given = []
    if not arguments.no_feedback:
        said = services.feedback.judgements(collection)
        given += sources.judged(said.queries, said.qrels, corpus, source="feedback")
    for folder in arguments.judged:
        dataset = Dataset.load(folder)
        given += sources.judged(dataset.queries, dataset.qrels, corpus, source="judged")
    return Finetuner(
        services.searcher,
        collection,
        corpus,
        given,
        generator=choose_generator(settings).adapter if arguments.written else None,
        answers=Answers(settings.data / "finetuning" / f"{collection}.jsonl"),
        shelf=Shelf(settings.models_folder),
        scratch=scratch,
        progress=bars,
    )


def show_counts(material, as_json: bool) -> None:
    facts = material.as_dict()
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for side, title in (("train", "Questions to train on"), ("held_out", "Held out")):
        parts = ", ".join(f"{count:,} {source}" for source, count in facts[side].items())
        print(f"{title}: {parts or 'none'}")
    if facts["left_out_as_leaking"]:
        print(f"Left out, as their passages are held out: {facts['left_out_as_leaking']:,}")
    for reason, count in facts["written_refused"].items():
        print(f"Written and refused, {reason}: {count:,}")


def show_gains(result) -> None:
    for name, gain in result.against.items():
        test = gain.compared
        print(
            f"nDCG@10 on held-out questions: {gain.before:.4f} by {name}, {gain.after:.4f} after "
            f"({test.difference:+.4f}, 95 % {test.low:+.4f} to {test.high:+.4f}, p {test.p:.4f})"
        )
    if result.reason:
        print(f"The trained model can't be used: {result.reason}")


def as_named(settings, model: str):
    """These settings with another embedder."""
    return replace(settings, embedder=model)
