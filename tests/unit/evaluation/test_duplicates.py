"""Near-duplicates against all pairs at once, and the control against simulation."""

import pytest
import torch
from torch.nn.functional import normalize

from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.evaluation import duplicates
from pellucid.evaluation.duplicates import near_duplicates, random_share


def transcoder(rows: torch.Tensor) -> Transcoder:
    count, width = rows.shape
    return Transcoder(
        W_enc=torch.zeros(count, 4),
        b_enc=torch.zeros(count),
        W_dec=rows,
        b_dec=torch.zeros(width),
        activation=TopK(1),
        read_site=Site("mlp_in", 0),
        write_site=Site("mlp_out", 0),
    )


def test_planted_pairs_are_found_and_opposites_and_zeros_are_not() -> None:
    rows = torch.eye(8)
    rows[1] = 3 * rows[0] + 0.1 * rows[7]  # almost row 0, at another length
    rows[2] = -rows[0]
    rows[3] = rows[4] = 0
    rows[6] = rows[5] + 0.5 * rows[7]  # cosine .894
    assert near_duplicates(transcoder(rows)).share == 2 / 8


def test_blocks_give_what_all_pairs_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(61, 3, generator=torch.Generator().manual_seed(0))
    unit = normalize(rows)
    cosines = (unit @ unit.T).fill_diagonal_(0)
    expected = float((cosines > 0.9).any(dim=1).double().mean())
    assert 0.3 < expected < 1
    for block in (1, 7, 60, 61, 100):
        monkeypatch.setattr(duplicates, "_ROWS", block)
        assert near_duplicates(transcoder(rows)).share == pytest.approx(expected)


@pytest.mark.parametrize(("count", "width"), [(50, 3), (400, 6)])
def test_the_control_is_the_share_among_random_directions(count: int, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = [
        near_duplicates(transcoder(torch.randn(count, width, generator=generator))).share
        for _ in range(40)
    ]
    spread = torch.tensor(drawn).std() / 40**0.5
    mean = sum(drawn) / len(drawn)
    assert 0.1 < mean < 0.95
    assert abs(mean - random_share(count, width)) < 4 * float(spread)


def test_random_directions_of_ordinary_widths_have_no_duplicates() -> None:
    assert random_share(131_072, 768) < 1e-9
