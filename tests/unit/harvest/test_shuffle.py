"""The shuffle buffer: permutations, rows kept whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.types import Site
from pellucid.harvest.shuffle import ActivationBuffer, fill_order


@given(total=st.integers(0, 500), seed=st.integers(0, 2**40), fill=st.integers(0, 10_000))
def test_an_order_is_a_permutation_that_seed_and_fill_decide(
    total: int, seed: int, fill: int
) -> None:
    order = fill_order(total, seed=seed, fill=fill)
    assert order.sort().values.equal(torch.arange(total))
    assert order.equal(fill_order(total, seed=seed, fill=fill))
    if total > 50:
        assert not order.equal(fill_order(total, seed=seed, fill=fill + 1))
        assert not order.equal(fill_order(total, seed=seed + 1, fill=fill))


def test_a_buffer_gives_back_rows_of_every_site_with_their_tokens() -> None:
    buffer, narrow, wide = ActivationBuffer(9), Site("mlp_in", 0), Site("mlp_out", 0)
    for count in (6, 4, 9):
        buffer.clear()
        tokens = torch.arange(count) + 100 * count
        for part in tokens.split(3):
            buffer.append({narrow: part[:, None].float(), wide: part[:, None].repeat(1, 5)}, part)
        assert len(buffer) == count
        values, taken = buffer.take(torch.tensor([3, 0]))
        assert taken.equal(tokens[[3, 0]])
        assert values[narrow][:, 0].equal(taken.float())
        assert values[wide].equal(taken[:, None].expand(2, 5))
