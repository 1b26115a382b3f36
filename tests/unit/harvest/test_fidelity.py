"""FVU, L0 and dead share against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.fidelity import ErrorTotals, measure_dictionaries

READ, WRITE = Site("mlp_in", 3), Site("mlp_out", 3)


def transcoder(generator: torch.Generator, *, skip: bool) -> Transcoder:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    b_enc = draw(20)
    b_enc[:6] = -100  # never active
    return Transcoder(
        W_enc=draw(20, 5),
        b_enc=b_enc,
        W_dec=draw(20, 7),
        b_dec=draw(7),
        W_skip=draw(7, 5) if skip else None,
        activation=TopK(4),
        read_site=READ,
        write_site=WRITE,
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_figures_are_their_definitions_over_all_tokens(seed: int, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    dictionary = transcoder(generator, skip=seed % 2 == 0)
    x = torch.randn(sum(sizes) + 1, 5, generator=generator)
    y = 10 + torch.randn(sum(sizes) + 1, 7, generator=generator)  # a mean far from 0
    sizes = [*sizes, 1]
    batches = [
        ActivationBatch(dict[AnySite, torch.Tensor]({READ: a, WRITE: b}), torch.zeros(len(a)))
        for a, b in zip(x.split(sizes), y.split(sizes), strict=True)
    ]
    (found,) = measure_dictionaries({3: dictionary}, batches, tokens=len(x))

    x, y, exact = x.double(), y.double(), dictionary.double()
    pre = (x @ exact.W_enc.T + exact.b_enc).clamp_min(0)
    kept = pre >= pre.topk(4).values[:, -1:]
    codes = pre * kept
    output = codes @ exact.W_dec + exact.b_dec
    if exact.W_skip is not None:
        output += x @ exact.W_skip.T
    fvu = float((y - output).square().sum() / (y - y.mean(dim=0)).square().sum())
    assert found.layer == 3
    torch.testing.assert_close(found.fvu, fvu, rtol=1e-4, atol=0)
    assert found.l0 == int((codes > 0).sum()) / len(x)
    assert found.dead == 1 - int((codes > 0).any(dim=0).sum()) / 20
    assert found.dead >= 0.3


def test_measuring_stops_after_the_tokens_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = []

    def batches():
        while True:
            seen.append(10)
            values = {READ: torch.randn(10, 5, generator=generator), WRITE: torch.randn(10, 7)}
            yield ActivationBatch(values, torch.zeros(10))

    measure_dictionaries({3: transcoder(generator, skip=False)}, batches(), tokens=25)
    assert len(seen) == 3


def test_a_constant_target_has_no_variance_to_explain() -> None:
    with pytest.raises(DataError, match="the same at all 4 tokens"):
        _ = ErrorTotals.of(torch.full((4, 2), 3.0), 1.0).fvu
