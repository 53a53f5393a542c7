import subprocess
import sys

import pytest

from tests.product import ROOT, environment


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name two sets or more"),
        (["scripts/sample"], "Name two sets or more"),
        (["/nowhere", "/neither"], "/nowhere has no qrels.tsv"),
    ],
)
def test_wrong_use_is_told_and_exits_with_2(arguments, said, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train_ranker", *arguments],
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
