"""Ways of decoding change nothing about an edit; modes, gates and clauses do what they say.

The oracle is one row at a time, without a cache or padding, edited by hooks of the test's own.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import Generation, generate
from pellucid.interventions.operations import Add, Clamp, PatchFrom
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.where import EVERYWHERE, Where, at, generated, span, window
from pellucid.models.model import LanguageModel
from support.edit_cases import (
    OTHER_PROMPT,
    PROMPTS,
    active_feature,
    but_first,
    mixed_dictionaries,
    tiny_language_model,
    vector,
)
from support.naive_edits import (
    Edit,
    Seen,
    at_positions,
    head_columns,
    naive_activation,
    naive_greedy,
    naive_logits,
)
from support.tiny_models import FAMILIES

NEW = 4
FEW = ("gpt2", "gemma3")
PUSH = 1.5 * vector(0)


@cache
def prepared(family: str) -> tuple[LanguageModel, DictionarySet]:
    model = tiny_language_model(family)
    return model, mixed_dictionaries(model)


def three_edits(family: str) -> list[Intervention]:
    """A residual, a head and a feature, each with its own where-clause."""
    _, columns = head_columns(family, prepared(family)[0].module.config, "v", 1)
    return [
        Intervention("resid_pre@1", Add(vector(0), 1.5)),
        Intervention("v@2[1]", Add(vector(1, len(columns)), 2.0), window(2)),
        Intervention("feature@1[5]", Clamp(2.0), at(-1, 1)),
    ]


def written(family: str, interventions: list[Intervention], **options: Any) -> Generation:
    model, dictionaries = prepared(family)
    settings = {"max_new_tokens": NEW, "eos_token_id": -1, "keep_logits": True}
    return generate(model, PROMPTS, interventions, dictionaries=dictionaries, **settings | options)


def same(one: Generation, other: Generation) -> None:
    assert one.tokens == other.tokens
    assert one.logits is not None and other.logits is not None
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def equals_naive(
    got: Generation,
    family: str,
    edits: Callable[[int], list[Edit]],
    read: tuple[str, ...] = (),
) -> None:
    """The generation's logits are the oracle's, for edits made from each prompt's length."""
    model, _ = prepared(family)
    changed = 0.0
    assert got.logits is not None
    for row, ids in enumerate(PROMPTS):
        _, expected = naive_greedy(model.module, family, ids, NEW, edits(row), read)
        _, plain = naive_greedy(model.module, family, ids, NEW)
        torch.testing.assert_close(got.logits[row], expected, rtol=1e-5, atol=2e-5)
        changed = max(changed, float((expected - plain).abs().max()))
    assert changed > 2e-3


def push(positions: Callable[[int], Any], site: str = "resid_pre@1") -> list[Edit]:
    return [(site, at_positions(positions, lambda x: x + PUSH))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_and_how_the_prompt_is_read_change_nothing(family: str) -> None:
    plain = written(family, three_edits(family), use_cache=False)

    for options in (
        {},
        {"prefill_chunk_size": 3},
        {"prefill_chunk_size": 1},
        {"cache_implementation": "static"},
    ):
        same(written(family, three_edits(family), **options), plain)
    counts = [record.tokens_edited for record in written(family, three_edits(family)).receipt.sites]
    lengths = [len(ids) for ids in PROMPTS]
    assert [count["prefill"] for count in counts] == [
        sum(length - 1 for length in lengths),
        sum(length - 2 for length in lengths),
        2 * len(lengths),
    ]
    assert [count["decode"] for count in counts] == [3 * (NEW - 1), 3 * (NEW - 1), 0]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_beams_equal_beams_edited_by_hand_without_a_cache(family: str) -> None:
    model, _ = prepared(family)
    options = {"num_beams": 3, "eos_token_id": -1}
    edited = generate(
        model, PROMPTS, [Intervention("resid_pre@1", Add(PUSH))], max_new_tokens=NEW, **options
    )

    block = model.module.get_submodule(model.spec.block_path(1))

    def by_hand(_: Any, args: Any, kwargs: Any) -> Any:
        name = None if args else "hidden_states"
        new = (args[0] if args else kwargs[name]).clone()
        new[:, 1:] += PUSH
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {name: new})

    for row, ids in enumerate(PROMPTS):
        handle = block.register_forward_pre_hook(by_hand, with_kwargs=True)
        try:
            whole = model.module.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=NEW,
                do_sample=False,
                use_cache=False,
                pad_token_id=0,
                **options,
            )
        finally:
            handle.remove()
        assert edited.tokens[row] == whole[0, len(ids) :].tolist()


