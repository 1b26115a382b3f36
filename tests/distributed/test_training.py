"""Training over processes: real ones under torchrun, gloo; killed, stopped, gone on with others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pellucid.core.types import Site
from pellucid.harvest.activations import SharedActivations
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.training.run_checkpoint import load_newest
from support.distributed_train import model, text
from support.torchrun import torchrun

TRAIN = "support.distributed_train"
EXACT = 1e-5
"""Relative difference of FVU where each process sees all tokens: sums in another order."""
SHARED = 0.05
"""Where each sees other tokens: the same ones in other batches. (Of this short run two seeds differ
by up to 0.09.)"""


def trained(processes: int, out: Path, **options: Any) -> dict[str, Any]:
    ended = torchrun(processes, TRAIN, json.dumps({"out": str(out), **options}))
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def fvu(result: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([layer["fvu"] for layer in result["layers"]])


def weights(out: Path) -> dict[str, torch.Tensor]:
    files = sorted(out.glob("layer_*.safetensors"))
    return {f"{file.stem}.{n}": t for file in files for n, t in load_file(file).items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(1, tmp_path_factory.mktemp("alone") / "run")


def test_spread_over_layers_and_features_it_is_the_run_of_one_process(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    spread = trained(4, tmp_path / "run", layout="data=1,layers=2,features=2")
    torch.testing.assert_close(fvu(spread), fvu(alone), rtol=EXACT, atol=0)


def test_a_killed_process_ends_the_job_and_others_go_on_from_its_checkpoint(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    """Four processes, then one: killed, stopped at a checkpoint of rows, and read as a whole."""
    out = tmp_path / "run"
    options = json.dumps({"out": str(out), "layout": "data=2,features=2", "kill_after": 4_000})
    ended = torchrun(4, TRAIN, options)
    assert ended.returncode != 0
    assert not list(out.glob("layer_*"))
    assert len(list((out / "checkpoints").glob("checkpoint-*"))) == 2

    result = trained(1, out, resume=True)
    assert result["tokens"] == alone["tokens"]
    torch.testing.assert_close(fvu(result), fvu(alone), rtol=SHARED, atol=0)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    tokens = [record["tokens"] for record in records]
    assert tokens == sorted(set(tokens))


def test_a_full_disk_is_one_error_of_ours_and_the_checkpoints_before_stay(tmp_path: Path) -> None:
    """Of `torch.distributed.checkpoint`, whose own error is no `Exception`."""
    out = tmp_path / "run"
    options = {"out": str(out), "layout": "features=2", "full_after": 512, "tokens": 2_000}
    ended = torchrun(2, TRAIN, json.dumps(options))
    assert ended.returncode != 0
    assert re.search(r"StorageError: cannot write .*checkpoint-0*512: File too large", ended.stderr)
    assert "CheckpointException" not in ended.stderr
    assert load_newest(out / "checkpoints").tokens == 384
    assert sorted(path.name[-3:] for path in (out / "checkpoints").iterdir()) == ["256", "384"]


def test_a_run_goes_on_over_more_processes_than_it_began_with(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    ended = torchrun(1, TRAIN, json.dumps({"out": str(out), "kill_after": 4_000}))
    assert ended.returncode != 0
    result = trained(2, out, resume=True)
    torch.testing.assert_close(fvu(result), fvu(alone), rtol=SHARED, atol=0)
    assert len(weights(out)) == 12


def test_tokens_of_high_norm_are_counted_over_all_processes(tmp_path: Path) -> None:
    options = {"exclude_high_norm": 1.2, "context_length": 32}
    found = trained(2, tmp_path / "run", layout="data=2", tokens=8_000, layers=[0], **options)
    # Each reads one block, of which it takes 4,000 tokens.
    excluded = [excluded_of_first_block(rank, **options) for rank in range(2)]
    assert found["excluded_tokens"] == sum(excluded)
    assert min(excluded) > 0 and excluded[0] != excluded[1]


def excluded_of_first_block(rank: int, **options: Any) -> int:
    sites = [Site("mlp_in", 0), Site("mlp_out", 0)]
    live = LiveActivations(model(), text().split("train"), sites, HarvestConfig(**options))
    return SharedActivations(live, rank=rank, size=2).next_block().excluded


def test_what_does_not_part_over_the_processes_is_one_error_before_training(tmp_path: Path) -> None:
    for options, message in [
        ({"layout": "features=2", "num_features": 63}, "63 features do not part evenly over 2"),
        ({"layout": "layers=2", "kind": "clt"}, "cross-layer transcoder are trained together"),
        ({"batch_tokens": 127}, "batch_tokens 127 does not part evenly over the 2 processes"),
    ]:
        ended = torchrun(2, TRAIN, json.dumps({"out": str(tmp_path / "run"), **options}))
        assert ended.returncode != 0
        assert message in ended.stderr
        assert not (tmp_path / "run").exists()
