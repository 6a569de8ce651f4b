"""Linear layers with the one fused step that may follow them.

On a CPU that multiplies bf16, weights are packed once into oneDNN's blocked layout and the activation, product
or sum behind the layer runs inside the same kernel: a decode step reads every weight once and little else, so
each saved pass and each saved call shows. The packed operators are semi-private in torch; this file is the only
one that names them, checks them once per process, and falls back to plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F

from sensorium.model.lora import Lanes

_NO_LANES = Lanes()  # of layers that no adapter may change


@cache
def can_pack() -> bool:
    """Whether packed bf16 linears exist here and give what plain ones give."""
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        weight = torch.eye(16, 32, dtype=torch.bfloat16)
        x = torch.arange(32, dtype=torch.bfloat16).view(1, 32)  # (1, in_features)
        pointwise, _ = _operators()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        return bool(torch.equal(pointwise(x, packed, None, "none", [], ""), F.linear(x, weight)))
    except (AttributeError, RuntimeError):
        return False


@cache
def _operators() -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """The packed linear with an activation, and with a second operand. Overloads by name save choosing at each call."""
    operator = torch.ops.mkldnn._linear_pointwise
    return operator.default, operator.binary


class Linear:
    """`x @ weight.T + bias`, packed where that is faster.

    Args:
        weight: (out_features, in_features). It is not kept when it can be packed.
        bias: (out_features,) or None.

    Attributes:
        lanes: whose the rows are that come next, where adapters may change this layer. What one changes runs unfused.
    """

    lanes = _NO_LANES

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self.packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and can_pack()
        # The reorder runs a oneDNN primitive; its batch hint of 1 gives the layout that serves every batch size.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1) if self.packed else weight
        if self.packed:
            self._pointwise, self._binary = _operators()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(num_tokens, in_features) -> (num_tokens, out_features)."""
        if self.packed:
            y = self._pointwise(x, self.weight, self.bias, "none", [], "")
        else:
            y = F.linear(x, self.weight, self.bias)
        return self.lanes.add_(self, y, x) if self.lanes.groups else y

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """silu(linear(x))."""
        if self.lanes.groups and self.lanes.touch(self):
            return F.silu(self(x), inplace=True)
        if self.packed:
            return self._pointwise(x, self.weight, self.bias, "swish", [], "")
        return F.silu(F.linear(x, self.weight, self.bias))

    def gelu(self, x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
        """gelu(linear(x)); `approximate` is "none" or "tanh", as in torch."""
        if self.lanes.groups and self.lanes.touch(self):
            return F.gelu(self(x), approximate=approximate)
        if self.packed:
            return self._pointwise(x, self.weight, self.bias, "gelu", [], approximate)
        return F.gelu(F.linear(x, self.weight, self.bias), approximate=approximate)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """linear(x) * other."""
        if self.lanes.groups and self.lanes.touch(self):
            return self(x).mul_(other)
        if self.packed:
            return self._binary(x, other, self.weight, self.bias, "mul")
        return F.linear(x, self.weight, self.bias).mul_(other)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """linear(x) + other."""
        if self.lanes.groups and self.lanes.touch(self):
            return self(x).add_(other)
        if self.packed:
            return self._binary(x, other, self.weight, self.bias, "add")
        return F.linear(x, self.weight, self.bias).add_(other)
