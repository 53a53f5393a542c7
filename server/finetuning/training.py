"""Training through sentence-transformers: an embedder by contrast, a reranker by right and wrong pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import InvalidInput, ModelUnavailable
from server.finetuning.base import EmbedderBase, RerankerBase, as_trainable
from server.finetuning.mining import Example
from server.models import weights
from server.models.sentence_transformers import open_model, quiet

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``rate``: the highest learning rate, reached after a tenth of the steps, then falling to 0.
    ``max_tokens``: of a text in training; longer ones are cut there."""

    epochs: int = 2
    rate: float = 2e-5
    batch: int = 32
    negatives: int = 4
    max_tokens: int = 512
    seed: int = 1

    def __post_init__(self) -> None:
        bounds = {
            "epochs": (1, 1_000),
            "batch": (2, 4_096),
            "negatives": (1, 64),
            "max_tokens": (8, 8_192),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise InvalidInput(f"{name} is from {least} to {most:,}.", field=name)
        if not 0 < self.rate <= 100:
            raise InvalidInput("rate is above 0 and at most 100.", field="rate")


def train_embedder(
    base: EmbedderBase,
    examples: Sequence[Example],
    folder: Path,
    options: Options,
    progress: Progress,
) -> None:
    """Write the fine-tuned model into ``folder``. InfoNCE over the answers of the whole batch and the
    hard negatives, at the base model's own temperature.

    Raises ModelUnavailable, where training takes more memory than there is for one.
    """
    model = as_trainable(base, open_model)
    longest = model.max_seq_length
    model.max_seq_length = min(longest, options.max_tokens)
    from sentence_transformers import (  # noqa: PLC0415 - loaded by now
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (  # noqa: PLC0415
        MultipleNegativesRankingLoss,
    )

    columns = {
        "anchor": [each.query for each in examples],
        "positive": [each.positive for each in examples],
    }
    for place in range(options.negatives):
        columns[f"negative_{place + 1}"] = [each.negatives[place] for each in examples]
    prompts = dict.fromkeys(columns, base.passage_prompt) | {"anchor": base.query_prompt}
    arguments = SentenceTransformerTrainingArguments(
        **_common(folder, options),
        batch_sampler="no_duplicates",  # the same text would be wrong for one and right for another
        prompts={name: prompt for name, prompt in prompts.items() if prompt},
    )
    loss = MultipleNegativesRankingLoss(model, scale=1 / base.embedder.temperature)
    _run(_quietly(SentenceTransformerTrainer), model, arguments, columns, loss, progress)
    model.max_seq_length = longest
    model.save(str(folder), create_model_card=False)


def train_reranker(
    base: RerankerBase,
    examples: Sequence[Example],
    folder: Path,
    options: Options,
    progress: Progress,
) -> None:
    """Write the fine-tuned model into ``folder``. Cross entropy over pairs, each answer weighing as much
    as its negatives together.

    Raises ModelUnavailable.
    """
    from sentence_transformers import (  # noqa: PLC0415 - some seconds and 1 GB
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import (  # noqa: PLC0415
        BinaryCrossEntropyLoss,
    )
    from torch import tensor  # noqa: PLC0415

    quiet()
    model = CrossEncoder(str(base.folder), num_labels=1, local_files_only=True).float()
    model.max_seq_length = min(base.reranker.max_tokens, options.max_tokens)
    rows = [
        (each.query, passage, label)
        for each in examples
        for passage, label in [(each.positive, 1.0), *((wrong, 0.0) for wrong in each.negatives)]
    ]
    columns: dict[str, list[Any]] = {
        "query": [row[0] for row in rows],
        "passage": [row[1] for row in rows],
        "label": [row[2] for row in rows],
    }
    arguments = CrossEncoderTrainingArguments(**_common(folder, options))
    loss = BinaryCrossEntropyLoss(model, pos_weight=tensor(float(options.negatives)))
    _run(_quietly(CrossEncoderTrainer), model, arguments, columns, loss, progress)
    model.max_seq_length = base.reranker.max_tokens
    model.save(str(folder))
    (folder / "README.md").unlink(missing_ok=True)


def _common(folder: Path, options: Options) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - loaded by now

    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder.parent / "trainer"),
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.batch,
        "learning_rate": options.rate,
        "warmup_steps": 0.1,  # of all steps
        "seed": options.seed,
        "bf16": gpu and torch.cuda.is_bf16_supported(),
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _quietly(trainer: Any) -> Any:
    """Without the model card, for which the library would look things up on the hub."""

    class Quiet(trainer):  # type: ignore[misc]
        def add_model_card_callback(self, *_: Any, **__: Any) -> None:
            pass

    return Quiet


def _run(
    make: Any,
    model: Any,
    arguments: Any,
    columns: Mapping[str, list[Any]],
    loss: Any,
    progress: Progress,
) -> None:
    weights.stay_offline()
    from datasets import Dataset, disable_progress_bars  # noqa: PLC0415 - heavy
    from transformers import PrinterCallback, TrainerCallback  # noqa: PLC0415

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            progress(state.global_step, state.max_steps)

    disable_progress_bars()
    trainer = make(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(columns)),
        loss=loss,
        callbacks=[Told()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    try:
        trainer.train()
    except RuntimeError as error:  # torch's: memory, as a rule
        raise ModelUnavailable(
            f"Training failed: {error} Smaller --batch, --negatives or --max-tokens take less memory."
        ) from error
