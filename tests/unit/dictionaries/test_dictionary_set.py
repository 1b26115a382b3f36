"""A set knows whether it belongs to a model."""

from dataclasses import dataclass

import pytest

from pellucid.core.errors import DictionaryError
from pellucid.core.manifest import Manifest
from pellucid.dictionaries import DictionarySet
from support.dictionaries import random_dictionary


@dataclass
class FakeModel:
    n_layers: int = 2
    d_model: int = 11
    name: str = "abc"
    finetuned_from: str | None = None

    def fingerprint(self) -> str:
        return self.name


def _set(*layers: int, parent: str | None = None, d_out: int = 11) -> DictionarySet:
    manifest = Manifest(kind="dictionaries", parents={} if parent is None else {"model": parent})
    dictionaries = {layer: random_dictionary(layer=layer, d_out=d_out) for layer in layers}
    return DictionarySet("mine", dictionaries, manifest)


def test_layers_are_sorted_and_iterated_in_order() -> None:
    dictionaries = _set(1, 0)
    assert dictionaries.layers == [0, 1]
    assert [dictionary.read_site.layer for dictionary in dictionaries] == [0, 1]
    assert len(dictionaries) == 2


def test_a_matching_set_passes() -> None:
    _set(0, 1, parent="abc").check_model(FakeModel())
    _set(0, 1).check_model(FakeModel())
    _set(1).check_model(FakeModel(), every_layer=False)


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        (_set(0, 1, parent="xyz"), "trained on another model .fingerprint xyz, this one's is abc"),
        (_set(1), "lacks layer 0 of 2"),
        (_set(0, 1, 2), "reads mlp_in@2 but the model has 2 layers"),
        (_set(0, 1, d_out=7), "writes mlp_out@0 with width 7 but the model's width is 11"),
    ],
)
def test_a_set_of_another_model_is_refused(dictionaries: DictionarySet, message: str) -> None:
    with pytest.raises(DictionaryError, match=message):
        dictionaries.check_model(FakeModel())


def test_an_absent_layer_lists_the_present() -> None:
    with pytest.raises(DictionaryError, match="'mine' has no layer 7; it has 0, 1"):
        _set(0, 1)[7]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DictionaryError, match="is empty"):
        DictionarySet("mine", {})


def test_dictionaries_of_the_model_that_it_was_finetuned_from_fit() -> None:
    updated = FakeModel(name="changed", finetuned_from="abc")
    _set(0, 1, parent="abc").check_model(updated)
    with pytest.raises(DictionaryError, match="trained on another model"):
        _set(0, 1, parent="other").check_model(updated)
