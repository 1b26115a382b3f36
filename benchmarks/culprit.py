"""Who is accused of a planted error, and does the error go when the accused is taken away?

    python -m benchmarks.culprit STEPS [--rules RULE ...] [--steps-a-copy N]

STEPS is the folder of collections that `pellucid verify experiment` keeps. Usual figures come from
right steps of the plain specimen alone, so nothing here has seen a copy. Every edit stands beside a
matched random one (same places, same lengths, directions of other features), on wrong steps (share
mended) and on right steps of the same kinds (share harmed, the edit made unasked).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.resampling import interval
from pellucid.models.model import LanguageModel
from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.corpora.chains import redex_range
from pellucid.verification.chains.errors import judge
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.collecting.collect import load_kept, load_steps
from pellucid.verification.planted.packaged import packaged_rules, planted_path
from pellucid.verification.planted.rules import RULES, Rule
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.repair.kinds import kind_of
from pellucid.verification.repair.replay import Edit, Replay
from pellucid.verification.repair.suspects import Accusation, accuse
from pellucid.verification.repair.usual import Usual
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.steps.table import labelled_places

RANDOM = "random "
DOCUMENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What is known of the plain specimen's right steps."""

    usual: Usual
    norms: np.ndarray
    norm_spreads: np.ndarray


def plain(steps: StepSet, n_layers: int) -> Plain:
    """Usual figures, and those of the relative error norm where the answer is predicted."""
    right = steps.select(~steps.wrong)
    norms = right.matrix([f"error_norm.{layer}.answer" for layer in range(n_layers)])
    return Plain(usual=Usual.of(steps), norms=norms.mean(0), norm_spreads=norms.std(0))


def edits(replay: Replay, made: Accusation, generator: torch.Generator) -> dict[str, Edit]:
    """The edits that are compared, by name, each with its random match."""

    def off(found: Accusation, count: int) -> Edit:
        parts = [replay.edit(each, 0.0).changes for each in found.suspects[:count]]
        return Edit(tuple(change for part in parts for change in part))

    errors, layers, features = (made.of_kind(k) for k in ("error", "layer", "feature"))  # type: ignore[arg-type]
    found: dict[str, Edit] = {}
    if made.suspects:
        found["first suspect"] = off(made, 1)
    for name, each, count in (
        ("layer's errors", layers, 1),
        ("1 error", errors, 1),
        ("3 errors", errors, 3),
        ("1 feature", features, 1),
        ("4 features", features, 4),
        ("16 features", features, 16),
    ):
        if each.suspects:
            found[name] = off(each, count)
    if features.suspects:
        for factor in (0.5, 2.0):
            found[f"1 feature x{factor:g}"] = replay.edit(features.suspects[0], factor)
    return found | {RANDOM + n: replay.random(e, generator) for n, e in found.items()}


def one_step(
    model: LanguageModel,
    reader: Reader,
    kept: KeptChain,
    labels: dict[str, Any],
    place: Any,
    known: Plain,
    rule: Rule,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The accusation of one step and whether the step is right under each edit."""
    ids = kept.chain.ids[: place.stop]  # type: ignore[union-attr]
    chain, at = reader.chain(ids), place.answer[0]
    before, after = labels["before"].split(), labels["text"].split()
    kind = kind_of(before, after)
    made = accuse(chain.graph(place, "answer"), place, known.usual, kind=kind, count=1000)
    replay = Replay(model, chain.local, at)
    tried = edits(replay, made, generator)
    tokens = replay.outcomes(list(tried.values())).argmax(-1).tolist()
    words = [word.strip() for word in model.token_texts(tokens)]
    right = {}
    for name, word in zip(tried, words, strict=True):
        changed = [*after]
        changed[at - place.start] = word
        right[name] = judge(LANGUAGES[kept.language], before, changed) is None
    start, stop = redex_range(before)
    applies = rule.applies(before, start, stop)
    said = [*before[:start], rule.wrong(before, start, stop), *before[stop:]] if applies else None
    norms = (chain.left_out[:, at - 1].numpy() - known.norms) / known.norm_spreads
    return {
        "group": kept.group,
        "wrong": bool(labels["wrong"]),
        "by_rule": after == said,
        "kind": kind,
        "layer": made.layer,
        "norm_layer": int(norms.argmax()),
        "first": made.suspects[0].kind if made.suspects else None,
        "right": right,
    }


def chosen_steps(
    model: LanguageModel, chains: Sequence[KeptChain], count: int, rng: np.random.Generator
) -> list[tuple[KeptChain, dict[str, Any], Any]]:
    """First wrong steps, and as many right ones with the same kinds in the same numbers."""
    wrong, right = [], []
    for number, kept in enumerate(chains):
        if kept.unread is None:
            for labels, place in labelled_places(model, kept.until_error(), number):
                (wrong if labels["wrong"] else right).append((kept, labels, place))
    rng.shuffle(wrong)
    rng.shuffle(right)
    wrong, pool, matched = wrong[:count], list(right), []
    for _, labels, _ in wrong:
        kind = _kind(labels)
        same = next((n for n, each in enumerate(pool) if _kind(each[1]) == kind), None)
        if same is None and pool:
            same = 0
        if same is not None:
            matched.append(pool.pop(same))
    return wrong + matched


def _kind(labels: dict[str, Any]) -> str:
    return kind_of(labels["before"].split(), labels["text"].split())


@torch.no_grad()
def divergences(
    model: LanguageModel, specimen: LanguageModel, dictionaries: DictionarySet, layer: int
) -> dict[str, float]:
    """On held-out documents, mean KL a token: from the copy to the copy without that layer's
    errors (always off), and from the plain specimen to the copy and to the edited copy."""
    sums, tokens = np.zeros(3), 0
    for number in range(DOCUMENTS):
        document = mixture.document(91, number, split="heldout")
        ids = torch.tensor([vocabulary.encode(document)])
        with model.tapped(_without_errors(dictionaries, layer)):
            edited = model.logits(ids)[0].log_softmax(-1)
        copy, base = (m.logits(ids)[0].log_softmax(-1) for m in (model, specimen))
        for n, (a, b) in enumerate(((copy, edited), (base, copy), (base, edited))):
            sums[n] += float((a.exp() * (a - b)).sum())
        tokens += ids.shape[1]
    names = ("copy_to_edited", "plain_to_copy", "plain_to_edited")
    return dict(zip(names, (sums / tokens).tolist(), strict=True))


def _without_errors(dictionaries: DictionarySet, layer: int) -> list[Any]:
    dictionary, kept = dictionaries.dictionaries[layer], {}

    def read(value: torch.Tensor, _: Any) -> None:
        kept["in"] = value

    def write(value: torch.Tensor, _: Any) -> torch.Tensor:
        said = dictionary(kept["in"].flatten(0, 1)).view_as(value)
        return torch.cat([value[:, :1], said[:, 1:]], dim=1)

    return [(Site("mlp_in", layer), read), (Site("mlp_out", layer), write)]


def share(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A share of rows with an interval from questions drawn with replacement."""
    flags = np.array([value(row) for row in rows], dtype=float)
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1].reshape(-1)
    part, whole = (np.bincount(groups, w) for w in (flags, np.ones(len(rows))))
    low, high = interval(
        lambda draws: float(draws @ part) / max(float(draws @ whole), 1e-9),
        len(whole),
        bootstraps=1000,
        rng=np.random.default_rng(0),
    )
    return {"value": float(flags.mean()), "low": low, "high": high, "n": len(rows)}


