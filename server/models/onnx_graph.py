"""BERT and XLM-RoBERTa as ONNX graphs of ONNX Runtime's own operators, from the weights by their names.

Built operator by operator rather than traced: no padding reaches the graph, since a run takes texts of
one length, and the last layer computes only the token that is read. The tables of words, positions and
types stay outside; their rows are summed where they are needed (``onnx_engine.py``).

With ``int8`` the weights have a scale a column and the activations one a row, that is, a token, which
follows from the token alone (DECISIONS.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from server.models.graph_nodes import GraphNodes

FUSED = "com.microsoft"  # ONNX Runtime's own operators
OPSET = 19
OPSETS = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
IR_VERSION = 9
PAGE = 4096  # large constants start on one, so that they can be mapped into memory
INLINE_BYTES = 1024
LEVELS = 127  # of int8 on either side of 0
MIDDLE = 128  # what stands for 0 in an unsigned byte

Head = Literal["cls", "mean", "score"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``head``: what comes out: a vector of the first token or of the mean, or a reranker's score.
    ``prefix``: of the names of the encoder's weights."""

    hidden: int
    layers: int
    heads: int
    epsilon: float
    prefix: str
    head: Head


def write(shape: Shape, tensor: Callable[[str], Floats], file: Path, *, int8: bool) -> None:
    """Write ``file`` and, beside it, its large constants (``.bin``), one at a time.

    The model has the input ``embeddings`` (texts, tokens, hidden) and the output ``out``: (texts, hidden)
    of length 1, or (texts,) in [0, 1]. ``tensor`` gives weights by transformers' names and raises KeyError.
    """
    with file.with_suffix(".bin").open("wb") as constants:
        model = _Builder(shape, tensor, constants, int8=int8).model()
    file.write_bytes(model.SerializeToString())


