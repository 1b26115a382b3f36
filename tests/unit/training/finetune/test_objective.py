"""The terms of the objective, and what makes a step the same at every scale."""

import copy

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from pellucid.core.errors import DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import Activation, ReLU, TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.harvest.rows import TokenRows, padded_batches
from pellucid.replacement.model import ReplacementModel
from pellucid.training.finetune import FinetuneConfig
from pellucid.training.finetune.objective import original_run, terms
from pellucid.training.finetune.run import FinetunePlan, FinetuneRun
from pellucid.training.finetune.sparsity import SparsityKeeper
from pellucid.training.finetune.subject import Subject
from support.finetuning import TEXT, tiny_subject
from support.tiny_dictionaries import tiny_set

MODEL = tiny_subject()


@pytest.fixture(scope="module")
def start() -> DictionarySet:
    return tiny_set(MODEL, ["plt", "skip", "plt"])


def test_terms_are_those_of_plain_runs(start: DictionarySet) -> None:
    rows = TokenRows(TEXT, MODEL, length=30)
    (batch,) = padded_batches([next(rows) for _ in range(5)], max_tokens=1000)
    replacement = ReplacementModel(MODEL, start)
    found = terms(replacement, batch, original_run(replacement, batch), with_kl=True)
    kl, errors = 0.0, dict.fromkeys(range(3), 0.0)
    for ids, mask, text in zip(*batch, strict=True):  # row by row, without padding
        ids, text = ids[mask][None], text[mask]
        p, q = (log_softmax(m.logits(ids)[0, :-1], -1)[text[1:]] for m in (MODEL, replacement))
        kl += float(kl_div(q, p, reduction="sum", log_target=True))
        sites = [Site(kind, layer) for kind in ("mlp_in", "mlp_out") for layer in range(3)]
        values = {site: value[0, text] for site, value in MODEL.activations(ids, sites).items()}
        for layer in range(3):
            x, y = values[Site("mlp_in", layer)], values[Site("mlp_out", layer)]
            errors[layer] += float((y - start[layer](x)).square().sum())
    assert found.kl is not None
    assert float(found.kl) == pytest.approx(kl, rel=1e-4)
    for layer, error in errors.items():
        assert float(found.errors[layer]) == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_step_is_the_same_for_features_counted_in_other_units(
    start: DictionarySet, factor: float
) -> None:
    """Encoders times a factor and decoders over it are the same dictionaries."""
    scaled = copy.deepcopy(start)
    for dictionary in scaled:
        dictionary.W_enc *= factor
        dictionary.b_enc *= factor
        dictionary.W_dec /= factor
    plan = FinetunePlan(
        config=FinetuneConfig(batch_tokens=200, epsilon=1e-30), total_tokens=600, context_length=48
    )
    runs = [FinetuneRun(plan, MODEL, each, TEXT) for each in (start, scaled)]
    figures = [[run.advance() for _ in range(3)] for run in runs]
    for one, other in zip(*figures, strict=True):
        assert one.kl == pytest.approx(other.kl, rel=1e-3)
    # The sign of a gradient that is all but 0 may differ, and with it one step of one number.
    for one, other in zip(runs[0].subject.trained, runs[1].subject.trained, strict=True):
        moved = (one.W_dec - other.W_dec * factor).abs() > 1e-3 * one.W_dec.abs().max()
        assert float(moved.double().mean()) < 0.01


def test_encoders_have_a_rate_of_their_own(start: DictionarySet) -> None:
    config = FinetuneConfig(batch_tokens=200, encoder_rate=0.0)
    run = FinetuneRun(
        FinetunePlan(config=config, total_tokens=400, context_length=48), MODEL, start, TEXT
    )
    run.advance()
    for before, after in zip(start, run.subject.trained, strict=True):
        assert before.W_enc.equal(after.W_enc) and before.b_enc.equal(after.b_enc)
        assert not before.W_dec.equal(after.W_dec)


def test_a_layer_without_active_features_is_left_in_step(start: DictionarySet) -> None:
    silent = tiny_set(MODEL, ["plt"] * 3, ReLU())
    silent[1].b_enc.fill_(-1e6)
    run = FinetuneRun(
        FinetunePlan(config=FinetuneConfig(batch_tokens=200), total_tokens=400, context_length=48),
        MODEL,
        silent,
        TEXT,
    )
    run.advance()
    checkpoint = run.checkpoint()
    assert not checkpoint.tensors["layer_1"]["exp_avg.W_enc"].any()
    run.restore(checkpoint)
    run.advance()


class Unheard(Activation):
    """An activation that nothing here knows."""

    name = "unheard"

    def forward(self, pre):  # type: ignore[no-untyped-def]
        return TopK(2)(pre)

    def check(self, num_features: int) -> None:
        pass

    def settings(self):  # type: ignore[no-untyped-def]
        return {}


def test_an_activation_whose_l0_nothing_keeps_is_refused(start: DictionarySet) -> None:
    odd = copy.deepcopy(start)
    odd[1].activation = Unheard()
    with pytest.raises(DictionaryError, match="nothing keeps the L0 of a unheard dictionary"):
        Subject(odd, FinetuneConfig())


def test_the_penalty_weighs_what_its_setting_says_and_never_less_than_nothing() -> None:
    dictionary = tiny_set(MODEL, ["plt"], ReLU())[0]
    keeper = SparsityKeeper(dictionary, dictionary)
    codes = dictionary.encode(torch.randn(5, MODEL.d_model))
    assert float(keeper.penalty(codes)) == 0
    keeper.restore(0.25)
    assert float(keeper.penalty(codes)) == pytest.approx(0.25)
    keeper.restore(-1.0)
    assert keeper.setting == 0
