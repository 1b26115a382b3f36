"""What is wrong with an intervention is said once, clearly, before the model runs."""

import json
from functools import cache
from typing import Any

import pytest
import torch

from pellucid.core.errors import InterventionError, PellucidError, PromptError, SiteError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import generate
from pellucid.interventions.operations import (
    Add,
    Clamp,
    Operation,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.run import run
from pellucid.interventions.spec import Gate, Intervention, read_interventions
from pellucid.interventions.where import Where, at, generated, span, window
from pellucid.models.model import LanguageModel
from support.edit_cases import mixed_dictionaries, tiny_language_model, vector

PROMPTS = [[1, 5, 9, 22], [1, 13]]
SHIFT = Add(vector(0))


@cache
def prepared() -> tuple[LanguageModel, DictionarySet]:
    model = tiny_language_model("llama")
    return model, mixed_dictionaries(model)


def add(site: str = "resid_pre@1", op: Operation = SHIFT, **parts: Any) -> Intervention:
    return Intervention(site, op, **parts)  # type: ignore[arg-type]


def gated(**parts: Any) -> Intervention:
    return add(gate=Gate(**({"site": "resid_pre@0", "threshold": 0.0} | parts)))


REFUSED_WHEN_WRITTEN = {
    "unknown site": (lambda: add("residual@1"), SiteError, "unknown site 'residual@1'"),
    "TransformerLens's other mlp_in": (
        lambda: add("blocks.1.hook_mlp_in"),
        SiteError,
        "resid_mid@1",
    ),
    "a feature's layer without its number": (lambda: add("feature@1"), SiteError, "names no feat"),
    "site of another type": (lambda: add(5), InterventionError, "a site is 5"),  # type: ignore
    "NaN strength": (lambda: Add(vector(0), float("nan")), InterventionError, "strength of add"),
    "infinite factor": (lambda: Scale(float("inf")), InterventionError, "finite number"),
    "NaN clamp": (lambda: Clamp(float("nan")), InterventionError, "value of clamp is nan"),
    "NaN in a vector": (lambda: Add(0 * vector(0) / 0), InterventionError, "not finite"),
    "a matrix as a vector": (lambda: Add(torch.ones(1, 32)), InterventionError, r"\(1, 32\)"),
    "zero direction": (lambda: ProjectOut(torch.zeros(32)), InterventionError, "zero length"),
    "no ids": (lambda: PatchFrom(()), InterventionError, "ids of patch_from are empty"),
    "a row twice": (lambda: add(rows=(0, 0)), InterventionError, "distinct row numbers"),
    "negative row": (lambda: add(rows=(-1,)), InterventionError, "distinct row numbers"),
    "empty span": (lambda: span(""), InterventionError, "spans are"),
    "half a position": (lambda: at(1.5), InterventionError, "holds 1.5"),  # type: ignore
    "generated backwards": (lambda: generated(3, 1), InterventionError, "stop comes after"),
    "gate's NaN": (lambda: gated(threshold=float("nan")), InterventionError, "threshold of a ga"),
    "gate's measure": (lambda: gated(measure="size"), InterventionError, "measure 'size'"),
}

REFUSED_BEFORE_THE_RUN = {
    "layer": ([add("resid_pre@7")], SiteError, "use 0 to 2"),
    "head": ([add("k@1[2]", Scale(2.0))], SiteError, "2 key-value heads; use 0 to 1"),
    "head's layer": ([add("z@9", Scale(2.0))], SiteError, "layer 9"),
    "module": ([add("model.layers.1.mpl:output")], SiteError, "mpl"),
    "feature": ([add("feature@1[24]", Clamp(1.0))], InterventionError, "features 0 to 23"),
    "vector's width": ([add(op=Add(vector(0, 31)))], InterventionError, "site has width 32"),
    "head's width": ([add("z@1[0]", Add(vector(0)))], InterventionError, "site has width 8"),
    "clamp of a residual": ([add(op=Clamp(1.0))], InterventionError, "acts on features"),
    "vector on a feature": ([add("feature@1[2]")], InterventionError, "cannot act as given"),
    "patch of a feature": (
        [add("feature@1[2]", PatchFrom((1, 5)))],
        InterventionError,
        "cannot act as given",
    ),
    "position beyond the row": ([add(where=at(4))], InterventionError, "position 4 is beyond"),
    "position beyond a shorter row": ([add(where=at(2))], InterventionError, "beyond the 2 tok"),
    "window beyond the row": ([add(where=window(1, 9))], InterventionError, "position 8 is bey"),
    "empty window": (
        [add(where=window(2, 2), rows=(0,))],
        InterventionError,
        r"window \(2, 2\) holds no token",
    ),
    "position before the row": ([add(where=at(-5))], InterventionError, "position -5 is beyond"),
    "span": ([add(where=span("w60"))], InterventionError, "span 'w60' does not occur"),
    "span in one row only": ([add(where=span("w22"))], InterventionError, "does not occur"),
    "excluded everything": (
        [add(where=window(1).but(window(0)))],
        InterventionError,
        "selects no token",
    ),
    "generated tokens in a single run": (
        [add(where=generated())],
        InterventionError,
        "selects no token",
    ),
    "row": ([add(rows=(0, 2))], InterventionError, "row 2 of a batch of 2; use rows 0 to 1"),
    "two sets": (
        [add(op=Set(0.0)), add(op=Set(vector(1)), where=at(1), rows=(1,))],
        InterventionError,
        "both fix the same tokens of row 1",
    ),
    "set and patch": (
        [add(op=Set(0.0)), add(op=PatchFrom((1, 5, 6, 7)))],
        InterventionError,
        "both fix",
    ),
    "two clamps": (
        [add("feature@1[2]", Clamp(1.0)), add("blocks.1.transcoder[2]", Clamp(2.0))],
        InterventionError,
        "both fix",
    ),
    "overlapping heads": (
        [add("z@1[0]", Set(0.0)), add("z@1", Set(1.0))],
        InterventionError,
        "both fix",
    ),
    "patched position": (
        [add(op=PatchFrom((1, 5)), rows=(0,))],
        InterventionError,
        "patch_from takes position 3 of a prompt of 2 tokens",
    ),
    "patched positions": (
        [add(op=PatchFrom((1, 5), (1,)), where=at(0, 1))],
        InterventionError,
        "names 1 positions of the other prompt for 2",
    ),
    "patched prompt": ([add(op=PatchFrom((1, 99)))], PromptError, "99 is outside the vocabulary"),
    "late gate": ([gated(site="resid_post@2", vector=vector(0))], InterventionError, "read it ear"),
    "gate without a vector": ([gated()], InterventionError, "has no vector"),
    "gate's width": ([gated(vector=vector(0, 3))], InterventionError, "site has width 32"),
    "feature's gate with a vector": (
        [gated(site="feature@0[1]", vector=vector(0))],
        InterventionError,
        "a feature needs none",
    ),
    "gate that counts nothing": (
        [gated(vector=vector(0), over=Where(positions=(1,), exclude=at(1)))],
        InterventionError,
        "counts no token",
    ),
}


@pytest.mark.parametrize("name", REFUSED_WHEN_WRITTEN)
def test_refused_when_it_is_written(name: str) -> None:
    make, error, message = REFUSED_WHEN_WRITTEN[name]
    with pytest.raises(error, match=message) as caught:
        make()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED_BEFORE_THE_RUN)
