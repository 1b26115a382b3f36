"""Collecting in real processes that are killed, and folders that do not fit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.verification.collecting.collect import (
    Questions,
    Sampling,
    collect,
    load_kept,
    load_steps,
)
from pellucid.verification.reading.reader import Reader, ReaderSettings
from support.collect_process import CHAINS, PART, QUESTIONS, small_reader

ROOT = Path(__file__).parents[4]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
}


def start(out: Path, *share: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "support.collect_process", str(out), *share]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[int]:
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0
    return [int(line) for line in output.split()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected by one process that nobody stopped."""
    out = tmp_path_factory.mktemp("steps") / "whole"
    assert finish(start(out))[-1] == CHAINS
    return out


@pytest.fixture(scope="module")
def reader() -> Reader:
    return small_reader()


def same(left: Path, right: Path) -> None:
    """Two folders hold the same steps, but for the time that they took."""
    one, other = load_steps(left), load_steps(right)
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns.keys() - {"seconds"}:
        assert np.array_equal(one.columns[name], other.columns[name]), name
    for name in one.arrays:
        assert np.array_equal(one.arrays[name], other.arrays[name]), name
    for name in one.bags:
        assert (one.bags[name] != other.bags[name]).nnz == 0, name
    assert load_kept(left) == load_kept(right)


def test_killed_and_resumed_is_bit_for_bit_uninterrupted(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "broken"
    killed = start(out)
    assert killed.stdout is not None
    assert int(killed.stdout.readline()) == PART
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    parts = len(list(out.glob("part-*")))
    assert 1 <= parts < CHAINS // PART
    assert finish(start(out))[-1] == CHAINS
    same(whole, out)


def test_two_processes_collect_what_one_does(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    both = [start(out, str(rank), "2") for rank in range(2)]
    assert [finish(each)[-1] for each in both] == [CHAINS // 2] * 2
    same(whole, out)


def test_a_step_read_in_its_chain_is_the_step_read_at_the_end_of_it(whole: Path) -> None:
    """Nothing that is read of a step knows what was written later."""
    from pellucid.verification.steps.table import chain_ids, labelled_places

    wide = small_reader(max_features=300)
    kept = next(each for each in load_kept(whole) if each.unread is None and len(each.labels()) > 1)
    ids = chain_ids(wide.model, kept)
    _, place = next(labelled_places(wide.model, kept, 0))
    inside = wide.chain(ids).step(place)
    cut = wide.chain(ids[: place.stop + 1]).step(place)
    assert inside.columns.keys() == cut.columns.keys()
    for name, value in inside.columns.items():
        assert value == pytest.approx(cut.columns[name], rel=2e-3, abs=2e-4), name
    for name, array in inside.arrays.items():
        assert np.allclose(array, cut.arrays[name], atol=1e-4), name


def test_hidden_states_are_the_models(whole: Path, reader: Reader) -> None:
    from pellucid.core.types import Site
    from pellucid.verification.steps.table import chain_ids, labelled_places

    kept = next(each for each in load_kept(whole) if each.unread is None)
    ids = chain_ids(reader.model, kept)
    _, place = next(labelled_places(reader.model, kept, 0))
    read = reader.chain(ids).step(place).arrays
    site = Site("resid_pre", 2)
    import torch

    states = reader.model.activations(torch.tensor([list(ids)]), [site])[site][0]
    expected = states[place.start : place.stop].mean(0).numpy()
    assert np.allclose(read["hidden"][2], expected, atol=1e-5)
    assert np.allclose(read["hidden_answer"][2], states[place.answer[0] - 1].numpy(), atol=1e-5)


def test_a_folder_of_other_steps_is_refused(whole: Path, reader: Reader) -> None:
    before = sorted(path.name for path in whole.iterdir())
    other = Questions(operators=(2, 3), count=CHAINS, temperature=1.0, seed=4)
    for chains, settings in (
        (other, reader.settings),
        (QUESTIONS, ReaderSettings(targets=("after",), max_features=8, tokens=False)),
    ):
        mine = Reader(reader.model, reader.dictionaries, settings)
        with pytest.raises(CheckpointError, match="holds steps made with other"):
            collect(mine, chains, whole, sampling=Sampling(right_share=0.6))
    assert sorted(path.name for path in whole.iterdir()) == before


def test_a_chain_that_does_not_parse_is_kept_and_loses_nothing(
    whole: Path, reader: Reader, tmp_path: Path
) -> None:
    from dataclasses import replace

    from pellucid.verification.chains.writing import WrittenChain

    readable = [each for each in load_kept(whole) if each.unread is None][:3]
    written = readable[0].chain
    assert isinstance(written, WrittenChain)
    lost = replace(written, chain=None, unread="a bracket is missing")
    broken = replace(readable[0], id="broken", chain=lost)
    chains = [readable[0], broken, *readable[1:]]
    collect(reader, chains, tmp_path / "mixed")
    steps = load_steps(tmp_path / "mixed")
    assert set(steps.columns["chain"].tolist()) == {0, 2, 3}
    assert load_kept(tmp_path / "mixed")[1].unread == "a bracket is missing"
    with pytest.raises(DataError, match=r"no chain in .* has a step"):
        collect(reader, [broken], tmp_path / "none")
        load_steps(tmp_path / "none")


def test_damage_is_one_clear_error(whole: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "damaged"
    shutil.copytree(whole, out)
    file = next(path for path in (out / "part-00000").iterdir() if path.suffix == ".safetensors")
    assert load_file(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="part-00000"):
        load_steps(out)
    with pytest.raises(CheckpointError, match="verify collect"):
        load_steps(tmp_path / "nothing")


def test_what_cannot_be_collected_is_said_first(
    whole: Path, reader: Reader, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no chains to read"):
        collect(reader, [], tmp_path / "out")
    with pytest.raises(DataError, match="two chains have one id"):
        collect(reader, [load_kept(whole)[0]] * 2, tmp_path / "out")
    with pytest.raises(ConfigError, match="share of right steps is 0"):
        Sampling(right_share=0)
    assert not (tmp_path / "out").exists()
