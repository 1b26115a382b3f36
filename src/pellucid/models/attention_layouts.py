"""Where an attention module keeps its value and output projections.

Shape legend: d model width, H heads, K key-value heads, h width of a head, O outputs of the module
that holds the value projection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class HeadShape(NamedTuple):
    """Numbers of heads and of key-value heads, and the width of a head."""

    n_heads: int
    n_kv_heads: int
    d_head: int


ValueRows = Callable[[Tensor, HeadShape], Tensor]
"""Picks the K*h value rows out of a weight `[O, d]` or a bias `[O]`."""


def all_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The projection holds values only."""
    assert rows.shape[0] == heads.n_kv_heads * heads.d_head, (rows.shape, heads)
    return rows


def last_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The projection holds all queries, then all keys, then all values."""
    assert rows.shape[0] == (heads.n_heads + 2 * heads.n_kv_heads) * heads.d_head
    return rows[-heads.n_kv_heads * heads.d_head :]


def last_third_of_each_head(rows: Tensor, heads: HeadShape) -> Tensor:
    """The projection holds query, key and value of head 0, then those of head 1, and so on."""
    assert rows.shape[0] == 3 * heads.n_heads * heads.d_head
    by_head = rows.unflatten(0, (heads.n_heads, 3, heads.d_head))
    return by_head[:, 2].flatten(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayout:
    """The projections of an attention module.

    Attributes:
        value: path, inside the attention module, of the projection that holds the values.
        output: path of the output projection.
        value_rows: picks the values' rows out of `value`'s weight and bias.
    """

    value: str
    output: str
    value_rows: ValueRows = all_rows


SEPARATE = AttentionLayout(value="v_proj", output="o_proj")


def weight_and_bias(projection: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight `[O, d]` and bias `[O]` of a `Linear` or of GPT-2's transposed `Conv1D`."""
    weight, bias = projection.weight, projection.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    return (weight.T if isinstance(projection, Conv1D) else weight), bias