def test_refused_before_the_model_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dictionaries = prepared()
    interventions, error, message = REFUSED_BEFORE_THE_RUN[name]
    forwards: list[torch.Tensor] = []
    plain = type(model).forward

    def counted(self: LanguageModel, ids: torch.Tensor, *rest: Any) -> Any:
        if len(ids) == len(PROMPTS):  # a prompt that is patched from is run alone, and may be
            forwards.append(ids)
        return plain(self, ids, *rest)

    monkeypatch.setattr(type(model), "forward", counted)

    with pytest.raises(error, match=message) as caught:
        run(model, PROMPTS, interventions, dictionaries=dictionaries)

    assert not forwards
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_new_tokens": 45}, PromptError, "reads at most 48"),
        ({"max_new_tokens": 0}, PromptError, "at least one"),
        ({"mode": "always"}, InterventionError, "unknown mode 'always'"),
        ({"mode": "before_query"}, InterventionError, "where the query begins"),
        ({"query": 1}, InterventionError, "where the query begins"),
        ({"mode": "before_query", "query": "w60"}, InterventionError, "does not occur in row 0"),
        ({"mode": "before_query", "query": 4}, InterventionError, "begins at 4"),
        ({"prompt_lookup_num_tokens": 2}, InterventionError, "prompt_lookup_num_tokens"),
        ({"interventions": [add(where=at(6))]}, InterventionError, "position 6 is beyond"),
        ({"prompts": []}, PromptError, "no prompt"),
        ({"prompts": "w5 w9"}, PromptError, "one text"),
        ({"prompts": ["w5 zorvex"]}, PromptError, "'zorvex' is not in"),
    ],
    ids=str,
)
def test_generation_refuses(options: Any, error: type[Exception], message: str) -> None:
    model, _ = prepared()
    given = {"prompts": PROMPTS, "interventions": [add()], "max_new_tokens": 2} | options
    with pytest.raises(error, match=message):
        generate(model, **given)