KINDS = ("layer", "error", "feature")


def summarise(rows: list[dict[str, Any]], layer: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
    """Accused layers, and by edit what it mends and harms."""
    wrong, right = [r for r in rows if r["wrong"]], [r for r in rows if not r["wrong"]]
    ruled = [r for r in wrong if r["by_rule"]]
    names = list(dict.fromkeys(name for row in rows for name in row["right"]))
    found: dict[str, Any] = {
        "layer": share(wrong, lambda r: r["layer"] == layer(r)),
        "layer_by_rule": share(ruled, lambda r: r["layer"] == layer(r)),
        "layer_by_norm": share(wrong, lambda r: r["norm_layer"] == layer(r)),
        "first": {kind: sum(r["first"] == kind for r in wrong) for kind in KINDS},
        "edits": {},
    }
    for name in names:
        found["edits"][name] = {
            "mended": share(wrong, lambda r, name=name: r["right"].get(name, False)),
            "mended_by_rule": share(ruled, lambda r, name=name: r["right"].get(name, False)),
            "harmed": share(right, lambda r, name=name: not r["right"].get(name, True)),
        }
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=Path)
    parser.add_argument("--rules", nargs="*", default=None)
    parser.add_argument("--steps-a-copy", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/culprit.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    dictionaries = api.load_dictionaries("specimen")
    specimen = api.load_model("specimen")
    known = {
        task: plain(load_steps(given.steps / f"{task}-in"), specimen.n_layers)
        for task in ("arithmetic", "boolean")
    }
    copies, rows = {}, []
    for rule in given.rules or (*packaged_rules("arithmetic"), *packaged_rules("boolean")):
        task = RULES[rule].language
        model = api.load_model(f"specimen:planted-{rule}")
        tampered = json.loads((planted_path(rule) / "manifest.json").read_text())["config"]["layer"]
        reader = Reader(model, dictionaries, ReaderSettings(targets=("answer",)))
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        chains = load_kept(given.steps / f"{task}-planted-{rule}")
        mine = [
            one_step(model, reader, kept, labels, place, known[task], RULES[rule], generator)
            | {"rule": rule, "tampered": tampered}
            for kept, labels, place in chosen_steps(model, chains, given.steps_a_copy, rng)
        ]
        rows += mine
        copies[rule] = {"tampered": tampered} | summarise(mine, lambda r: r["tampered"])
        copies[rule]["kl"] = divergences(model, specimen, dictionaries, tampered)
        record = {
            "copies": copies,
            "all": summarise(rows, lambda r: r["tampered"]),
            "hardware": hardware(),
            "versions": versions(["pellucid", "torch", "transformers"]),
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n")
        show(rule, copies[rule])
    show("all", record["all"])


def show(name: str, found: dict[str, Any]) -> None:
    """One block of lines."""
    layer, norm = found["layer"], found["layer_by_norm"]
    print(
        f"{name}: tampered {found.get('tampered', '')} accused {layer['value']:.2f} "
        f"[{layer['low']:.2f} {layer['high']:.2f}] of rule's {found['layer_by_rule']['value']:.2f} "
        f"({found['layer_by_rule']['n']}) by norm {norm['value']:.2f} n {layer['n']} "
        f"{found.get('kl', '')} first {found['first']}",
        flush=True,
    )
    for edit, each in found["edits"].items():
        m, h = each["mended"], each["harmed"]
        print(
            f"   {edit:26s} mended {m['value']:.3f} [{m['low']:.3f} {m['high']:.3f}] (rule's "
            f"{each['mended_by_rule']['value']:.3f}) harmed {h['value']:.3f} "
            f"[{h['low']:.3f} {h['high']:.3f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
