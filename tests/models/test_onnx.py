"""Exports of BGE models: made, checked, refused when they don't hold, and served by the same adapters."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.errors import ConfigurationError, EmbedderUnavailable, InvalidInput, ModelUnavailable
from server.models import agreement, exports, weights
from server.models.bge import CHINESE_INSTRUCTION, BgeEmbedder
from server.models.bge_reranker import BgeReranker
from server.models.choice import EMBEDDERS, RERANKERS, choose_embedder, choose_reranker
from server.models.contract import gives_sparse
from server.models.cores import sums_byte_products
from server.models.exports import Export, ExportUnusable, Precision
from server.models.onnx_export import export
from server.settings import PrecisionKind, Settings
from tests.models import tiny
from tests.models.forks import in_child

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = sorted((ROOT / "scripts" / "sample" / "documents").rglob("*.md"))
QUERY = "差旅报销"
SPREAD = 0.1
# Some with as many tokens as others, which are run together.
TEXTS = [
    "差旅报销标准",
    "员工手册密码",
    "公司申请审批",
    "abc 123",
    "病假审批流程 hotel" * 3,
    "一线城市每晚住宿上限六百元" * 30,
    "年假" * 5_000,
    "",
    ".",
    "a <pad> b",
    "差\x00旅\ud800",
]
PRECISIONS: list[Precision] = ["fp32", "int8"]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [file.read_text(encoding="utf-8") for file in SAMPLE]


def _m3(folder: Path) -> Path:
    """An embedder of BGE-M3's kind: the tiny reranker's encoder and tokenizer."""
    from transformers import XLMRobertaModel

    source = tiny.reranker(folder.with_name("of-m3"), spread=SPREAD)
    model = XLMRobertaModel.from_pretrained(source, add_pooling_layer=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder.mkdir(exist_ok=True)
        shutil.copy(source / name, folder / name)
    model.save_pretrained(folder)
    return folder


def _bert_reranker(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tiny.bert(folder, spread=SPREAD)
    torch.manual_seed(7)
    config = BertConfig.from_pretrained(folder, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


# With smaller weights, as trained ones are, beside which int8's steps are small too.
MAKERS: dict[str, Callable[[Path], Path]] = {
    "bert": lambda folder: tiny.bert(folder, spread=SPREAD),
    "mean": lambda folder: tiny.bert(folder, pooling="mean", spread=SPREAD),
    "m3": _m3,
    "reranker": lambda folder: tiny.reranker(folder, spread=SPREAD),
    "bert-reranker": _bert_reranker,
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Callable[[str], Path]:
    """The folder of a tiny model that was exported, by the name of its kind; made once."""
    root = tmp_path_factory.mktemp("exported")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            export(MAKERS[name](root / name), texts)
        return root / name

    return folder


def found(folder: Path) -> Export:
    there = exports.find(folder)
    assert there is not None
    return there


def embedder(folder: Path, precision: Precision = "fp32") -> BgeEmbedder:
    return BgeEmbedder(folder, name="bge:bge-tiny-zh", export=found(folder), precision=precision)


def reranker(folder: Path, precision: Precision = "fp32") -> BgeReranker:
    return BgeReranker(folder, export=found(folder), precision=precision)


# Values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "mean", "m3"])
def test_an_embedder_gives_the_vectors_of_flag_embedding(
    exported: Callable[[str], Path], kind: str
) -> None:
    folder = exported(kind)
    torchs, ours = BgeEmbedder(folder, name="bge:bge-tiny-zh"), embedder(folder)
    assert ours.embed_documents(TEXTS) == pytest.approx(torchs.embed_documents(TEXTS), abs=1e-4)
    assert ours.embed_query(QUERY) == pytest.approx(torchs.embed_query(QUERY), abs=1e-4)
    assert ours.embed_documents([]).shape == (0, 32)
    assert ours.count_tokens("差旅 报销" * 20_000) == torchs.count_tokens("差旅 报销" * 20_000)
    assert ours.fingerprint == torchs.fingerprint


def test_an_embedder_gives_the_vectors_of_flag_embeddings_own_call(
    exported: Callable[[str], Path],
) -> None:
    from FlagEmbedding import FlagModel

    folder = exported("bert")
    flag = FlagModel(
        str(folder),
        query_instruction_for_retrieval=CHINESE_INSTRUCTION,
        use_fp16=False,
        devices="cpu",
        query_max_length=tiny.POSITIONS,
        passage_max_length=tiny.POSITIONS,
    )
    ours, clean = embedder(folder), TEXTS[:6]
    assert ours.embed_documents(clean) == pytest.approx(flag.encode_corpus(clean), abs=1e-4)
    assert ours.embed_query(QUERY) == pytest.approx(flag.encode_queries([QUERY])[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["reranker", "bert-reranker"])
def test_a_reranker_gives_the_scores_of_flag_embedding(
    exported: Callable[[str], Path], kind: str
) -> None:
    folder = exported(kind)
    torchs, ours = BgeReranker(folder), reranker(folder)
    for query in (QUERY, QUERY * 50, ""):
        assert ours.score(query, TEXTS) == pytest.approx(torchs.score(query, TEXTS), abs=1e-3)
    assert ours.score(QUERY, []) == []


def test_int8_is_near_and_has_a_fingerprint_of_its_own(exported: Callable[[str], Path]) -> None:
    exact, bytes_ = (embedder(exported("mean"), precision) for precision in PRECISIONS)
    cosines = (exact.embed_documents(TEXTS) * bytes_.embed_documents(TEXTS)).sum(axis=1)
    assert 0.999 < cosines.min() < 1 - 1e-7
    assert bytes_.fingerprint == f"{exact.fingerprint}:int8"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_text_gives_does_not_depend_on_its_neighbours(
    exported: Callable[[str], Path], precision: Precision
) -> None:
    model = embedder(exported("bert"), precision)
    alone = np.concatenate([model.embed_documents([text]) for text in TEXTS])
    assert np.array_equal(model.embed_documents(TEXTS), alone)
    assert np.array_equal(model.embed_documents(TEXTS[::-1])[::-1], alone)
    assert np.array_equal(model.embed_documents(TEXTS * 60), np.tile(alone, (60, 1)))
    scorer = reranker(exported("reranker"), precision)
    assert scorer.score(QUERY, TEXTS) == [scorer.score(QUERY, [text])[0] for text in TEXTS]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_32_threads_at_once_get_the_values_of_one(
    exported: Callable[[str], Path], precision: Precision
) -> None:
    model = embedder(exported("bert"), precision)  # not loaded yet
    scorer = reranker(exported("reranker"), precision)

    def work(number: int) -> tuple[bytes, bytes, list[float]]:
        text, start = TEXTS[number % len(TEXTS)], number % 5
        return (
            model.embed_query(text).tobytes(),
            model.embed_documents(TEXTS[start:]).tobytes(),
            scorer.score(text[:8], TEXTS[start:]),
        )

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(work, range(55)))
    assert together == [work(number) for number in range(55)]


def test_a_forked_child_serves_although_the_parent_did(exported: Callable[[str], Path]) -> None:
    model, scorer = embedder(exported("bert")), reranker(exported("reranker"), "int8")
    expected = model.embed_documents(TEXTS), scorer.score(QUERY, TEXTS)
    vectors, scores = in_child(lambda: (model.embed_documents(TEXTS), scorer.score(QUERY, TEXTS)))
    assert np.array_equal(vectors, expected[0])
    assert scores == expected[1]


# Exports -------------------------------------------------------------------------------------------


def test_an_export_states_what_it_was_made_of_and_how_it_agrees(
    exported: Callable[[str], Path],
) -> None:
    folder = exported("bert")
    manifest = json.loads((folder / weights.EXPORT / weights.MANIFEST).read_text())
    assert found(folder).digest == weights.digest(folder)
    assert set(manifest["versions"]) == {
        "onnx",
        "onnxruntime",
        "torch",
        "transformers",
        "FlagEmbedding",
    }
    assert manifest["opset"] == 19
    assert manifest["checks"]["fp32"]["cosine"] >= agreement.STATED.cosine
    for precision in PRECISIONS:
        assert found(folder).has(precision)
        assert {"overlap", "tau"} < set(manifest["checks"][precision])


def test_a_fitting_export_is_left_alone(exported: Callable[[str], Path], texts: list[str]) -> None:
    folder = exported("bert")
    before = (folder / weights.EXPORT).stat().st_ino
    assert export(folder, texts).unchanged
    assert (folder / weights.EXPORT).stat().st_ino == before


@pytest.mark.parametrize("stage", range(5))
def test_an_export_that_is_stopped_leaves_none_and_starts_again(
    tmp_path: Path, exported: Callable[[str], Path], texts: list[str], stage: int
) -> None:
    folder = _without_export(exported("bert"), tmp_path / "model")
    stages: list[str] = []

    def stop(name: str) -> None:
        stages.append(name)
        if len(stages) > stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(folder, texts, progress=stop)
    assert exports.find(folder) is None
    assert list(folder.glob(".tanyuan*")) == []
    if stage == 4:
        assert not export(folder, texts, int8=False).unchanged
        assert found(folder).has("fp32")
        assert not found(folder).has("int8")


def test_what_a_killed_export_left_is_not_taken(
    tmp_path: Path, exported: Callable[[str], Path], texts: list[str]
) -> None:
    folder = _without_export(exported("bert"), tmp_path / "model")
    part = shutil.copytree(exported("bert") / weights.EXPORT, folder / f".{weights.EXPORT}.part")
    old = shutil.copytree(part, folder / f".{weights.EXPORT}.old")
    assert exports.find(folder) is None
    assert not export(folder, texts, int8=False).unchanged
    assert not part.exists()
    assert not old.exists()


def _without_export(source: Path, folder: Path) -> Path:
    return shutil.copytree(source, folder, ignore=shutil.ignore_patterns(weights.EXPORT))


def test_an_export_goes_where_it_is_wanted_with_what_serving_needs(
    tmp_path: Path, exported: Callable[[str], Path], texts: list[str]
) -> None:
    folder = _without_export(exported("mean"), tmp_path / "model")
    made = export(folder, texts, int8=False, target=tmp_path / "served")
    assert made.folder.parent == tmp_path / "served"
    assert exports.find(folder) is None
    assert export(folder, texts, int8=False, target=tmp_path / "served").unchanged
    served = embedder(tmp_path / "served")
    assert served.pooling == "mean"
    assert served.fingerprint == BgeEmbedder(folder, name=served.name).fingerprint
    assert served.embed_query(QUERY).shape == (32,)


@pytest.mark.parametrize(("precision", "sparse"), [("auto", True), ("fp32", False)])
def test_an_export_gives_no_sparse_weights_so_it_has_to_be_asked_for(
    tmp_path: Path, exported: Callable[[str], Path], precision: PrecisionKind, sparse: bool
) -> None:
    folder = shutil.copytree(exported("m3"), tmp_path / "model")
    shutil.copy(tiny.m3(tmp_path / "with a head") / "sparse_linear.pt", folder)
    settings = Settings(data=tmp_path, embedder=f"bge:{folder}", precision=precision)
    chosen = choose_embedder(settings)
    assert gives_sparse(chosen.adapter) == sparse
    assert ("ONNX" in chosen.reason) != sparse


def test_a_model_whose_int8_ranks_otherwise_gets_none(tmp_path: Path, texts: list[str]) -> None:
    import torch
    from transformers import BertModel

    folder = tiny.bert(tmp_path / "model")
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.encoder.layer:  # attention that small errors turn elsewhere
            layer.attention.self.query.weight *= 50
    model.save_pretrained(folder)
    made = export(folder, texts)
    assert made.checks["fp32"]["usable"]
    assert not made.checks["int8"]["usable"]
    assert not found(folder).has("int8")
    assert list(made.folder.glob("int8*")) == []
    assert export(folder, texts).unchanged


def test_models_of_other_kinds_are_refused(tmp_path: Path, texts: list[str]) -> None:
    folder = tiny.bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(InvalidInput, match="hidden_act 'relu'"):
        export(folder, texts)
    with pytest.raises(InvalidInput, match="3 numbers"):
        export(tiny.reranker(tmp_path / "classifier", labels=3), texts)
    assert exports.find(folder) is None


def test_two_exports_of_one_model_do_not_meet(
    tmp_path: Path, exported: Callable[[str], Path], texts: list[str]
) -> None:
    folder = _without_export(exported("bert"), tmp_path / "model")

    def meet(_: str) -> None:
        export(folder, texts)

    with pytest.raises(ModelUnavailable, match="Another process"):
        export(folder, texts, progress=meet)


def _damage(folder: Path, how: str, other: Path) -> None:
    export_folder = folder / weights.EXPORT
    manifest = export_folder / weights.MANIFEST
    if how == "cut":
        with (export_folder / "fp32.bin").open("r+b") as file:
            file.truncate(4096)
    elif how == "changed":
        content = bytearray((export_folder / "fp32.bin").read_bytes())
        content[len(content) // 2] ^= 0xFF
        (export_folder / "fp32.bin").write_bytes(content)
    elif how == "lost":
        (export_folder / "words.npy").unlink()
    elif how == "no manifest":
        manifest.unlink()
    elif how == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:200])
    elif how == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    elif how == "foreign":
        shutil.copy(other / "model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", r"is damaged \(fp32.bin\)"),
        ("changed", r"is damaged \(fp32.bin\)"),
        ("lost", r"is damaged \(words.npy\)"),
        ("no manifest", "no whole manifest"),
        ("half a manifest", "no whole manifest"),
        ("format", "format 2"),
        ("foreign", r"other weights \(model.safetensors"),
    ],
)
def test_an_export_that_does_not_hold_is_refused_and_named(
    tmp_path: Path, exported: Callable[[str], Path], how: str, said: str
) -> None:
    folder = shutil.copytree(exported("bert"), tmp_path / "model")
    assert exports.find(folder) is not None  # a copy is as good
    _damage(folder, how, tiny.bert(tmp_path / "other", seed=8))
    with pytest.raises(ExportUnusable, match=said):
        exports.find(folder)
    choice = choose_embedder(Settings(data=tmp_path, embedder=f"bge:{folder}"))
    assert "FlagEmbedding runs it (its export" in choice.reason
    assert "scripts/export_onnx" in choice.reason


def test_a_graph_that_onnx_runtime_refuses_is_named(
    tmp_path: Path, exported: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(exported("bert"), tmp_path / "model")
    broken = embedder(folder)
    (folder / weights.EXPORT / "fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(EmbedderUnavailable, match="scripts/export_onnx --force"):
        broken.embed_query(QUERY)


# What is chosen ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models_folder(
    tmp_path_factory: pytest.TempPathFactory, exported: Callable[[str], Path]
) -> Path:
    """Exports alone, without weights, under the names that ``auto`` looks for."""
    root = tmp_path_factory.mktemp("models")
    for kind, model in (("bert", EMBEDDERS[0]), ("reranker", RERANKERS[0])):
        shutil.copytree(
            exported(kind), root / model, ignore=shutil.ignore_patterns("model.safetensors")
        )
    return root


def test_a_light_installation_serves_exports(models_folder: Path, tmp_path: Path) -> None:
    program = """