def test_features_need_their_dictionaries() -> None:
    model, dictionaries = prepared()
    clamp = add("feature@1[2]", Clamp(1.0))
    with pytest.raises(InterventionError, match="no dictionaries were given"):
        run(model, PROMPTS, [clamp])
    lacking = DictionarySet("two", {layer: dictionaries[layer] for layer in (0, 2)})
    with pytest.raises(PellucidError, match="has no layer 1; it has 0, 2"):
        run(model, PROMPTS, [clamp], dictionaries=lacking)


def test_a_span_needs_a_tokenizer() -> None:
    model, _ = prepared()
    bare = LanguageModel(model.module, spec=model.spec, name="bare")
    with pytest.raises(PromptError, match="needs a tokenizer"):
        run(bare, PROMPTS, [add(where=span("w5"))])


SOUND = {"site": "resid_post@1", "op": {"scale": {"factor": 2}}}
HOSTILE: list[Any] = [
    {"site": 5},
    {"site": None},
    {"site": ["resid_post@1"]},
    {"op": "scale"},
    {"op": {}},
    {"op": {"scale": 3}},
    {"op": {"scale": {"factor": "twice"}}},
    {"op": {"scale": {"factor": None}}},
    {"op": {"scale": {"factor": [1]}}},
    {"op": {"scale": {"factor": float("nan")}}},
    {"op": {"melt": {}}},
    {"op": {"custom": {"label": "a"}}},
    {"op": {"add": {"vector": "abc"}}},
    {"op": {"add": {"vector": [1, [2]]}}},
    {"op": {"add": {"vector": []}}},
    {"op": {"add": {"vector": 3}}},
    {"op": {"set": {"value": "x"}}},
    {"op": {"project_out": {"directions": [[[1]]]}}},
    {"op": {"patch_from": {"ids": "abc"}}},
    {"op": {"patch_from": {"ids": 5}}},
    {"op": {"patch_from": {"ids": [1], "positions": "x"}}},
    {"where": 5},
    {"where": [1]},
    {"where": {"positions": 5}},
    {"where": {"positions": ["a"]}},
    {"where": {"positions": [True]}},
    {"where": {"windows": [1]}},
    {"where": {"windows": [[1, 2, 3]]}},
    {"where": {"windows": [["a", "b"]]}},
    {"where": {"spans": "w5"}},
    {"where": {"spans": [5]}},
    {"where": {"prompt": "yes"}},
    {"where": {"generated": 5}},
    {"where": {"generated": [0]}},
    {"where": {"generated": [0, -1]}},
    {"where": {"exclude": 5}},
    {"where": {"somewhere": 5}},
    {"rows": 5},
    {"rows": "ab"},
    {"rows": [1.5]},
    {"gate": 5},
    {"gate": {}},
    {"gate": {"site": 5, "threshold": 1}},
    {"gate": {"site": "resid_pre@0", "threshold": "high"}},
    {"gate": {"site": "resid_pre@0", "threshold": None}},
    {"gate": {"site": "resid_pre@0", "threshold": 1, "vector": "a"}},
    {"gate": {"site": "resid_pre@0", "threshold": 1, "vector": [None]}},
    {"gate": {"site": "resid_pre@0", "threshold": 1, "over": 3}},
    {"gate": {"site": "resid_pre@0", "threshold": 1, "above": "x"}},
    {"gate": {"site": "resid_pre@0", "threshold": 1, "measure": []}},
    {"somewhat": 1},
]


@pytest.mark.parametrize("change", HOSTILE, ids=json.dumps)
def test_hostile_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PellucidError) as caught:
        read_interventions(json.dumps(SOUND | change))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[", "null", '"x"', "[1]", "[" * 100_000])
def test_what_is_no_list_of_records_is_refused(text: str) -> None:
    with pytest.raises(InterventionError, match="interventions"):
        read_interventions(text)
