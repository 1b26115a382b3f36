"""Steering vectors as data and as files."""

from pathlib import Path

import pytest
import torch

from pellucid.core.errors import CheckpointError, InterventionError, SiteError
from pellucid.core.types import Site
from pellucid.interventions.operations import Add
from pellucid.interventions.run import run
from pellucid.interventions.steering.contrast import mean_difference
from pellucid.interventions.steering.vector import PositionVectors, SteeringVector, load_vector
from pellucid.interventions.where import at, window
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import tiny_model


def made(values: list[float], **more: object) -> SteeringVector:
    given = {"site": "resid_post@1", "vector": torch.tensor(values), "method": "by hand"}
    return SteeringVector(**(given | more))


def test_saved_and_read_back(tmp_path: Path, tiny: LanguageModel) -> None:
    vector = mean_difference(tiny, ["w5 w6"], ["w7 w8", "w9"], "blocks.1.resid_post")
    vector = vector.at(window(-1))
    again = load_vector(vector.save(tmp_path / "v"))
    assert torch.equal(again.vector, vector.vector)
    assert (again.site, again.where, again.method) == (Site("resid_post", 1), window(-1), "mean")
    assert again.provenance == dict(vector.provenance)
    assert again.provenance["counts"] == [1, 2]
    again.check_model(tiny)
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == [
        "manifest.json",
        "vector.safetensors",
    ]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = made([1.0, 2.0]).save(tmp_path / "v")
    path = folder / "vector.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_vector(folder)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_vector(tmp_path)


def test_another_model_is_refused(tiny: LanguageModel) -> None:
    vector = mean_difference(tiny, ["w5"], ["w7"], "resid_post@1")
    other = load_model(tiny_model("llama", seed=1))
    with pytest.raises(InterventionError, match="fingerprint"):
        vector.check_model(other)


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan"), 1.0], [[1.0, 2.0]]])
def test_zero_and_broken_vectors_are_refused(values: list[float]) -> None:
    with pytest.raises(InterventionError, match="flat, finite and not zero"):
        made(values)


@pytest.mark.parametrize("site", ["z@1", "feature@1[3]", "nowhere@1"])
def test_sites_that_cannot_be_steered(site: str) -> None:
    with pytest.raises(SiteError):
        made([1.0], site=site)


def test_interventions_say_site_strength_tokens_and_rows() -> None:
    vector = made([3.0, 4.0], where=at(2))
    (edit,) = vector.interventions(0.5, rows=[1, 3])
    assert isinstance(edit.op, Add)
    assert (edit.op.strength, edit.rows, edit.where) == (0.5, (1, 3), at(2))
    assert torch.equal(edit.op.vector, vector.vector)
    assert vector.norm == 5.0
    both = PositionVectors((vector, vector.at(at(3)))).interventions(2.0)
    assert [each.where for each in both] == [at(2), at(3)]


def test_cosine() -> None:
    assert made([1.0, 0.0]).cosine(made([2.0, 2.0])) == pytest.approx(0.5**0.5)
    with pytest.raises(InterventionError, match="width 2 and 3"):
        made([1.0, 0.0]).cosine(made([1.0, 0.0, 0.0]))


def test_a_site_that_the_model_lacks(tiny: LanguageModel) -> None:
    vector = made([1.0] * 32, site="resid_post@7")
    with pytest.raises(SiteError, match="7"):
        run(tiny, ["w5"], vector.interventions())
