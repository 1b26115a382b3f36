"""Shapes, widths and the few places where kinds of dictionaries differ."""

import pytest
import torch

from pellucid.core.errors import DictionaryError
from pellucid.core.types import Site, SparseCodes
from pellucid.dictionaries import SAE, TopK, Transcoder, base
from support.dictionaries import random_dictionary

MLP_IN, MLP_OUT = Site("mlp_in", 0), Site("mlp_out", 0)


def _parts(features: int = 6, d_in: int = 4, d_out: int = 3) -> dict[str, torch.Tensor]:
    return {
        "W_enc": torch.ones(features, d_in),
        "b_enc": torch.ones(features),
        "W_dec": torch.ones(features, d_out),
        "b_dec": torch.ones(d_out),
    }


def test_a_transcoder_by_hand() -> None:
    transcoder = Transcoder(
        W_enc=torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        b_enc=torch.tensor([0.0, -1.0, -10.0]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]),
        b_dec=torch.tensor([0.5, 0.5]),
        W_skip=torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        activation=TopK(2),
        read_site=MLP_IN,
        write_site=MLP_OUT,
    )
    x = torch.tensor([[3.0, 4.0]])
    assert transcoder.encode(x).dense().tolist() == [[3.0, 3.0, 0.0]]
    assert transcoder(x).tolist() == [[3.0 + 0.5 + 4.0, 6.0 + 0.5]]


def test_an_sae_subtracts_the_decoder_bias_and_a_transcoder_does_not() -> None:
    x = torch.randn(5, 11)
    for kind in ("sae", "transcoder"):
        dictionary = random_dictionary(kind, d_out=11)
        shift = dictionary.b_dec if kind == "sae" else 0
        expected = (x - shift) @ dictionary.W_enc.T + dictionary.b_enc
        torch.testing.assert_close(dictionary.pre_activations(x), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_dec": torch.ones(5, 3)}, r"W_dec has shape \(5, 3\).*ask for \(6, 3\)"),
        ({"b_enc": torch.ones(4)}, r"b_enc has shape \(4,\).*ask for \(6,\)"),
        ({"b_dec": torch.ones(4)}, r"b_dec has shape \(4,\).*ask for \(3,\)"),
        ({"W_skip": torch.ones(4, 3)}, r"W_skip has shape \(4, 3\).*ask for \(3, 4\)"),
        ({"W_enc": torch.ones(6)}, "they must have 2 and 2 dimensions"),
        ({"activation": TopK(7)}, "k is 7 but there are only 6 features"),
    ],
)
def test_parts_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    parts = {"activation": TopK(2), "read_site": MLP_IN, "write_site": MLP_OUT} | _parts()
    with pytest.raises(DictionaryError, match=message):
        Transcoder(**(parts | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"write_site": MLP_OUT}, "an SAE cannot read mlp_in@0.*and write mlp_out@0"),
        (_parts(d_out=5), r"read mlp_in@0 \(width 4\) and write mlp_in@0 \(width 5\)"),
        ({"W_skip": torch.ones(4, 4)}, "only transcoders have a skip path"),
    ],
)
def test_an_sae_is_of_one_site(change: dict[str, object], message: str) -> None:
    parts = {"activation": TopK(2), "read_site": MLP_IN, "write_site": MLP_IN} | _parts(d_out=4)
    with pytest.raises(DictionaryError, match=message):
        SAE(**(parts | change))


def test_an_input_of_another_width_is_refused() -> None:
    with pytest.raises(DictionaryError, match="width 12 but the dictionary reads width 11"):
        random_dictionary().encode(torch.zeros(2, 12))


def test_codes_of_another_dictionary_are_refused() -> None:
    codes = SparseCodes(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), 36)
    with pytest.raises(DictionaryError, match="codes of 36 features"):
        random_dictionary().decode(codes)


@pytest.mark.parametrize("activation", ["topk", "relu"])
def test_encoding_by_blocks_changes_nothing(
    activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = random_dictionary(activation=activation)
    x = torch.randn(23, dictionary.d_in)
    whole = dictionary.encode(x).dense()
    monkeypatch.setattr(base, "_BLOCK_VALUES", 4 * dictionary.num_features)
    torch.testing.assert_close(dictionary.encode(x).dense(), whole)
