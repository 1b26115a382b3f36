"""Suspects and replays on a copy whose culprit is known."""

import dataclasses

import pytest
import torch

from pellucid.core.errors import CheckpointError, DataError
from pellucid.core.types import Site
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.reading.reader import ChainReading, Reader
from pellucid.verification.repair.replay import Change, Edit, Replay
from pellucid.verification.repair.suspects import Accusation, accuse
from pellucid.verification.repair.usual import Usual
from pellucid.verification.steps.place import StepPlace
from pellucid.verification.steps.table import labelled_places
from tests.unit.verification.repair.conftest import ANSWERS, LAYER, Planted

Found = list[tuple[KeptChain, StepPlace, str, ChainReading, Accusation, Replay]]


@pytest.fixture(scope="module")
def wrong_steps(planted: Planted) -> Found:
    """The first wrong step of some chains, accused."""
    reader, found = Reader(planted.model, planted.dictionaries, ANSWERS), []
    for number, kept in enumerate(planted.chains):
        for labels, place in labelled_places(planted.model, kept.until_error(), number):
            if labels["wrong"] and len(found) < 6:
                chain = reader.chain(kept.chain.ids[: place.stop])
                made = accuse(chain.graph(place, "answer"), place, planted.usual, kind="+2")
                replay = Replay(planted.model, chain.local, place.answer[0])
                found.append((kept, place, labels["before"], chain, made, replay))
    assert len(found) >= 4
    return found


def test_the_accused_layer_is_the_tampered_one(wrong_steps: Found) -> None:
    assert [made.layer for *_, made, _ in wrong_steps].count(LAYER) >= len(wrong_steps) - 1


def test_suspects_are_ranked_and_scores_are_products(wrong_steps: Found) -> None:
    for *_, made, _ in wrong_steps:
        scores = [each.score for each in made.suspects]
        assert scores == sorted(scores, reverse=True) and min(scores) > 0
        for each in made.suspects:
            assert each.score == pytest.approx(each.effect * each.unusual * each.importance)
            assert (each.index is None) == (each.kind != "feature")
        assert {s.kind for s in made.of_kind("error", "layer").suspects} <= {"error", "layer"}


def test_without_the_layers_errors_the_answer_is_right(wrong_steps: Found) -> None:
    """The rule drops a carry: what the answer becomes must be ten more. Random changes do less."""
    generator, mended, random = torch.Generator().manual_seed(0), 0, 0
    for kept, place, _, chain, made, replay in wrong_steps:
        suspect = next((each for each in made.suspects if each.kind == "layer"), None)
        if suspect is None:  # not mended
            continue
        edit = replay.edit(suspect, 0.0)
        tokens = replay.outcomes([edit, replay.random(edit, generator)]).argmax(-1)
        model = chain.run.model
        written, without, at_random = (
            model.token_texts([token])[0].strip()
            for token in (kept.chain.ids[place.answer[0]], *tokens.tolist())
        )
        mended += without == str(int(written) + 10)
        random += at_random == str(int(written) + 10)
    assert mended >= len(wrong_steps) - 2, (mended, len(wrong_steps))
    assert random <= 1


def test_a_suspect_writes_what_the_decomposition_says(wrong_steps: Found) -> None:
    *_, chain, made, replay = wrong_steps[0]
    for each in made.suspects:
        layer = chain.local.layers[each.layer]
        for position, vector in zip(each.positions, replay.written(each), strict=True):
            if each.index is None:
                expected = layer.error[position]
            else:
                active = layer.active
                here = (active.positions == position) & (active.features == each.index)
                row = layer.active.dictionary.W_dec[each.index]  # type: ignore[attr-defined]
                expected = row * active.activations[here]
            torch.testing.assert_close(vector, expected)


def test_outcomes_are_those_of_whole_edited_forwards(wrong_steps: Found) -> None:
    """Edits at the last position, at earlier ones and in several layers, in one call."""
    kept, place, _, chain, made, replay = wrong_steps[1]
    model, length = chain.run.model, place.answer[0]
    edits = [replay.edit(each, factor) for each in made.suspects[:4] for factor in (0.0, 2.0)]
    generator = torch.Generator().manual_seed(1)
    width = chain.run.embed.shape[1]
    edits.append(
        Edit(
            tuple(
                Change(layer, position, torch.randn(width, generator=generator))
                for layer, position in ((0, length - 1), (2, 3), (2, 3), (3, length - 1))
            )
        )
    )
    ids = torch.tensor([kept.chain.ids[:length]])
    for edit, row in zip(edits, replay.outcomes(edits), strict=True):

        def tap(layer: int, edit: Edit = edit) -> object:
            def change(value: torch.Tensor, _: object) -> torch.Tensor:
                value = value.clone()
                for each in edit.changes:
                    if each.layer == layer:
                        value[0, each.position] += each.vector
                return value

            return Site("mlp_out", layer), change

        with torch.no_grad(), model.tapped([tap(n) for n in range(model.n_layers)]):  # type: ignore[misc]
            expected = model.logits(ids)[0, -1]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad(), replay.edited(edit):
            longer = model.logits(torch.tensor([kept.chain.ids]))[0, length - 1]
        torch.testing.assert_close(longer, expected, rtol=1e-4, atol=1e-4)


def test_a_random_match_has_the_same_places_and_lengths(wrong_steps: Found) -> None:
    *_, made, replay = wrong_steps[0]
    edit = replay.edit(made.suspects[0], 0.5)
    match = replay.random(edit, torch.Generator().manual_seed(2))
    for own, other in zip(edit.changes, match.changes, strict=True):
        assert (own.layer, own.position) == (other.layer, other.position)
        torch.testing.assert_close(own.vector.norm(), other.vector.norm())
        assert torch.cosine_similarity(own.vector, other.vector, dim=0).abs() < 0.9


def test_usual_figures_are_means_of_right_steps(planted: Planted, tmp_path: object) -> None:
    steps, usual = planted.plain_steps, planted.usual
    columns = [f"graph.answer.error.layer_{n}" for n in range(4)]
    assert usual.error_mean["all"] == pytest.approx(steps.matrix(columns).mean(0))
    dense = steps.bags["effect"].toarray()
    assert usual.feature_spread["all"] == pytest.approx(dense.std(0), abs=1e-6)
    assert usual.known("xor2") == "all"
    again = Usual.load(usual.save(tmp_path / "usual"))  # type: ignore[operator]
    assert again.steps == usual.steps
    assert (again.feature_mean["all"] == usual.feature_mean["all"]).all()
    with pytest.raises(CheckpointError, match="usual"):
        Usual.load(tmp_path / "none")  # type: ignore[operator]


def test_usual_figures_need_right_steps_with_graphs(planted: Planted) -> None:
    with pytest.raises(
        DataError, match="there are 3 right steps to compare with; give at least 20"
    ):
        Usual.of(planted.plain_steps.select(torch.arange(3).numpy()))
    bare = dataclasses.replace(planted.plain_steps, bags={})
    with pytest.raises(DataError, match="collect them with the target answer"):
        Usual.of(bare)
