"""Every intervention in every family equals the naive oracle: cached, padded, batched, or not.

A batch holds one row a case, each with its own edit, so that a case passes only if the other rows'
edits stay out of its row.
"""

from functools import cache

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import InterventionError, PellucidError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import generate
from pellucid.interventions.operations import Add, PatchFrom, Scale
from pellucid.interventions.prompts import pad
from pellucid.interventions.run import run
from pellucid.interventions.spec import Intervention
from pellucid.models import taps
from pellucid.models.model import LanguageModel
from support.edit_cases import (
    PROMPTS,
    Case,
    all_cases,
    but_first,
    in_row,
    mixed_dictionaries,
    tiny_language_model,
    vector,
)
from support.naive_edits import naive_greedy, naive_logits
from support.tiny_models import FAMILIES

NEW = 3


@cache
def prepared(family: str) -> tuple[LanguageModel, DictionarySet, list[Case]]:
    model = tiny_language_model(family)
    dictionaries = mixed_dictionaries(model)
    return model, dictionaries, all_cases(model, family, dictionaries)


@cache
@torch.no_grad()
def plainly(family: str, number: int) -> tuple[Tensor, Tensor]:
    """The unedited logits of a prompt, and of tokens generated after it."""
    model, _, _ = prepared(family)
    ids = PROMPTS[number]
    return (
        naive_logits(model.module, family, ids)[0],
        naive_greedy(model.module, family, ids, NEW)[1],
    )


def rows_of(cases: list[Case]) -> tuple[list[list[int]], list[Intervention]]:
    """A prompt a case, of differing lengths, and each case's edit in its own row."""
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(cases))]
    return prompts, [in_row(case, row) for row, case in enumerate(cases)]


def assert_same(case: Case, got: Tensor, expected: Tensor, plain: Tensor) -> None:
    """Equal up to rounding, where the edit makes a difference far above it.

    Scaling a feature makes none where it is inactive, as it may be at the tokens that are compared.
    """
    torch.testing.assert_close(
        got, expected, rtol=1e-5, atol=2e-5, msg=lambda text: f"{case.name}: {text}"
    )
    scales_feature = isinstance(case.declared.op, Scale) and case.read
    assert scales_feature or (expected - plain).abs().max() > 2e-3, (
        f"{case.name} changes nothing here"
    )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_one_forward_equals_the_oracle(family: str) -> None:
    model, dictionaries, cases = prepared(family)
    prompts, interventions = rows_of(cases)

    done = run(model, prompts, interventions, dictionaries=dictionaries)

    for row, (case, ids) in enumerate(zip(cases, prompts, strict=True)):
        expected, _ = naive_logits(model.module, family, ids, case.naive(but_first), case.read)
        plain, _ = plainly(family, row % len(PROMPTS))
        assert_same(case, done.logits[row, : len(ids)], expected, plain)
    for case, record, ids in zip(cases, done.receipt.sites, prompts, strict=True):
        assert record.tokens_edited == {"prefill": len(ids) - 1, "decode": 0}, case.name
        assert record.mean_relative_norm > 0, case.name


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_left_is_padding_on_the_right(family: str) -> None:
    model, dictionaries, cases = prepared(family)
    prompts, interventions = rows_of(cases)
    batch = pad(model, [torch.tensor(ids) for ids in prompts], left=True)

    left = run(model, batch.ids, interventions, dictionaries=dictionaries, mask=batch.mask)
    right = run(model, prompts, interventions, dictionaries=dictionaries)

    torch.testing.assert_close(
        left.logits[left.batch.mask], right.logits[right.batch.mask], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_the_oracle_with_a_cache_and_without(family: str) -> None:
    model, dictionaries, cases = prepared(family)
    prompts, interventions = rows_of(cases)

    cached, uncached = (
        generate(
            model,
            prompts,
            interventions,
            dictionaries=dictionaries,
            max_new_tokens=NEW,
            use_cache=use_cache,
            keep_logits=True,
            eos_token_id=-1,
        )
        for use_cache in (True, False)
    )

    assert cached.logits is not None and uncached.logits is not None
    for row, (case, ids) in enumerate(zip(cases, prompts, strict=True)):
        with torch.no_grad():
            tokens, expected = naive_greedy(
                model.module, family, ids, NEW, case.naive(but_first), case.read
            )
        _, plain = plainly(family, row % len(PROMPTS))
        for got in (cached.logits[row], uncached.logits[row]):
            assert_same(case, got, expected, plain)
        assert cached.batch.row(row) == ids
        assert cached.tokens[row] == uncached.tokens[row] == tokens, case.name
    for case, record, ids in zip(cases, cached.receipt.sites, prompts, strict=True):
        assert record.tokens_edited == {"prefill": len(ids) - 1, "decode": NEW - 1}, case.name


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_strength_is_bit_identical(family: str) -> None:
    model, dictionaries, _ = prepared(family)
    nothing = [
        Intervention("resid_post@1", Add(vector(0), 0.0)),
        Intervention("mlp_in@1", Scale(1.0)),
        Intervention("z@2[1]", Scale(1.0)),
        *(Intervention(f"feature@{layer}[3]", Add(strength=0.0)) for layer in range(3)),
    ]

    def written(interventions: list[Intervention]) -> tuple[Tensor, Tensor]:
        options = {"dictionaries": dictionaries} if interventions else {}
        whole = run(model, PROMPTS, interventions, **options).logits
        generated = generate(
            model, PROMPTS, interventions, max_new_tokens=NEW, keep_logits=True, **options
        )
        assert generated.logits is not None
        return whole, generated.logits

    for edited, plain in zip(written(nothing), written([]), strict=True):
        assert torch.equal(edited, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_without_an_edit_are_bit_identical_to_an_unedited_batch(family: str) -> None:
    model, dictionaries, cases = prepared(family)
    plain = run(model, PROMPTS).logits

    for case in cases:
        edited = run(model, PROMPTS, [in_row(case, 1)], dictionaries=dictionaries).logits
        assert torch.equal(edited[[0, 2]], plain[[0, 2]]), case.name
        assert not torch.equal(edited[1], plain[1]), case.name


def disable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks of edits are registered and never fire."""

    def silent(*_: object) -> None:
        return None

    monkeypatch.setattr(taps, "_input_hook", lambda *_: silent)
    monkeypatch.setattr(taps, "_output_hook", lambda *_: silent)


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_that_never_fire_are_an_error(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dictionaries, cases = prepared(family)
    disable(monkeypatch)

    for case in cases:
        reading = isinstance(case.declared.op, PatchFrom)
        expected = "never reached" if reading else "edited no token"
        with pytest.raises(PellucidError, match=expected):
            run(model, PROMPTS[:1], [case.declared], dictionaries=dictionaries)
    for case in cases[::10]:
        with pytest.raises(InterventionError, match="edited no token"):
            generate(
                model, PROMPTS[:1], [case.declared], dictionaries=dictionaries, max_new_tokens=1
            )
