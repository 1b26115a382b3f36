import pytest
import torch

import pellucid
from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.introspection.asking import Asker
from pellucid.introspection.concepts import concept_vectors
from pellucid.introspection.dialogue import Dialogue
from pellucid.introspection.injection import Asked, Injection, through_answer
from pellucid.introspection.steering_attribution import (
    attribute_steering,
    default_gates,
    steering_graph,
)
from pellucid.introspection.wording import read_wording


@pytest.fixture(scope="module")
def scene():
    model = pellucid.load_model("specimen", check=False)
    dialogue = Dialogue(model, read_wording("specimen"))
    vector = concept_vectors(dialogue, [1], ["dog"]).vectors[1][0]
    return model, pellucid.load_dictionaries("specimen"), dialogue, vector


def account(scene, steps, strength=2.0):
    model, dictionaries, dialogue, vector = scene
    prompt = dialogue.trial("test 3 : is a gift here ?")
    injection = through_answer(prompt, vector * strength)
    pair = {"yes": dialogue.yes[0], "no": dialogue.no[0]}
    result = attribute_steering(
        model, dictionaries, prompt, injection, layer=1, steps=steps, **pair
    )
    return result, prompt, injection


def test_every_layer_accounts_for_the_measured_change(scene):
    result, prompt, injection = account(scene, 64)
    asker = Asker(model=scene[0], layer=1, relative_norms=[])
    rows = [Asked(prompt=prompt), Asked(prompt=prompt, injections=(injection,))]
    options = [[result.pair[0]], [result.pair[1]]]
    plain, steered = (float(s[0] - s[1]) for s in asker.scores(rows, options))
    assert result.total == pytest.approx(steered - plain, abs=1e-4)
    assert [each.layer for each in result.accounts] == [2, 3]
    for each in result.accounts:
        assert each.total == pytest.approx(result.total, abs=0.05)


def test_finer_steps_close_the_gap(scene):
    coarse, fine = (account(scene, steps)[0].quadrature_error for steps in (4, 32))
    assert fine < coarse / 4


def test_a_small_injection_is_first_order(scene):
    """Beside the finite difference of the logits when one feature's own effect is added."""
    result, prompt, _ = account(scene, 1, strength=0.01)
    model, dictionaries, dialogue, _ = scene
    last = [each for each in result.effects if each.layer == 3]
    best = max(last, key=lambda each: abs(each.effect))
    row = dictionaries[3].decoder_rows(torch.tensor([best.feature]))[0]
    injection = Injection(vector=row * best.change, start=best.position, stop=best.position + 1)
    asker = Asker(model=model, layer=3, relative_norms=[])
    asked = [Asked(prompt=prompt), Asked(prompt=prompt, injections=(injection,))]
    plain, moved = (float(s[0] - s[1]) for s in asker.scores(asked, [dialogue.yes, dialogue.no]))
    assert moved - plain == pytest.approx(best.effect, rel=0.05, abs=1e-4)


def test_gates_are_active_at_rest_and_say_no(scene):
    model, dictionaries, dialogue, _ = scene
    prompts = [dialogue.trial(f"test {n} : is a gift here ?") for n in (1, 2)]
    pair = {"yes": dialogue.yes[0], "no": dialogue.no[0]}
    gates = default_gates(model, dictionaries, prompts, top=5, **pair)
    assert [each.effect for each in gates] == sorted(each.effect for each in gates)
    assert gates[0].effect < 0 < gates[0].at_rest


def test_the_graph_explains_the_answer_at_rest_and_carries_the_account(scene):
    result, _, _ = account(scene, 4)
    graph = steering_graph(scene[0], scene[1], result, max_features=64)
    assert graph.metadata["steering"]["total"] == pytest.approx(result.total)
    assert float(graph.target_values[-1]) == pytest.approx(result.gaps[0], abs=1e-3)
    assert graph.row_sum_max_error < 1e-3


def test_nothing_above_the_injection_is_refused(scene):
    model, dictionaries, dialogue, vector = scene
    prompt = dialogue.trial("test 3 : is a gift here ?")
    low = DictionarySet("low", {0: dictionaries[0]})
    with pytest.raises(ConfigError, match=r"'low' has layers \[0\]"):
        attribute_steering(model, low, prompt, through_answer(prompt, vector), layer=1, yes=5, no=6)
