"""Where an attention module keeps its query, key, value and output projections.

Shape legend: d model width, H heads, K key-value heads, h width of a head, O outputs of the module
that holds a projection.
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


RowPicker = Callable[[Tensor, HeadShape], Tensor]
"""Picks the rows of one projection out of a weight `[O, d]` or a bias `[O]`."""


def all_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The projection holds keys only, or values only: K*h rows."""
    assert rows.shape[0] == heads.n_kv_heads * heads.d_head, (rows.shape, heads)
    return rows


def all_query_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The projection holds queries only: H*h rows."""
    assert rows.shape[0] == heads.n_heads * heads.d_head, (rows.shape, heads)
    return rows


def _in_turn(rows: Tensor, heads: HeadShape) -> tuple[Tensor, ...]:
    """Queries, keys and values of a projection that holds them one after the other."""
    key_width = heads.n_kv_heads * heads.d_head
    assert rows.shape[0] == heads.n_heads * heads.d_head + 2 * key_width, (rows.shape, heads)
    return rows.split([heads.n_heads * heads.d_head, key_width, key_width])


def first_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The queries of a projection that holds all queries, then all keys, then all values."""
    return _in_turn(rows, heads)[0]


def middle_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The keys of a projection that holds all queries, then all keys, then all values."""
    return _in_turn(rows, heads)[1]


def last_rows(rows: Tensor, heads: HeadShape) -> Tensor:
    """The values of a projection that holds all queries, then all keys, then all values."""
    return _in_turn(rows, heads)[2]


def _by_head(rows: Tensor, heads: HeadShape) -> Tensor:
    """`[H, 3, h, ...]` of a projection that holds query, key and value head by head."""
    assert rows.shape[0] == 3 * heads.n_heads * heads.d_head, (rows.shape, heads)
    return rows.unflatten(0, (heads.n_heads, 3, heads.d_head))


def first_third_of_each_head(rows: Tensor, heads: HeadShape) -> Tensor:
    """The queries of a projection that holds query, key and value of head 0, then of head 1..."""
    return _by_head(rows, heads)[:, 0].flatten(0, 1)


def middle_third_of_each_head(rows: Tensor, heads: HeadShape) -> Tensor:
    """The keys of a projection that holds query, key and value of head 0, then of head 1..."""
    return _by_head(rows, heads)[:, 1].flatten(0, 1)


def last_third_of_each_head(rows: Tensor, heads: HeadShape) -> Tensor:
    """The values of a projection that holds query, key and value of head 0, then of head 1..."""
    return _by_head(rows, heads)[:, 2].flatten(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayout:
    """The projections of an attention module.

    Attributes:
        query, key, value: paths, inside the attention module, of the projections that hold them.
        output: path of the output projection.
        query_rows, key_rows, value_rows: pick the rows out of those projections' weights and
            biases.
        query_norm, key_norm: paths of RMS norms on queries and keys, None where there are none.
            A gain as wide as a head norms each head, a wider one the whole projection.
    """

    query: str
    key: str
    value: str
    output: str
    query_rows: RowPicker = all_query_rows
    key_rows: RowPicker = all_rows
    value_rows: RowPicker = all_rows
    query_norm: str | None = None
    key_norm: str | None = None


SEPARATE = AttentionLayout(query="q_proj", key="k_proj", value="v_proj", output="o_proj")


def in_turn(projection: str, output: str) -> AttentionLayout:
    """One projection of all queries, then all keys, then all values."""
    return AttentionLayout(
        query=projection,
        key=projection,
        value=projection,
        output=output,
        query_rows=first_rows,
        key_rows=middle_rows,
        value_rows=last_rows,
    )


def head_by_head(projection: str, output: str) -> AttentionLayout:
    """One projection of query, key and value of head 0, then of head 1, and so on."""
    return AttentionLayout(
        query=projection,
        key=projection,
        value=projection,
        output=output,
        query_rows=first_third_of_each_head,
        key_rows=middle_third_of_each_head,
        value_rows=last_third_of_each_head,
    )


def weight_and_bias(projection: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight `[O, d]` and bias `[O]` of a `Linear` or of GPT-2's transposed `Conv1D`."""
    weight, bias = projection.weight, projection.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    return (weight.T if isinstance(projection, Conv1D) else weight), bias