import sys
for name in ("torch", "transformers", "FlagEmbedding", "onnx"):
    sys.modules[name] = None  # as where they are not installed
from server.models.choice import choose_embedder, choose_reranker
from server.settings import Settings
embedder, reranker = (choose(Settings.load()) for choose in (choose_embedder, choose_reranker))
for choice in (embedder, reranker):
    print(choice.name, choice.reason)
print(embedder.adapter.embed_query("差旅").shape, 0 < reranker.adapter.score("差旅", ["报销"])[0] < 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TANYUAN_DATA": str(tmp_path), "TANYUAN_MODELS": str(models_folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    embedder, reranker, values = done.stdout.splitlines()
    assert embedder.startswith(f"bge:{EMBEDDERS[0]} ")
    assert embedder.endswith("ONNX Runtime runs its export in fp32")
    assert reranker.startswith(f"bge:{RERANKERS[0]} ")
    expected = "int8" if sums_byte_products() else "fp32"
    assert reranker.endswith(f"ONNX Runtime runs its export in {expected}")
    assert values == "(32,) True"
    assert done.stderr == ""


def test_the_precision_is_as_the_setting_or_the_name_says(
    models_folder: Path, tmp_path: Path
) -> None:
    def name(**options: str) -> str:
        settings = Settings(data=tmp_path, models=str(models_folder), **options)  # type: ignore[arg-type]
        return choose_embedder(settings).name

    plain = f"bge:{EMBEDDERS[0]}"
    assert name() == name(precision="fp32") == name(embedder=plain) == plain
    for wanted in ({"precision": "int8"}, {"embedder": f"{plain}@int8"}):
        if sums_byte_products():
            assert name(**wanted) == f"{plain}@int8"
        else:
            with pytest.raises(ConfigurationError, match="VNNI"):
                name(**wanted)
    assert name(embedder=f"{plain}@fp32", precision="int8") == plain
    exact = choose_reranker(Settings(data=tmp_path, models=str(models_folder), precision="fp32"))
    assert exact.reason.endswith("in fp32")


def test_int8_that_is_not_there_is_not_taken_for_granted(
    tmp_path: Path, exported: Callable[[str], Path]
) -> None:
    folder = _without_export(exported("bert"), tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"it has no export.*scripts/export_onnx"):
        choose_embedder(Settings(data=tmp_path, embedder=f"bge:{folder}@int8"))
    scorer = _without_export(exported("reranker"), tmp_path / "reranker")
    choice = choose_reranker(Settings(data=tmp_path, reranker=f"bge:{scorer}", precision="int8"))
    assert choice.adapter is None
    assert "it has no export" in choice.reason


@pytest.mark.parametrize(
    ("cpuinfo", "can"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n", True),
        ("flags : fpu avx2 avx_vnni\n", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("flags : fpu avx2 avx512bw\n", False),
        ("", False),
        (None, False),
    ],
)
def test_int8_is_taken_where_the_cpu_sums_bytes_exactly(
    tmp_path: Path, cpuinfo: str | None, can: bool
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert sums_byte_products(tmp_path / "cpuinfo") is can


# Agreement -----------------------------------------------------------------------------------------


def test_rankings_are_compared_by_their_heads_and_by_all_pairs() -> None:
    one = np.arange(20.0)[np.newaxis]
    assert agreement.rankings(one, one) == {"overlap": 1, "tau": 1}
    assert agreement.rankings(one, -one) == {"overlap": 0, "tau": -1}
    swapped = one.copy()
    swapped[0, [9, 10]] = swapped[0, [10, 9]]  # the last of the first 10 and its neighbour
    assert agreement.rankings(one, swapped) == {"overlap": 0.9, "tau": round(1 - 2 / 190, 4)}
    assert agreement.STATED.alike({"overlap": 0.9, "tau": 0.9})
    assert not agreement.STATED.alike({"overlap": 0.89, "tau": 1})


def test_texts_to_compare_are_of_mixed_lengths(texts: list[str]) -> None:
    parts = agreement.cut(texts, 12, (5, 50))
    assert [len(part) for part in parts] == [5, 50] * 6
    assert len(set(parts)) == 12


# The command ---------------------------------------------------------------------------------------


def test_the_command_tells_what_is_there_and_what_fails(
    tmp_path: Path, exported: Callable[[str], Path]
) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / "export_onnx", *map(str, arguments)],
            env=os.environ | {"TANYUAN_DATA": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = run(exported("bert"), "nobody/nothing", "--json")
    assert done.returncode == 1
    there, missing = map(json.loads, done.stdout.splitlines())
    assert there["unchanged"] is True
    assert there["checks"]["int8"]["usable"] is True
    assert "scripts/fetch_models" in missing["error"]
    assert run("--to", tmp_path, "a/b", "c/d").returncode == 2
