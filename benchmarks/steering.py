"""Which way of steering brings a concept about, at what strength, and what does it cost?

On the specimen every answer is right or wrong by rule, so the effect is a share of held-out items
whose whole continuation is what the concept asks for. Every method gets the same pairs. Site,
tokens and strength are chosen on development items and reported on others (the protocol of
AxBench). Beside it: no edit, the concept written into the prompt, and random vectors of the same
length at the same place. From the repository's root:

    python -m benchmarks.steering

About six minutes on one core. Fluency is the cross-entropy of the continuation under the unedited
specimen; as the first token is where steering acts, the rest is given apart.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import pellucid
from benchmarks.measure import hardware, versions
from benchmarks.steering_concepts import (
    DEVELOPMENT,
    PAIRS,
    TEST,
    Concept,
    Item,
    benign_requests,
    concepts,
)
from pellucid.core.files import write_text
from pellucid.core.proportions import wilson
from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.harvest.text import SpecimenText
from pellucid.interventions.generate import generate
from pellucid.interventions.run import run
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.ablation import choose_direction
from pellucid.interventions.steering.conditional import ConditionalSteering, fit_condition
from pellucid.interventions.steering.contrast import actadd, caa, mean_difference, repe_pca
from pellucid.interventions.steering.features import (
    contrasting_features,
    feature_vector,
    rank_features,
)
from pellucid.interventions.steering.strength import (
    ce_changes,
    median_norm,
    random_like,
    strength_for,
)
from pellucid.interventions.steering.targeted import EffectMap, measure_effects
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.interventions.where import EVERYWHERE, Where, at, window
from pellucid.models.model import LanguageModel
from pellucid.specimen.corpora.instructions import COMPLY, FORMS, REFUSE

RESULTS = Path(__file__).parent / "results" / "steering.json"
RHOS = (0.3, 0.6, 1.0, 1.5, 2.5)
SITES = ("resid_post@0", "resid_post@1", "resid_post@2")
WHERES: dict[str, Where] = {"last": at(-1), "on": window(-1)}
SEEDS = (0, 1, 2)
NEW_TOKENS, ROWS, NEUTRAL = 12, 192, 24
Record = dict[str, Any]
Edits = Sequence[Intervention]


@dataclass(frozen=True, slots=True)
class Arm:
    """A vector at a strength, and the rows it is to steer."""

    vector: SteeringVector
    strength: float


class Bench:
    """The specimen and everything that is measured on it."""

    def __init__(self) -> None:
        self.model: LanguageModel = pellucid.load_model("specimen")
        self.dictionaries: DictionarySet = pellucid.load_dictionaries("specimen")
        texts = islice(SpecimenText(seed=1, split="heldout").documents(), NEUTRAL)
        self.neutral = list(texts)
        self.r2: dict[str, float] = {}

    def written(self, arms: Sequence[Arm], prompts: Sequence[str], new: int) -> list[list[str]]:
        """What the model writes to every prompt in every arm."""
        at_once = max(1, ROWS // len(prompts))
        texts: list[list[str]] = []
        for start in range(0, len(arms), at_once):
            part = arms[start : start + at_once]
            edits = [
                edit
                for number, arm in enumerate(part)
                for edit in arm.vector.interventions(
                    arm.strength, rows=range(number * len(prompts), (number + 1) * len(prompts))
                )
            ]
            made = generate(self.model, list(prompts) * len(part), edits, max_new_tokens=new).texts
            texts += [made[n * len(prompts) : (n + 1) * len(prompts)] for n in range(len(part))]
        return texts

    def texts(self, prompts: Sequence[str], edits: Edits = ()) -> list[str]:
        """What the model writes to prompts under some edits."""
        return generate(self.model, list(prompts), edits, max_new_tokens=NEW_TOKENS).texts

    def at_rhos(self, vector: SteeringVector, prompts: Sequence[str]) -> list[Arm]:
        """A vector at every relative strength."""
        norm = median_norm(self.model, vector, prompts)
        return [Arm(vector, strength_for(rho, vector, norm)) for rho in RHOS]

    def fluency(self, prompts: Sequence[str], texts: Sequence[str]) -> tuple[float, float]:
        """Cross-entropy of continuations, unedited model: all tokens; all but the first."""
        kept = [(p, t) for p, t in zip(prompts, texts, strict=True) if t]
        if not kept:
            return float("nan"), float("nan")
        result = run(self.model, [f"{p} {t}" for p, t in kept])
        logp = result.logits[:, :-1].float().log_softmax(-1)
        told = -logp.gather(-1, result.batch.ids[:, 1:, None]).squeeze(-1)
        whole, rest = [], []
        for row, (prompt, _) in enumerate(kept):
            first, end = len(self.model.encode(prompt)) - 1, result.batch.lengths[row] - 1
            whole.append(told[row, first:end])
            rest.append(told[row, first + 1 : end])
        return float(torch.cat(whole).mean()), float(torch.cat(rest).mean())

    def effect_map(self, concept: Concept) -> EffectMap:
        """The map of SAE-TS from the middle of the model to the features of the last layer."""
        prompts = [text for pair in concept.pairs[:3] for text in pair]
        found = measure_effects(
            self.model, self.dictionaries, 3, SITES[1], prompts, rho=1.0, where=at(-1)
        )
        self.r2[f"{concept.name} {concept.target}".strip()] = found.r2
        return found


def candidates(bench: Bench, concept: Concept) -> dict[str, list[SteeringVector]]:
    """What each method may choose from on the development items."""
    model, dictionaries = bench.model, bench.dictionaries
    positive, negative = ([pair[side] for pair in concept.pairs] for side in (0, 1))
    found = {
        "caa": [caa(model, positive, negative, site) for site in SITES],
        "mean of all tokens": [
            mean_difference(model, positive, negative, site, position="mean") for site in SITES
        ],
        "repe": [repe_pca(model, positive, negative, site) for site in SITES],
        "actadd": [actadd(model, positive[0], negative[0], site) for site in SITES],
    }
    active = contrasting_features(model, dictionaries, positive, negative, per_layer=16)
    target = [model.tokenize(word)[-1] for word in concept.words]
    ranked = rank_features(model, dictionaries, target, negative[:8], candidates=active)
    ranked += rank_features(model, dictionaries, target, negative[:8])
    ranked.sort(key=lambda each: -(each.target or 0.0))
    best = list(dict.fromkeys((each.layer, each.feature) for each in ranked))[:4]
    most = [(layer, features[0]) for layer, features in active.items() if features]
    for name, chosen in (("feature, output score", best), ("feature, activation", most)):
        vectors = [feature_vector(model, dictionaries, *each) for each in chosen]
        # The same addition, said of the residual stream, so that rho has one meaning throughout.
        found[name] = [
            replace(vector, site=Site("resid_post", layer))
            for vector, (layer, _) in zip(vectors, chosen, strict=True)
        ]
    effects = bench.effect_map(concept)
    movable = [each for each in active[3] if bool(effects.weights[:, each].any())]
    wanted = [movable[:count] for count in (1, 3) if movable]
    found["sae-ts"] = [effects.solve(dict.fromkeys(each, 1.0)) for each in wanted]
    return {
        name: [vector.at(where) for vector in vectors for where in WHERES.values()]
        for name, vectors in found.items()
        if vectors
    }


def share(items: Sequence[Item], texts: Sequence[str]) -> int:
    """How many items have the right continuation."""
    return sum(is_right(item, text) for item, text in zip(items, texts, strict=True))


def is_right(item: Item, text: str) -> bool:
    """Whether the continuation begins with the whole of what is right."""
    right = item.right.split()
    return text.split()[: len(right)] == right


def first_words(items: Sequence[Item], texts: Sequence[str]) -> int:
    """How many continuations begin with the right word."""
    return sum(
        text.split()[:1] == item.right.split()[:1] for item, text in zip(items, texts, strict=True)
    )


def measured(bench: Bench, concept: Concept) -> list[Record]:
    """Every method on one concept: chosen on the development items, reported on the others."""
    development, test = list(concept.development), list(concept.test)
    asked = [item.prompt for item in development]
    longest = max(len(item.right.split()) for item in development)
    cells: list[Record] = []
    controls: dict[tuple[str, str], list[Record]] = {}
    for method, vectors in candidates(bench, concept).items():
        arms = [arm for vector in vectors for arm in bench.at_rhos(vector, asked)]
        found = [share(development, texts) for texts in bench.written(arms, asked, longest)]
        best = max(range(len(arms)), key=lambda n: (found[n], -(n % len(RHOS))))
        vector = vectors[best // len(RHOS)]
        where = next(name for name, clause in WHERES.items() if clause == vector.where)
        key = (str(vector.site), where)
        if key not in controls:
            controls[key] = random_arm(bench, vector, test)
        rows = strengths(bench, vector, test)
        for row, control in zip(rows, controls[key], strict=True):
            row |= control
        cells.append(
            head(concept, method)
            | {
                "site": str(vector.site),
                "where": where,
                "made_of": {
                    k: v
                    for k, v in vector.provenance.items()
                    if k in ("layer", "feature", "target")
                },
                "chosen": best % len(RHOS),
                "development_right": found[best],
                "development_by_where": {
                    name: max(
                        right
                        for right, arm in zip(found, arms, strict=True)
                        if arm.vector.where == clause
                    )
                    for name, clause in WHERES.items()
                },
                "by_rho": rows,
            }
        )
    return [*baselines(bench, concept), *cells]


def head(concept: Concept, method: str) -> Record:
    """What every cell says first."""
    return {"concept": concept.name, "target": concept.target, "method": method}


def strengths(bench: Bench, vector: SteeringVector, test: Sequence[Item]) -> list[Record]:
    """A vector on the test items at every strength."""
    prompts = [item.prompt for item in test]
    arms = bench.at_rhos(vector, prompts)
    costs = ce_changes(
        bench.model, vector.at(EVERYWHERE), [arm.strength for arm in arms], bench.neutral
    )
    return [
        {"rho": rho, "strength": arm.strength, "neutral_ce": cost} | scored(bench, test, prompts, t)
        for rho, arm, cost, t in zip(
            RHOS, arms, costs, bench.written(arms, prompts, NEW_TOKENS), strict=True
        )
    ]


def scored(
    bench: Bench, items: Sequence[Item], prompts: Sequence[str], texts: Sequence[str]
) -> Record:
    """Effect and fluency of continuations."""
    whole, rest = bench.fluency(prompts, texts)
    return {
        "right": share(items, texts),
        "first": first_words(items, texts),
        "n": len(items),
        "ce": whole,
        "ce_rest": rest,
        "sample": texts[0],
    }


def random_arm(bench: Bench, vector: SteeringVector, test: Sequence[Item]) -> list[Record]:
    """Random vectors in the vector's place, on half of the test items."""
    items = list(test)[: len(test) // 2]
    prompts = [item.prompt for item in items]
    rows = [{"random_right": 0, "random_n": 0, "random_ce": 0.0} for _ in RHOS]
    for seed in SEEDS:
        arms = bench.at_rhos(random_like(vector, seed), prompts)
        for row, texts in zip(rows, bench.written(arms, prompts, NEW_TOKENS), strict=True):
            row["random_right"] += share(items, texts)
            row["random_n"] += len(items)
            row["random_ce"] += bench.fluency(prompts, texts)[0] / len(SEEDS)
    return rows


def baselines(bench: Bench, concept: Concept) -> Iterable[Record]:
    """No edit, and the concept in the prompt, in the wording that is best on development items."""
    development, test = list(concept.development), list(concept.test)
    prompts = [item.prompt for item in test]
    plain = bench.texts(prompts)
    yield head(concept, "no edit") | {"by_rho": [scored(bench, test, prompts, plain)], "chosen": 0}

    def said(items: Sequence[Item], wording: int) -> tuple[list[str], list[str]]:
        asked = [item.prompted[wording] for item in items]
        return asked, bench.texts(asked)

    wordings = range(len(test[0].prompted))
    found = [share(development, said(development, wording)[1]) for wording in wordings]
    best = max(wordings, key=lambda wording: found[wording])
    row = scored(bench, test, *said(test, best))
    yield head(concept, "prompting") | {
        "by_rho": [row],
        "chosen": 0,
        "development_right": found[best],
        "example": test[0].prompted[best],
    }


def ablations(bench: Bench, cells: Sequence[Record]) -> list[Record]:
    """Compliance by directional ablation beside CAA, and how many benign answers they change."""
    comply, refuse = (concept for concept in concepts() if concept.name in (COMPLY, REFUSE))
    benign, harmful = ([pair[side] for pair in comply.pairs] for side in (0, 1))
    chosen = next(cell for cell in cells if cell["concept"] == COMPLY and cell["method"] == "caa")
    vector = caa(bench.model, benign, harmful, chosen["site"]).at(WHERES[chosen["where"]])
    strength = chosen["by_rho"][chosen["chosen"]]["strength"]
    arms: dict[str, tuple[Edits, Record]] = {"caa": (vector.interventions(strength), {})}
    starts = sorted({form.refusal.render({})[0].word for form in FORMS})
    tokens = [bench.model.tokenize(word)[-1] for word in starts]
    for name, limit in (("ablation, KL at most .1", 0.1), ("ablation, any KL", 1e9)):
        choice = choose_direction(
            bench.model, harmful, benign, tokens, positions=(-1, -2, -3, -4), kl_limit=limit
        )
        kept = min(
            (c for c in choice.candidates if c.eligible), key=lambda candidate: candidate.behaviour
        )
        arms[name] = (
            choice.ablation.interventions(),
            {
                "site": str(choice.ablation.vector.site),
                "position": kept.position,
                "kl": kept.kl,
                "tried": len(choice.candidates),
                "cosine_with_caa": choice.ablation.vector.cosine(vector),
            },
        )
    asked, others = ([item.prompt for item in group.test] for group in (comply, refuse))
    plain = bench.texts(others)
    return [
        {
            "method": name,
            "complied": share(comply.test, bench.texts(asked, edits)),
            "n": len(asked),
            "kept": same(bench.texts(others, edits), plain),
            "kept_n": len(others),
        }
        | more
        for name, (edits, more) in arms.items()
    ]


def conditional(bench: Bench) -> list[Record]:
    """Refuse benign requests about dangerous objects, and no others: CAA alone and gated (CAST)."""
    (refuse,) = (concept for concept in concepts() if concept.name == REFUSE)
    harmful, benign = ([pair[side] for pair in refuse.pairs] for side in (0, 1))
    dangerous, ordinary = (
        {split: benign_requests(split, is_dangerous) for split in ("train", "heldout")}
        for is_dangerous in (True, False)
    )
    vector = caa(bench.model, harmful, benign, SITES[1]).at(at(-1))
    development = list(refuse.development)
    arms = bench.at_rhos(vector, [item.prompt for item in development])
    written = bench.written(arms, [item.prompt for item in development], NEW_TOKENS)
    found = [share(development, texts) for texts in written]
    arm = arms[max(range(len(arms)), key=lambda n: (found[n], -n))]
    condition = fit_condition(
        bench.model,
        [item.prompt for item in dangerous["train"]],
        [item.prompt for item in ordinary["train"]],
        ["resid_post@0", "resid_mid@1"],
    )
    gated = ConditionalSteering(steering=vector, condition=condition, where=vector.where)
    about = {"gate": str(condition.gate.site), "development_f1": condition.f1}
    to_refuse, to_keep = dangerous["heldout"], ordinary["heldout"]
    asked, others = ([item.prompt for item in group] for group in (to_refuse, to_keep))
    plain = bench.texts(others)
    return [
        {
            "method": name,
            "refused": share(to_refuse, bench.texts(asked, edits)),
            "n": len(asked),
            "kept": same(bench.texts(others, edits), plain),
            "kept_n": len(others),
        }
        | more
        for name, edits, more in (
            ("no edit", (), {}),
            ("caa", vector.interventions(arm.strength), {}),
            ("caa behind a gate (CAST)", gated.interventions(arm.strength), about),
        )
    ]


def overlap(bench: Bench, cells: Sequence[Record]) -> list[Record]:
    """Cosine of other concepts' vectors with the refusal direction, and whether they undo refusal.

    (arXiv 2603.24543: unrelated vectors change jailbreaks through this overlap.)
    """
    every = concepts()
    (comply,) = (concept for concept in every if concept.name == COMPLY)
    benign, harmful = ([pair[side] for pair in comply.pairs] for side in (0, 1))
    asked = [item.prompt for item in comply.test]
    plain = bench.texts(asked)
    rows = []
    for cell in cells:
        if cell["method"] != "caa" or cell["concept"] in (COMPLY, REFUSE):
            continue
        concept = next(c for c in every if (c.name, c.target) == (cell["concept"], cell["target"]))
        sides = ([pair[side] for pair in concept.pairs] for side in (0, 1))
        vector = caa(bench.model, *sides, cell["site"]).at(WHERES[cell["where"]])
        edits = vector.interventions(cell["by_rho"][cell["chosen"]]["strength"])
        texts = bench.texts(asked, edits)
        rows.append(
            {
                "concept": concept.name,
                "target": concept.target,
                "site": cell["site"],
                "cosine": vector.cosine(caa(bench.model, harmful, benign, cell["site"])),
                "complied": share(comply.test, texts),
                "refused_as_before": same(texts, plain),
                "n": len(asked),
            }
        )
    return rows


def same(texts: Sequence[str], others: Sequence[str]) -> int:
    """How many texts are equal."""
    return sum(a == b for a, b in zip(texts, others, strict=True))


def main() -> None:
    torch.set_num_threads(1)
    started = time.process_time()
    bench = Bench()
    cells: list[Record] = []
    for concept in concepts():
        for cell in measured(bench, concept):
            row = cell["by_rho"][cell["chosen"]]
            interval = wilson(row["right"], row["n"])
            low, high = cell["low"], cell["high"] = interval.low, interval.high
            cells.append(cell)
            print(
                f"{cell['concept']:10s} {cell['target']:7s} {cell['method']:22s}"
                f" {cell.get('site', ''):13s} {cell.get('where', ''):5s}"
                f" rho {row.get('rho', 0):.1f}  right {row['right']:2d}/{row['n']}"
                f" [{low:.2f}, {high:.2f}]  ce {row['ce']:.2f} rest {row['ce_rest']:.2f}"
                f"  random {row.get('random_right', 0)}/{row.get('random_n', 0)}"
                f"  by rho {[each['right'] for each in cell['by_rho']]}",
                flush=True,
            )
    tables = {"ablation": ablations(bench, cells), "conditional": conditional(bench)}
    tables["overlap"] = overlap(bench, cells)
    for row in (row for rows in tables.values() for row in rows):
        print(row)
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(("pellucid", "torch", "transformers")),
        "cpu_s": time.process_time() - started,
        "pairs": PAIRS,
        "development": DEVELOPMENT,
        "test": TEST,
        "rhos": RHOS,
        "seeds": SEEDS,
        "effect_map_r2": bench.r2,
        "cells": cells,
    } | tables
    write_text(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
