"""Patching sweeps: how fast, and do they find the bridge of two-hop facts?

Speed: `resid_pre` of all layers and tokens, one patch at a time, each side in a process of its own
on one thread; processor seconds, medians. Sides: ours, a loop of full forwards of the same model,
TransformerLens' `get_act_patch_resid_pre`, nnsight's traces (environments in `--peers`). All must
give the same values.

Two-hop: prompts "the RELATION of the state containing PLACE is" and the same with a place of a
state with another answer. A swap patches the donor's residual at one place and token and counts
when the model's answer becomes the donor state's. Controls: a random token instead of the bridge, a
donor of the SAME state, and random changes of the same size. Wilson intervals over pairs. From
the repository's root:

    python -m benchmarks.patching --peers FOLDER_OF_ENVIRONMENTS

Results are written to `results/patching.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import hardware
from benchmarks.peers.patching_task import PatchingTask
from benchmarks.two_hop_swaps import two_hop
from pellucid.core.files import write_text
from pellucid.specimen import vocabulary
from pellucid.specimen.packaged import model_path
from tests.support.tiny_models import tiny_model, word_tokenizer

RESULTS = Path(__file__).parent / "results" / "patching.json"
OURS = "benchmarks.pellucid_patching"
PEERS = {
    "transformer-lens": "benchmarks.peers.transformer_lens_patching",
    "nnsight": "benchmarks.peers.nnsight_patching",
}
LOOP = "loop of full forwards"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep-speed", action="store_true", help="take the speed recorded last")
    parser.add_argument("--pairs", type=int, default=200, help="two-hop pairs")
    given = parser.parse_args()
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "speed": {},
    }
    if given.keep_speed:
        record["speed"] = json.loads(RESULTS.read_text())["speed"]
    with tempfile.TemporaryDirectory() as folder:
        todo = {} if given.keep_speed else tasks(Path(folder), given.repeats)
        for name, task in todo.items():
            record["speed"][name] = race(task, given.peers, Path(folder))
            show_speed(name, record["speed"][name])
    record["two_hop"] = two_hop(given.pairs)
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


def tasks(folder: Path, repeats: int) -> dict[str, PatchingTask]:
    """The specimen on a two-hop pair, and a larger random Llama on random prompts."""
    ids = vocabulary.token_ids()
    words = "the capital of the state containing {} is"

    def prompt(place: str) -> list[int]:
        return [vocabulary.BOS_ID, *(ids[word] for word in words.format(place).split())]

    larger = folder / "larger"
    tokenizer = word_tokenizer(4096)
    tiny_model(
        "llama",
        tokenizer=tokenizer,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=64,
    ).save_pretrained(larger)
    tokenizer.save_pretrained(larger)
    draw = np.random.default_rng(0).integers(4, 4096, size=(2, 19)).tolist()
    return {
        "specimen, 4 layers x 9 tokens": PatchingTask(
            model=str(model_path()),
            clean=prompt("dallas"),
            corrupt=prompt("fresno"),
            answer=ids["austin"],
            other=ids["sacramento"],
            layers=4,
            repeats=repeats,
        ),
        "random Llama of width 256, 8 layers x 20 tokens": PatchingTask(
            model=str(larger),
            clean=[1, *draw[0]],
            corrupt=[1, *draw[1]],
            answer=7,
            other=9,
            layers=8,
            repeats=max(1, repeats // 2),
        ),
    }


def race(task: PatchingTask, peers: Path | None, folder: Path) -> dict[str, Any]:
    """Every side's processor seconds, and how far its values are from the loop's."""
    given = folder / "task.json"
    given.write_text(json.dumps(asdict(task)))
    sides = {sys.executable: OURS}
    if peers is not None:
        sides |= {str(peers / name / "bin" / "python"): module for name, module in PEERS.items()}
    found: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for python, module in sides.items():
        out = folder / "out.json"
        command = [python, "-W", "ignore", "-m", module, f"--task={given}", f"--out={out}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "src:tests:."}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{module} failed ({done.returncode}):\n{done.stderr}")
        answer = json.loads(out.read_text())
        versions |= answer.pop("versions")
        found |= answer
    reference = np.array(found[LOOP]["values"])
    ours = found["pellucid, every patch run"]["cpu_s"]
    return {
        "versions": versions,
        "patches": int(reference.size),
        "sides": {
            name: {
                "cpu_s": side["cpu_s"],
                "times_ours": side["cpu_s"] / ours,
                "largest_difference": float(np.abs(np.array(side["values"]) - reference).max()),
                "repeats": side["repeats"],
            }
            for name, side in found.items()
        },
    }


def show_speed(name: str, speed: dict[str, Any]) -> None:
    """Print one race."""
    print(f"{name}: {speed['patches']} patches")
    for side, figures in speed["sides"].items():
        print(
            f"  {side:45} {figures['cpu_s']:8.4f} CPU s  {figures['times_ours']:6.2f} times ours"
            f"  values within {figures['largest_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