@pytest.mark.parametrize("family", FEW)
def test_sampling_is_reproducible_and_the_same_with_and_without_a_cache(family: str) -> None:
    options = {"do_sample": True, "temperature": 1.5, "seed": 3}
    before = torch.get_rng_state()
    first = written(family, three_edits(family), **options)

    same(written(family, three_edits(family), **options), first)
    same(written(family, three_edits(family), use_cache=False, **options), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert written(family, three_edits(family), **options | {"seed": 4}).tokens != first.tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_modes(family: str) -> None:
    edit = [Intervention("resid_pre@1", Add(PUSH))]
    lengths = [len(ids) for ids in PROMPTS]

    live = written(family, edit)
    prefill = written(family, edit, mode="prefill")
    before = written(family, edit, mode="before_query", query=-1)

    equals_naive(live, family, lambda row: push(but_first))
    equals_naive(prefill, family, lambda row: push(lambda _: range(1, lengths[row])))
    equals_naive(before, family, lambda row: push(lambda _: range(1, lengths[row] - 1)))
    for done, each, decode in ((live, -1, NEW - 1), (prefill, -1, 0), (before, -2, 0)):
        assert done.receipt.sites[0].tokens_edited == {
            "prefill": sum(lengths) + each * len(lengths),
            "decode": decode * len(lengths),
        }


@pytest.mark.parametrize("family", FEW)
def test_where_clauses(family: str) -> None:
    lengths = [len(ids) for ids in PROMPTS]

    def selects(where: Where, positions: Callable[[int], Any]) -> None:
        got = written(family, [Intervention("resid_pre@1", Add(PUSH), where)])
        equals_naive(got, family, lambda row: push(lambda _: positions(row)))

    selects(generated(), lambda row: range(lengths[row], lengths[row] + NEW))
    selects(generated(1, 2), lambda row: [lengths[row] + 1])
    selects(at(0, -1), lambda row: [0, lengths[row] - 1])
    selects(window(-2), lambda row: range(lengths[row] - 2, lengths[row] + NEW))
    selects(Where(prompt=True), lambda row: range(1, lengths[row]))
    selects(EVERYWHERE.but(at(1)), lambda row: range(2, lengths[row] + NEW))


def test_a_span_is_found_by_its_text() -> None:
    model, _ = prepared("llama")
    ids = [1, 5, 9, 22, 5, 9]
    edit = Intervention("resid_pre@1", Add(PUSH), span("w5 w9"))

    got = generate(model, [ids], [edit], max_new_tokens=1, keep_logits=True)

    edits = push(lambda _: [1, 2, 4, 5])
    expected, _ = naive_logits(model.module, "llama", ids, edits)
    assert got.logits is not None
    torch.testing.assert_close(got.logits[0, 0], expected[-1], rtol=1e-5, atol=2e-5)
    assert got.receipt.sites[0].tokens_edited == {"prefill": 4, "decode": 0}


@pytest.mark.parametrize("family", FEW)
def test_patches_from_other_positions(family: str) -> None:
    model, _ = prepared(family)
    site = "resid_post@0"
    _, seen = naive_logits(model.module, family, OTHER_PROMPT, read=[site])
    patch = Intervention(site, PatchFrom(OTHER_PROMPT, (9, 4)), at(1, -1))

    def moved(value: Tensor, _: Seen, row: int) -> Tensor:
        new = value.clone()
        new[1], new[len(PROMPTS[row]) - 1] = seen[site][9], seen[site][4]
        return new

    equals_naive(
        written(family, [patch]),
        family,
        lambda row: [(site, lambda value, seen: moved(value, seen, row))],
    )


def readings(gate: Gate, x: Tensor, counted: list[int]) -> list[float | None]:
    """A gate's reading at every token, straight from the definition; None: nothing counted yet."""

    def read(value: Tensor) -> float:
        if gate.measure == "cosine":
            return float(value @ gate.vector / value.norm() / gate.vector.norm())
        return float(value @ gate.vector + gate.bias)

    result: list[float | None] = []
    for position in range(len(x)):
        so_far = [each for each in counted if each <= position]
        if gate.reduce == "here":
            result.append(read(x[position]) if position in counted else None)
        elif not so_far:
            result.append(None)
        elif gate.reduce == "max":
            result.append(max(read(x[each]) for each in so_far))
        else:
            result.append(read(x[so_far].mean(0)))
    return result


@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 2}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize(
    ("reduce", "measure"), [("here", "dot"), ("max", "cosine"), ("mean", "dot"), ("mean", "cosine")]
)
@pytest.mark.parametrize("family", FEW)
def test_gates(family: str, reduce: Any, measure: Any, options: dict[str, Any]) -> None:
    model, _ = prepared(family)
    gate = Gate(
        site="resid_pre@1",
        vector=vector(20),
        threshold=0.0,
        bias=0.05,
        measure=measure,
        over=EVERYWHERE.but(at(2)),
        reduce=reduce,
        above=reduce != "max",
    )
    unedited: list[float] = []
    for ids in PROMPTS:
        _, seen = naive_logits(model.module, family, ids, read=["resid_pre@1"])
        found = readings(gate, seen["resid_pre@1"], [1, *range(3, len(ids))])
        unedited += [each for each in found if each is not None]
    gate = replace(gate, threshold=sorted(unedited)[len(unedited) // 2] + 1e-3)

    def edits(row: int) -> list[Edit]:
        def gated(value: Tensor, seen: Seen) -> Tensor:
            counted = [each for each in range(1, len(value)) if each != 2]
            new = value.clone()
            for position, reading in enumerate(readings(gate, seen["resid_pre@1"], counted)):
                passed = reading is not None and (reading > gate.threshold) == gate.above
                if position > 0 and passed:
                    new[position] += PUSH
            return new

        return [("resid_post@1", gated)]

    got = written(family, [Intervention("resid_post@1", Add(PUSH), gate=gate)], **options)

    equals_naive(got, family, edits, ("resid_pre@1",))
    record = got.receipt.sites[0]
    assert record.gated_off > 0 and sum(record.tokens_edited.values()) > 0


@pytest.mark.parametrize("family", FEW)
def test_a_gate_on_a_feature_gates_another(family: str) -> None:
    model, dictionaries = prepared(family)
    dictionary = dictionaries[1]
    site = str(dictionary.read_site)
    feature = active_feature(model, family, dictionary)
    gate = Gate(site=FeatureSite(1, feature), threshold=0.05)

    def edits(row: int) -> list[Edit]:
        def gated(value: Tensor, seen: Seen) -> Tensor:
            new = value.clone()
            for position in range(1, len(value)):
                x = seen[site][position]
                if naive_activation(dictionary, x, feature) > 0.05:
                    other = naive_activation(dictionary, x, 7)
                    new[position] += (9.0 - other) * dictionary.W_dec[7]
            return new

        return [("mlp_out@1", gated)]

    got = written(family, [Intervention("feature@1[7]", Clamp(9.0), gate=gate)])

    equals_naive(got, family, edits, (site,))


def test_beams_are_refused_where_a_gate_would_have_to_follow_them() -> None:
    gate = Gate(site="resid_pre@0", vector=vector(0), threshold=0.0, reduce="mean")
    with pytest.raises(InterventionError, match="cannot follow beams"):
        written("llama", [Intervention("resid_pre@1", Add(PUSH), gate=gate)], num_beams=2)


def test_new_tokens_stop_before_the_end_of_sequence_that_was_asked_for() -> None:
    model, _ = prepared("llama")
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": True, "seed": 1}
    (whole,) = generate(model, PROMPTS[:1], eos_token_id=-1, **options).tokens
    assert len(whole) == NEW and whole[2] not in whole[:2]

    for ending in (whole[2], [66, whole[2]]):
        written = generate(model, PROMPTS[:1], eos_token_id=ending, **options)
        assert written.tokens == [whole[:2]]
