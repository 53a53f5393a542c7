"""FlagEmbedding's models, loaded quietly, from a folder.

FlagEmbedding loads the model and its tokenizer and pools. Its ``encode`` and ``compute_score`` are not
called: they run the first batch of every call twice to try out the batch size (a query takes 19 ms
instead of 8), print progress bars, and change the tokenizer's settings while other threads use it,
which was measured to give wrong vectors. Tests hold our values to theirs.
"""

from pathlib import Path
from typing import Any, Literal

from server.errors import ModelUnavailable
from server.models.tokens import Tokens
from server.models.torch_engine import Loaded
from server.models.weights import stay_offline

Kind = Literal["FlagModel", "FlagReranker"]


def load(
    kind: Kind,
    folder: Path,
    *,
    max_tokens: int,
    error: type[ModelUnavailable],
    **options: Any,
) -> Loaded:
    """Load a model: 5 to 12 s for the library, then the weights. Raises ``error``."""
    stay_offline()
    try:
        import FlagEmbedding  # noqa: PLC0415 - some seconds and 1 GB
        import torch  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415
    except ImportError as missing:
        raise error(
            f"FlagEmbedding can't be imported ({missing}): run scripts/run without --light, or "
            "pip install 'tanyuan[bge]'."
        ) from missing
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        flag = getattr(FlagEmbedding, kind)(
            str(folder), devices=[device], use_fp16=device != "cpu", **options
        )
        flag.model.to(device).eval()
        tokens = Tokens.load(
            flag.tokenizer.backend_tokenizer.to_str(),
            max_tokens=max_tokens,
            pairs=kind == "FlagReranker",
        )
    except Exception as failure:  # whatever the libraries raise on bad files
        raise error(f"The model in {folder} can't be loaded: {failure}") from failure
    return Loaded(model=flag, tokenizer=flag.tokenizer, tokens=tokens, device=device)
