"""Every kind of dictionary with every activation keeps the contract; the check sees breaches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import SparseCodes
from pellucid.dictionaries import Dictionary
from pellucid.dictionaries.conformance import check_dictionary
from support.dictionaries import ACTIVATION_NAMES, KINDS, random_dictionary


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_activation_keeps_the_contract(
    kind: str, activation: str, dtype: torch.dtype
) -> None:
    check_dictionary(random_dictionary(kind, activation, dtype=dtype))


@pytest.mark.parametrize("features", [1, 5, 600, 4099])
def test_any_number_of_features_keeps_the_contract(features: int) -> None:
    check_dictionary(random_dictionary(features=features))


def test_a_check_leaves_the_dictionary_alone() -> None:
    dictionary = random_dictionary("skip-transcoder", "jumprelu")
    before = {name: tensor.clone() for name, tensor in dictionary.tensors().items()}
    check_dictionary(dictionary)
    assert all(torch.equal(before[name], t) for name, t in dictionary.tensors().items())


def _too_many_codes(dictionary: Dictionary, x: Tensor) -> SparseCodes:
    return dictionary.activation(dictionary.pre_activations(x).abs() * 2)


def _out_of_range(dictionary: Dictionary, x: Tensor) -> SparseCodes:
    codes = dictionary.activation(dictionary.pre_activations(x))
    return SparseCodes(codes.values, codes.indices + 1, codes.num_features)


def _counted_twice(dictionary: Dictionary, x: Tensor) -> SparseCodes:
    codes = dictionary.activation(dictionary.pre_activations(x))
    return SparseCodes(codes.values.repeat(1, 2), codes.indices.repeat(1, 2), codes.num_features)


def _smallest_kept(dictionary: Dictionary, x: Tensor) -> SparseCodes:
    pre = dictionary.pre_activations(x)
    values, indices = torch.topk(pre.where(pre > 0, torch.inf), 5, largest=False)
    return SparseCodes(values.where(values < torch.inf, 0), indices, dictionary.num_features)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (_too_many_codes, "an activation is its pre-activation"),
        (_out_of_range, "indices are those of features"),
        (_counted_twice, "a feature is active once a row"),
        (_smallest_kept, "the 5 largest are kept"),
    ],
)
def test_a_wrong_encoder_is_named(
    encode: Callable[[Dictionary, Tensor], SparseCodes],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dictionary = random_dictionary()
    monkeypatch.setattr(dictionary, "encode", lambda x: encode(dictionary, x))
    with pytest.raises(DictionaryError, match=message):
        check_dictionary(dictionary)


def test_a_decoder_that_forgets_its_bias_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = random_dictionary()
    monkeypatch.setattr(dictionary, "decode", lambda codes, _: codes.dense() @ dictionary.W_dec)
    with pytest.raises(DictionaryError, match="decoding is linear in codes"):
        check_dictionary(dictionary)


def test_a_skip_path_left_out_of_forward_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = random_dictionary("skip-transcoder")
    monkeypatch.setattr(dictionary, "forward", lambda x: dictionary.decode(dictionary.encode(x)))
    with pytest.raises(DictionaryError, match="forward is decode"):
        check_dictionary(dictionary)


def test_rows_that_see_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = random_dictionary("sae")
    monkeypatch.setattr(dictionary, "encoder_input", lambda x: x - x.mean(dim=0))
    with pytest.raises(DictionaryError, match="rows do not see each other"):
        check_dictionary(dictionary)
