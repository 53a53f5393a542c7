import re
import signal
import subprocess
import sys

import pytest

from server.errors import RebuildRunning
from server.finetuning.shelf import Shelf, new_name
from server.models import weights
from tests.product import ROOT

HOLD = """
import sys, time
from pathlib import Path
from server.finetuning.shelf import Shelf
with Shelf(Path(sys.argv[1])).scratch() as scratch:
    (scratch / "model").mkdir()
    (scratch / "model" / "half.safetensors").write_bytes(b"half")
    print("holding", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_run_left_is_gone_with_the_next(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder.stdout:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(RebuildRunning, match="Another fine-tuning"), Shelf(tmp_path).scratch():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert list(tmp_path.rglob("half.safetensors"))
    with Shelf(tmp_path).scratch() as scratch:
        assert list(scratch.iterdir()) == []
    assert not scratch.exists()
    assert not (tmp_path / "tuned").exists()


def test_a_model_is_placed_whole_and_is_found_by_its_name(tmp_path):
    shelf = Shelf(tmp_path)
    name = new_name("bge:BAAI/bge-base-zh-v1.5", "default")
    with shelf.scratch() as scratch:
        made = scratch / "model"
        made.mkdir()
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (made / file).write_text("{}")
        assert shelf.place(made, name) == tmp_path / name
    assert weights.find(name, tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("source", "begins"),
    [
        ("bge:BAAI/bge-base-zh-v1.5", "tuned/bge-base-zh-v1.5-kb-2"),
        ("sentence-transformers:/models/我们的 model", "tuned/model-kb-2"),
        ("bge:tuned/bge-base-zh-v1.5-kb-20261125-025656", "tuned/bge-base-zh-v1.5-kb-2"),
        ("bge:" + "x" * 300, "tuned/xxx"),
    ],
)
def test_names_say_what_a_model_was_made_of(source, begins):
    name = new_name(source, "kb")
    assert name.startswith(begins)
    assert re.fullmatch(r"tuned/[A-Za-z0-9][\w.-]{0,95}", name, re.ASCII)
