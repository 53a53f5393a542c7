"""The nodes of an ONNX graph, written one by one."""

from collections.abc import Sequence
from typing import Any

from onnx import NodeProto, helper


class GraphNodes:
    """What builders of graphs have in common."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []

    def _node(
        self,
        operator: str,
        inputs: Sequence[str],
        domain: str = "",
        *,
        out: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; the name of its output."""
        out = out or f"{operator}.{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, inputs, [out], None, None, domain, **attributes)
        )
        return out
