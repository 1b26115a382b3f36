"""Edits end with their context, stay in their thread, and are never silently absent."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.errors import InterventionError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import generate
from pellucid.interventions.operations import Add, Clamp, Custom, ProjectOut, Scale
from pellucid.interventions.run import edit, run
from pellucid.interventions.spec import Intervention
from pellucid.interventions.where import at, generated
from pellucid.models import taps
from pellucid.models.model import LanguageModel
from support.edit_cases import PROMPTS, but_first, mixed_dictionaries, tiny_language_model, vector
from support.naive_edits import Edit, at_positions, naive_logits
from support.tiny_models import FAMILIES

IDS = PROMPTS[2]
ROW = torch.tensor([IDS])


class StopHereError(Exception):
    """Raised inside a forward on purpose."""


@cache
def prepared(family: str) -> tuple[LanguageModel, DictionarySet]:
    model = tiny_language_model(family)
    return model, mixed_dictionaries(model)


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def stop(_: Tensor) -> Tensor:
    raise StopHereError


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_after_an_exception(family: str) -> None:
    model, dictionaries = prepared(family)
    plain = model.logits(ROW)
    edits = [
        Intervention("feature@1[5]", Clamp(2.0)),
        Intervention("resid_post@1", Custom("stop", stop)),
    ]

    for doing in (
        lambda: run(model, [IDS], edits, dictionaries=dictionaries),
        lambda: generate(model, [IDS], edits, dictionaries=dictionaries, max_new_tokens=2),
    ):
        with pytest.raises(StopHereError):
            doing()
        assert hooks_of(model.module) == 0
        assert torch.equal(model.logits(ROW), plain)


def test_the_callers_own_exception_is_not_replaced_by_the_receipts() -> None:
    model, _ = prepared("llama")
    with pytest.raises(StopHereError), edit(model, [Intervention("resid_post@1", Scale(2.0))]):
        raise StopHereError
    assert hooks_of(model.module) == 0


def test_a_context_in_which_nothing_ran_is_an_error() -> None:
    model, _ = prepared("llama")
    with (
        pytest.raises(InterventionError, match="edited no token"),
        edit(model, [Intervention("resid_post@1", Scale(2.0))]),
    ):
        pass
    assert hooks_of(model.module) == 0


@torch.no_grad()
def test_edit_acts_on_forwards_and_on_generate_of_the_module() -> None:
    model, _ = prepared("llama")
    added = Intervention("resid_pre@1", Add(vector(0), 1.5))
    expected, _ = naive_logits(
        model.module, "llama", IDS, [("resid_pre@1", lambda x, _: but_bos(x, 1.5 * vector(0)))]
    )

    with model.edit(added) as receipt:
        by_model = model.logits(ROW)
        by_module = model.module(ROW).logits
        whole = model.module.generate(ROW, max_new_tokens=3, do_sample=False, eos_token_id=-1)

    for logits in (by_model, by_module):
        torch.testing.assert_close(logits[0], expected, rtol=1e-5, atol=2e-5)
    assert receipt.sites[0].tokens_edited == {"prefill": 3 * (len(IDS) - 1), "decode": 2}
    written = generate(model, [IDS], [added], max_new_tokens=3, eos_token_id=-1)
    assert written.tokens == [whole[0, len(IDS) :].tolist()]


def but_bos(value: Tensor, added: Tensor) -> Tensor:
    return torch.cat([value[:1], value[1:] + added])


@torch.no_grad()
def test_nested_edits_add_up_and_end_one_by_one() -> None:
    model, _ = prepared("gemma3")
    plain = model.logits(ROW)
    one = Intervention("resid_pre@1", Add(vector(0)))
    two = Intervention("resid_pre@1", Scale(0.5), at(3))

    with model.edit(one) as outer:
        alone = model.logits(ROW)
        with model.edit(two) as inner:
            both = model.logits(ROW)
        assert torch.equal(model.logits(ROW), alone)
    assert torch.equal(model.logits(ROW), plain)

    assert torch.equal(run(model, [IDS], [one, two]).logits, both)
    assert not torch.equal(run(model, [IDS], [two, one]).logits, both)
    assert outer.sites[0].tokens_edited["prefill"] == 3 * (len(IDS) - 1)
    assert inner.sites[0].tokens_edited["prefill"] == 1


def test_an_early_exit_inside_an_edit_is_no_error() -> None:
    model, _ = prepared("llama")
    site = Intervention("resid_pre@1", Scale(2.0)).site
    with model.edit(Intervention("resid_pre@1", Scale(2.0))) as receipt:
        before = model.activations(ROW, [Intervention("resid_pre@0", Scale(2.0)).site])
        after = model.activations(ROW, [site])[site]
    assert len(before) == 1
    assert torch.equal(after[0, 1:], 2 * model.activations(ROW, [site])[site][0, 1:])
    assert receipt.sites[0].tokens_edited["prefill"] == len(IDS) - 1


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_threads_on_one_model_see_their_own_edits_only(family: str) -> None:
    model, dictionaries = prepared(family)
    edits: list[list[Intervention]] = [
        [Intervention("resid_pre@1", Add(vector(0), 2.0))],
        [Intervention("feature@1[5]", Clamp(4.0))],
        [],
    ]

    def done(index: int) -> Tensor:
        return run(model, PROMPTS, edits[index], dictionaries=dictionaries).logits

    expected = [done(index) for index in range(3)]
    wrong: list[int] = []
    started = threading.Barrier(3)

    def work(index: int) -> None:
        torch.set_grad_enabled(False)
        started.wait()
        for _ in range(15):
            if not torch.equal(done(index), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
    assert hooks_of(model.module) == 0


def last_logit(model: LanguageModel, added: Tensor) -> Tensor:
    """A number that depends on a vector through edits of two rows of a batch."""
    edits = [
        Intervention("resid_pre@1", Add(added, 1.3), rows=(0,)),
        Intervention("resid_pre@1", Add(added, -0.7), at(2), rows=(1,)),
        Intervention("v@2", Scale(1.1)),
        Intervention("attn_out@2", ProjectOut(vector(5)), at(-1)),
    ]
    return run(model, [IDS, IDS], edits).last.log_softmax(-1)[:, 7].sum()


def test_gradients_of_an_added_vector_are_finite_differences() -> None:
    # The other families compute norms or attention in float32 whatever their weights are.
    model, step = tiny_language_model("gpt2", dtype=torch.float64), 1e-5
    added = vector(0).double().requires_grad_()
    (gradient,) = torch.autograd.grad(last_logit(model, added), added)

    for index in (0, 9, 31):
        change = torch.zeros(len(added), dtype=torch.float64)
        change[index] = step
        ends = [float(last_logit(model, (added + sign * change).detach())) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_an_added_vector_are_those_of_hooks_written_by_hand(family: str) -> None:
    model, _ = prepared(family)
    added = vector(0).requires_grad_()
    (gradient,) = torch.autograd.grad(last_logit(model, added), added)

    unit = vector(5) / vector(5).norm()
    others: list[Edit] = [
        ("v@2", at_positions(but_first, lambda x: 1.1 * x)),
        ("attn_out@2", at_positions([len(IDS) - 1], lambda x: x - unit * (unit @ x))),
    ]
    first = at_positions(but_first, lambda x: x + 1.3 * added)
    second = at_positions([2], lambda x: x - 0.7 * added)
    logits = [
        naive_logits(model.module, family, IDS, [("resid_pre@1", own), *others])[0][-1]
        for own in (first, second)
    ]
    total = torch.stack(logits).log_softmax(-1)[:, 7].sum()
    (expected,) = torch.autograd.grad(total, added)

    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert gradient.norm() > 1e-3


def firing_when(condition: Callable[[Tensor], bool], make: Callable[..., Any]) -> Any:
    """Hooks of `make` that act only where a condition holds."""

    def remade(point: Any, function: Any) -> Any:
        def sometimes(value: Tensor, call: Any) -> Tensor | None:
            return function(value, call) if condition(value) else None

        return make(point, sometimes)

    return remade


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["resid_pre@1", "feature@1[5]", "z@1[1]"])
def test_hooks_that_miss_cached_steps_are_an_error(
    family: str, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field's usual defect: an edit that acts on the prompt and then never again."""
    model, dictionaries = prepared(family)
    for name in ("_input_hook", "_output_hook"):
        mutant = firing_when(lambda value: value.shape[1] > 1, getattr(taps, name))
        monkeypatch.setattr(taps, name, mutant)
    edits = [Intervention(site, Scale(2.0))]

    options: dict[str, Any] = {"dictionaries": dictionaries, "eos_token_id": -1}
    generate(model, [IDS], edits, max_new_tokens=1, **options)
    with pytest.raises(InterventionError, match="its place was never reached"):
        generate(model, [IDS], edits, max_new_tokens=2, **options)
    with pytest.raises(InterventionError, match="its place was never reached"):
        generate(
            model, [IDS], [Intervention(site, Scale(2.0), generated())], max_new_tokens=2, **options
        )
    assert hooks_of(model.module) == 0


def test_an_edit_of_tokens_that_were_never_generated_is_an_error() -> None:
    model, _ = prepared("llama")
    late = Intervention("resid_pre@1", Scale(2.0), generated(2))
    first = generate(model, [IDS], max_new_tokens=1, eos_token_id=-1).tokens[0][0]
    with pytest.raises(InterventionError, match="edited no token"):
        generate(model, [IDS], [late], max_new_tokens=5, eos_token_id=first)
