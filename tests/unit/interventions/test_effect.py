"""Effects are KL by hand, and random edits have the norms of the edits they stand beside."""

import pytest
import torch

from pellucid.core.errors import InterventionError
from pellucid.interventions import Add, Clamp, Intervention, Scale, at, generated, run, window
from pellucid.interventions.effect import effects
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall
from support.edit_cases import PROMPTS, mixed_dictionaries, tiny_language_model, vector


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model("llama")


def test_kl_and_tokens_are_those_of_the_two_runs(model: LanguageModel) -> None:
    edit = Intervention("resid_pre@1", Add(vector(0), 2.0), window(1))

    found, receipt = effects(model, PROMPTS, [edit], draws=3, top=4)

    before, after = (run(model, PROMPTS, edits).last.softmax(-1) for edits in ([], [edit]))
    for row, effect in enumerate(found):
        kl = (before[row] * (before[row] / after[row]).log()).sum()
        assert effect.kl == pytest.approx(float(kl), rel=1e-4)
        assert [token for token, _ in effect.before] == before[row].topk(4).indices.tolist()
        assert [p for _, p in effect.after] == pytest.approx(after[row].topk(4).values.tolist())
        assert len(effect.control) == 3 and min(effect.control) > 0
    assert receipt.sites[0].tokens_edited["prefill"] == sum(len(ids) - 1 for ids in PROMPTS)


def test_random_edits_stand_where_the_edits_stand_and_are_as_large(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read each random run's change at the edited place, against the edit's own change."""
    dictionaries = mixed_dictionaries(model)
    edits = [
        Intervention("z@1[2]", Scale(3.0), at(1, -1)),
        Intervention("feature@1[5]", Clamp(3.0), at(-1)),
    ]
    points = [model.head_point(edits[0].site)[0], model.point(dictionaries[1].write_site)]
    columns = model.head_point(edits[0].site)[1]
    values: list[list[torch.Tensor]] = []
    plain_logits = type(model).logits

    def watched(self: LanguageModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def keep(value: torch.Tensor, _: TapCall) -> None:
            kept.append(value.clone())

        with self.tapped([(point, keep) for point in points]):
            logits = plain_logits(self, ids, mask)
        values.append(kept)
        return logits

    monkeypatch.setattr(type(model), "logits", watched)
    effects(model, PROMPTS, edits, dictionaries=dictionaries, draws=2)

    edited, plain, *drawn = values
    for random in drawn:
        change, expected = random[0] - plain[0], edited[0] - plain[0]
        torch.testing.assert_close(change.norm(dim=-1), expected.norm(dim=-1))
        others = [c for c in range(change.shape[-1]) if c not in columns.tolist()]
        assert not change[..., others].any()
        assert not torch.allclose(change, expected)


def test_the_seed_decides_the_random_edits(model: LanguageModel) -> None:
    edit = Intervention("resid_pre@1", Scale(2.0))
    one, same, other = (
        effects(model, PROMPTS, [edit], draws=2, seed=seed)[0][0].control for seed in (0, 0, 1)
    )
    assert one == same != other


def test_an_edit_of_nothing_is_refused(model: LanguageModel) -> None:
    with pytest.raises(InterventionError, match="selects no token"):
        effects(model, PROMPTS, [Intervention("resid_pre@1", Scale(2.0), generated())])