class _Builder(GraphNodes):
    def __init__(
        self, shape: Shape, tensor: Callable[[str], Floats], constants: BinaryIO, *, int8: bool
    ) -> None:
        super().__init__()
        self._shape = shape
        self._tensor = tensor
        self._file = constants
        self._int8 = int8
        self._constants: dict[str, TensorProto] = {}
        self._quantised: dict[str, tuple[str, str]] = {}

    def model(self) -> ModelProto:
        self._head(self._layers())
        width = self._shape.hidden
        scores = self._shape.head == "score"
        graph = helper.make_graph(
            self._nodes,
            "bge",
            [
                helper.make_tensor_value_info(
                    "embeddings", TensorProto.FLOAT, ["texts", "tokens", width]
                )
            ],
            [
                helper.make_tensor_value_info(
                    "out", TensorProto.FLOAT, ["texts"] if scores else ["texts", width]
                )
            ],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)

    def _layers(self) -> str:
        """Hidden states: (texts, 1, hidden), or of all tokens where the mean is wanted."""
        x = self._normalised("embeddings", "embeddings.LayerNorm")
        for layer in range(self._shape.layers):
            last = layer == self._shape.layers - 1
            x = self._layer(x, f"encoder.layer.{layer}", first_only=last and self._first_only)
        return x

    @property
    def _first_only(self) -> bool:
        return self._shape.head != "mean"

    def _layer(self, x: str, at: str, *, first_only: bool) -> str:
        asking = self._first(x) if first_only else x
        names = [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
        inputs = [
            self._product(source, name) for source, name in zip((asking, x, x), names, strict=True)
        ]
        bias = np.concatenate([self._weights(f"{name}.bias") for name in names])
        attended = self._node(
            "MultiHeadAttention",
            [*inputs, self._constant(f"{at}.bias", bias)],
            FUSED,
            num_heads=self._shape.heads,
        )
        x = self._add_and_norm(asking, attended, f"{at}.attention.output")
        inner = self._product(x, f"{at}.intermediate.dense")
        inner = self._node("BiasGelu", [inner, self._bias(f"{at}.intermediate.dense")], FUSED)
        return self._add_and_norm(x, inner, f"{at}.output")

    def _head(self, x: str) -> None:
        shape = self._shape
        tokens = self._constant("axis of tokens", np.array([1]))
        if shape.head == "mean":
            pooled = self._node("ReduceMean", [x, tokens], keepdims=0)
        else:
            pooled = self._node("Squeeze", [x, tokens])
        if shape.head != "score":
            self._node("LpNormalization", [pooled], out="out", axis=-1, p=2)
            return
        dense, out = (
            (f"{shape.prefix}pooler.dense", "classifier")
            if shape.prefix == "bert."
            else ("classifier.dense", "classifier.out_proj")
        )
        pooled = self._node("Tanh", [self._exact(pooled, dense)])
        logits = self._node("Squeeze", [self._exact(pooled, out), tokens])
        self._node("Sigmoid", [logits], out="out")

    def _first(self, x: str) -> str:
        """(texts, tokens, hidden) to (texts, 1, hidden)."""
        return self._node("Gather", [x, self._constant("first", np.array([0]))], axis=1)

    def _product(self, x: str, name: str) -> str:
        """x · weights, without the bias, which the next operator adds."""
        matrix = self._weights(f"{name}.weight").T
        if not self._int8:
            return self._node("MatMul", [x, self._constant(f"{name}.weight", matrix)])
        scales = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / LEVELS
        inputs, largest = self._in_bytes(x)
        product = self._node(
            "MatMulIntegerToFloat",
            [
                inputs,
                self._constant(f"{name}.weight", np.rint(matrix / scales).astype(np.int8)),
                self._constant("step", np.float32(1 / LEVELS)),
                self._constant(f"{name}.scales", scales.astype(np.float32)),
                self._constant("middle", np.uint8(MIDDLE)),
            ],
            FUSED,
        )
        return self._node("Mul", [product, largest])

    def _in_bytes(self, x: str) -> tuple[str, str]:
        """Each row over its largest absolute value, in bytes, and those values (texts, tokens, 1)."""
        if x not in self._quantised:
            columns = self._constant("axis of columns", np.array([-1]))
            least = self._node("Neg", [self._node("ReduceMin", [x, columns], keepdims=1)])
            most = self._node("ReduceMax", [x, columns], keepdims=1)
            above_0 = self._constant("above 0", np.float32(1e-12))
            largest = self._node("Max", [least, most, above_0])
            unit = self._node("Div", [x, largest])
            step = self._constant("step", np.float32(1 / LEVELS))
            middle = self._constant("middle", np.uint8(MIDDLE))
            self._quantised[x] = self._node("QuantizeLinear", [unit, step, middle]), largest
        return self._quantised[x]

    def _exact(self, x: str, name: str) -> str:
        """x · weights + bias in single precision."""
        weights = self._tensor(f"{name}.weight").T
        product = self._node("MatMul", [x, self._constant(f"{name}.weight", weights)])
        return self._node(
            "Add", [product, self._constant(f"{name}.bias", self._tensor(f"{name}.bias"))]
        )

    def _add_and_norm(self, x: str, change: str, name: str) -> str:
        """Step by step: SkipLayerNormalization takes twice as long."""
        biased = self._node(
            "Add", [self._product(change, f"{name}.dense"), self._bias(f"{name}.dense")]
        )
        return self._normalised(self._node("Add", [biased, x]), f"{name}.LayerNorm")

    def _normalised(self, x: str, name: str) -> str:
        weights = [
            self._constant(f"{name}.{part}", self._weights(f"{name}.{part}"))
            for part in ("weight", "bias")
        ]
        return self._node("LayerNormalization", [x, *weights], epsilon=self._shape.epsilon)

    def _bias(self, name: str) -> str:
        return self._constant(f"{name}.bias", self._weights(f"{name}.bias"))

    def _weights(self, name: str) -> Floats:
        return self._tensor(self._shape.prefix + name)

    def _constant(self, name: str, values: NDArray[np.generic] | np.generic) -> str:
        if name in self._constants:
            return name
        values = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        if values.nbytes <= INLINE_BYTES:
            self._constants[name] = numpy_helper.from_array(values, name)
            return name
        start = -(-self._file.tell() // PAGE) * PAGE
        self._file.seek(start)
        self._file.write(values.data)
        tensor = TensorProto(
            name=name,
            dims=values.shape,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        where = {
            "location": Path(self._file.name).name,
            "offset": str(start),
            "length": str(values.nbytes),
        }
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
        self._constants[name] = tensor
        return name
