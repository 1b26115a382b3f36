"""Repair of natural and planted errors, every arm with the same tries and the same judge.

    python -m benchmarks.repair natural STEPS --work DIR    chains of the plain specimen
    python -m benchmarks.repair planted STEPS --work DIR    copies with a rule never seen

STEPS is the folder of collections that `pellucid verify experiment` keeps. Writes
`benchmarks/results/repair.json`, one entry a setting; a run that was killed goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import KeptChain, keep_written
from pellucid.verification.chains.questions import draw_questions
from pellucid.verification.chains.store import load_chains, save_chains
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.collecting.collect import load_kept, load_steps
from pellucid.verification.repair.judges import VerifierJudge
from pellucid.verification.repair.mend import Mender
from pellucid.verification.repair.proposals import Tries
from pellucid.verification.repair.trial import TrialSettings, run_trial, summarise
from pellucid.verification.repair.usual import Usual
from pellucid.verification.steps.step_set import concatenate
from pellucid.verification.verifier import Settings, Verifier

RESULTS = Path("benchmarks/results/repair.json")
ARMS = ("suspects", "features", "random", "resample", "likeliest")
RULES = ("dropped-carry", "dropped-minus", "product-sign", "swapped-minus")
NATURAL = ("free.", "graph.answer.")
PLANTED = (
    "graph.answer.error.layer_max",
    "graph.answer.error.total",
    "graph.answer.error.largest",
    "free.answer.",
)
"""No layer is named among them: the layer that is tampered with differs between copies."""
RECALL, SEED = 0.9, 5


def natural_chains(folder: Path, count: int, temperature: float) -> list[KeptChain]:
    """Chains of the plain specimen on questions of 3 to 5 operators, kept for the next run."""
    if folder.exists():
        return load_chains(folder)
    questions = draw_questions("arithmetic", (3, 5), count, 1000 + SEED)
    model = api.load_model("specimen")
    written = write_chains(
        model, LANGUAGES["arithmetic"], questions, temperature=temperature, seed=SEED, rows=128
    )
    kept = keep_written(written, questions, source="plain", language="arithmetic")
    save_chains(folder, kept, seed=SEED)
    return load_chains(folder)


def verifier_of(folders: list[Path], columns: tuple[str, ...]) -> Verifier:
    """A verifier relative to right steps, on other questions than those that are repaired."""
    steps = concatenate([load_steps(folder) for folder in folders])
    settings = Settings(
        columns=columns, estimator="histogram", normalise="right", recall=RECALL, refits=0
    )
    return Verifier.fit(steps, settings, seed=SEED)


def trial(
    name: str,
    source: str,
    verifier: Verifier,
    usual: Usual,
    chains: list[KeptChain],
    given: argparse.Namespace,
) -> None:
    """Run one setting and add it to the results."""
    model, dictionaries = api.load_model(source), api.load_dictionaries("specimen")
    judge = VerifierJudge(model, dictionaries, verifier)
    mender = Mender(model, dictionaries, judge, usual, tries=Tries(count=given.tries))
    settings = TrialSettings(arms=ARMS, right_share=given.right_share, seed=SEED)
    rows = run_trial(mender, chains, given.work / name, settings)
    found = summarise(rows, ARMS)
    add(name, found | {"verifier": verifier.record["out_of_fold"], "tries": given.tries})
    show(name, found)


def add(name: str, found: dict[str, Any]) -> None:
    """Write one setting beside those that are there."""
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"settings": {}}
    record["settings"][name] = found
    record |= {"hardware": hardware(), "versions": versions(["pellucid", "torch", "transformers"])}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def show(name: str, found: dict[str, Any]) -> None:
    """One line an arm."""
    print(
        f"{name}: {found['wrong']} wrong, {found['right_judged']} right judged, recall "
        f"{found['recall']:.2f}, false alarms {found['false_alarms']:.3f}",
        flush=True,
    )
    for arm, each in found["repair"].items():
        gain = each.get("gain")
        more = (
            ""
            if gain is None
            else f" gain {gain['value']:.3f} [{gain['low']:.3f} {gain['high']:.3f}]"
        )
        print(
            f"   {arm:10s} fixed {each['fix_rate']:.3f} [{each['low']:.3f} {each['high']:.3f}] "
            f"harm {each['harm']:.4f} (to {each['harm_high']:.4f}) verified right "
            f"{each.get('proposed', 0):.2f} {each.get('seconds', 0):.2f} s{more}",
            flush=True,
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("natural", "planted"))
    parser.add_argument("steps", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--temperature", type=float, default=0.3)
    parser.add_argument("--tries", type=int, default=64)
    parser.add_argument("--right-share", type=float, default=0.1)
    parser.add_argument("--rules", nargs="*", default=RULES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain = given.steps / "arithmetic-in"
    usual = Usual.of(load_steps(plain))
    if given.what == "natural":
        name = f"natural-{given.temperature:g}"
        folder = given.work / f"chains-{given.temperature:g}-{given.questions}"
        chains = natural_chains(folder, given.questions, given.temperature)
        trial(name, "specimen", verifier_of([plain], NATURAL), usual, chains, given)
        return
    for rule in given.rules:
        others = [given.steps / f"arithmetic-planted-{each}" for each in RULES if each != rule]
        verifier = verifier_of([plain, *others], PLANTED)
        chains = load_kept(given.steps / f"arithmetic-planted-{rule}")[: given.questions]
        trial(f"planted-{rule}", f"specimen:planted-{rule}", verifier, usual, chains, given)


if __name__ == "__main__":
    main()
