import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pellucid.models.attention_layouts import (
    HeadShape,
    all_query_rows,
    all_rows,
    first_rows,
    first_third_of_each_head,
    last_rows,
    last_third_of_each_head,
    middle_rows,
    middle_third_of_each_head,
    weight_and_bias,
)


def test_one_projection_alone() -> None:
    heads = HeadShape(n_heads=4, n_kv_heads=2, d_head=3)
    keys, queries = torch.randn(6, 5), torch.randn(12, 5)
    assert all_rows(keys, heads) is keys
    assert all_query_rows(queries, heads) is queries


def test_queries_then_keys_then_values_with_grouped_heads() -> None:
    # 2 heads of width 2, one key-value head: q q q q k k v v
    rows = torch.arange(8)
    heads = HeadShape(n_heads=2, n_kv_heads=1, d_head=2)
    assert first_rows(rows, heads).tolist() == [0, 1, 2, 3]
    assert middle_rows(rows, heads).tolist() == [4, 5]
    assert last_rows(rows, heads).tolist() == [6, 7]


def test_query_key_value_of_each_head_in_turn() -> None:
    # 2 heads of width 2: q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1
    rows = torch.arange(12)
    heads = HeadShape(n_heads=2, n_kv_heads=2, d_head=2)
    assert first_third_of_each_head(rows, heads).tolist() == [0, 1, 6, 7]
    assert middle_third_of_each_head(rows, heads).tolist() == [2, 3, 8, 9]
    assert last_third_of_each_head(rows, heads).tolist() == [4, 5, 10, 11]
    matrix = torch.stack([rows, -rows], dim=1)
    assert last_third_of_each_head(matrix, heads)[:, 1].tolist() == [-4, -5, -10, -11]


@pytest.mark.parametrize("pick", [all_rows, all_query_rows, first_rows, middle_third_of_each_head])
def test_a_projection_of_another_size_is_an_error(pick: object) -> None:
    with pytest.raises(AssertionError):
        pick(torch.zeros(7, 3), HeadShape(n_heads=2, n_kv_heads=2, d_head=2))  # type: ignore


@pytest.mark.parametrize("module", [nn.Linear(3, 5), nn.Linear(3, 5, bias=False), Conv1D(5, 3)])
def test_weight_and_bias_reproduce_the_module(module: nn.Module) -> None:
    x = torch.randn(4, 3)
    weight, bias = weight_and_bias(module)
    assert weight.shape == (5, 3)
    torch.testing.assert_close(nn.functional.linear(x, weight, bias), module(x))
