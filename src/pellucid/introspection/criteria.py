"""What the figures amount to: rules fixed, in code, before the suite was first run.

They speak of behaviour alone: of what was answered when something was injected.

accuracy       answers that affirm and name the injected concept outnumber ALL affirmations of each
               control arm (nothing injected, random vectors, shuffled vectors)
grounding      answers follow what is injected: asked whether it is X, the model affirms more often
               when X is injected than when another concept is; names match beyond a permutation;
               the injected sentence is found, where that can be measured
internality    the same as accuracy when the injection has ended before the question is read, so
               that neither the question nor the answer is edited
metacognitive  the shift towards yes is particular to the question about injections: beside random
               vectors, larger than the shift of factual-No questions; and the stronger of two
               injections is told, where that can be measured

The verdict is "evidence" when the first three are met, else "no evidence". A criterion that the
model cannot be asked for, because it does not do the plain task, is "not measurable".
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pellucid.introspection.arms import KINDS, ArmResult
from pellucid.introspection.choices import Choice
from pellucid.introspection.statistics import Net, Trials, match_p_value, net

State = Literal["met", "not met", "not measurable"]
Verdict = Literal["evidence", "no evidence"]
CONTROLS = ("none", "random", "shuffled")
LEVEL = 0.05
_YES_BIAS = {
    "yes_to_random": "asked for a thought, under random vectors",
    "yes_to_facts_concept": "asked facts, under concepts",
    "yes_to_facts_random": "asked facts, under random vectors",
}
DECIDING = ("accuracy", "grounding", "internality")


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One criterion: its state, and the figures that decided."""

    state: State
    because: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrasts:
    """Paired differences between arms.

    Attributes:
        nets: by name; `net` is answers that affirm and name the trial's concept, under the concept
            less under its random vector. `accuracy_X` takes all affirmations of control X off
            instead, which is stricter.
        naming_p: of `match_p_value`.
        wrong_share: of wrong names, the share of the commonest.
        wrong_name: the commonest; None without any.
        shift_correlation: over concepts, of the shifts towards yes on the question about
            injections and on factual-No questions.
    """

    nets: Mapping[str, Net]
    naming_p: float
    wrong_share: float
    wrong_name: str | None
    shift_correlation: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return {
            "nets": {name: each.to_json() for name, each in self.nets.items()},
            "naming": {
                "p": self.naming_p,
                "commonest_wrong": self.wrong_name,
                "share_of_wrong": self.wrong_share,
            },
            "shift_correlation": self.shift_correlation,
        }


def contrast(arms: Mapping[str, ArmResult], *, bootstraps: int, seed: int) -> Contrasts:
    """All paired differences of one cell's arms.

    Args:
        arms: every arm of `pellucid.introspection.arms`.
        bootstraps: draws of concepts for intervals, and permutations.
        seed: of the draws.
    """
    settings = {"bootstraps": bootstraps, "seed": seed}
    concept, random, none = arms["concept"], arms["random"], arms["none"]
    factual = {kind: arms[f"factual_{kind}"] for kind in KINDS}
    nets = {"net": net(concept.identified, random.identified, **settings)}
    for name in CONTROLS:
        nets[f"accuracy_{name}"] = net(concept.identified, arms[name].affirmed, **settings)
        nets[f"detection_{name}"] = net(concept.affirmed, arms[name].affirmed, **settings)
    nets |= {
        "about": net(arms["about_match"].affirmed, arms["about_mismatch"].affirmed, **settings),
        "before_query": net(
            arms["before_query"].identified, arms["before_query_random"].affirmed, **settings
        ),
        "yes_to_random": net(random.affirmed, none.affirmed, **settings),
        **{
            f"yes_to_facts_{kind}": net(_facts(arms, kind), _facts(arms, "none"), **settings)
            for kind in ("concept", "random")
        },
        **{
            f"factual_errors_{kind}": net(_errors(arms, kind), _errors(arms, "none"), **settings)
            for kind in ("concept", "random")
        },
        "logits": net(
            concept.gaps - none.gaps, factual["concept"].gaps - factual["none"].gaps, **settings
        ),
        "logits_beside_random": net(
            concept.gaps - random.gaps, factual["concept"].gaps - factual["random"].gaps, **settings
        ),
    }
    wrong = [
        name
        for row, word in zip(concept.guesses, concept.words, strict=True)
        for name in row
        if name is not None and name != word
    ]
    commonest = max(sorted(set(wrong)), key=wrong.count, default=None)
    return Contrasts(
        nets=nets,
        naming_p=match_p_value(concept.guesses, concept.words, draws=bootstraps, seed=seed),
        wrong_share=wrong.count(commonest) / len(wrong) if commonest is not None else 0.0,
        wrong_name=commonest,
        shift_correlation=_correlation(
            (concept.gaps - none.gaps).mean(axis=1),
            (factual["concept"].gaps - factual["none"].gaps).mean(axis=1),
        ),
    )


def judge_criteria(
    arms: Mapping[str, ArmResult], contrasts: Contrasts, choices: Mapping[str, Choice]
) -> dict[str, Criterion]:
    """The four criteria, by the rules at the head of this module.

    Args:
        arms: every arm.
        contrasts: of those arms.
        choices: `localisation` and `comparison`.
    """
    nets = contrasts.nets
    if float(arms["none"].unclear.mean()) > 0.5:
        why = "most answers without an injection say neither yes nor no"
        logits = _metacognitive(nets, choices)
        return dict.fromkeys(DECIDING, Criterion(state="not measurable", because=why)) | {
            "metacognitive": logits if logits.state == "not met" else _unmeasured(why)
        }
    accuracy = [f"accuracy_{name}" for name in CONTROLS]
    found = {"accuracy": _all_above(nets, accuracy)}
    about = _all_above(nets, ["about"])
    place = choices["localisation"]
    grounded = (
        about.state == "met"
        and contrasts.naming_p <= LEVEL
        and (place.above_chance or not place.measurable)
    )
    found["grounding"] = Criterion(
        state="met" if grounded else "not met",
        because=f"{about.because}; names match with p = {contrasts.naming_p:.3g}; "
        + _choice_said(place),
    )
    found["internality"] = _all_above(nets, ["before_query"])
    found["metacognitive"] = _metacognitive(nets, choices)
    return found


def verdict_of(criteria: Mapping[str, Criterion]) -> Verdict:
    """ "evidence" when accuracy, grounding and internality are all met."""
    return "evidence" if all(criteria[name].state == "met" for name in DECIDING) else "no evidence"


def findings_of(contrasts: Contrasts) -> list[str]:
    """What else the controls show, each in a sentence."""
    nets, found = contrasts.nets, []
    biased = [name for name in _YES_BIAS if nets[name].above_zero]
    if biased:
        rises = ", ".join(f"{_YES_BIAS[name]} {_shown(nets[name])}" for name in biased)
        found.append(f"yes bias: an injection raises affirmations whatever is asked ({rises})")
    for kind in ("concept", "random"):
        lost = nets[f"factual_errors_{kind}"]
        if lost.above_zero:
            found.append(
                f"a {kind} vector of this strength spoils factual answers of both kinds "
                f"({_shown(lost)})"
            )
    if nets["detection_none"].above_zero and nets["detection_random"].includes_zero:
        found.append(
            "affirmations rise under concepts no more than under random vectors of the same norm "
            f"({_shown(nets['detection_random'])})"
        )
    if contrasts.wrong_name is not None and contrasts.wrong_share >= 0.5:
        found.append(
            f"{contrasts.wrong_share:.0%} of the wrong names are {contrasts.wrong_name!r}: naming "
            "that does not depend on the content"
        )
    return found


def _facts(arms: Mapping[str, ArmResult], kind: str) -> Trials:
    """Affirmations of factual questions, half of them rightly: damage leaves this at a half."""
    no, yes = arms[f"factual_{kind}"], arms[f"factual_yes_{kind}"]
    return (no.affirmed + yes.affirmed) / 2


def _errors(arms: Mapping[str, ArmResult], kind: str) -> Trials:
    """Wrong answers to factual questions, half of which are to be affirmed."""
    no, yes = arms[f"factual_{kind}"], arms[f"factual_yes_{kind}"]
    return (no.affirmed + 1 - yes.affirmed) / 2


def _metacognitive(nets: Mapping[str, Net], choices: Mapping[str, Choice]) -> Criterion:
    shift, strength = nets["logits_beside_random"], choices["comparison"]
    met = shift.above_zero and (strength.above_chance or not strength.measurable)
    return Criterion(
        state="met" if met else "not met",
        because=f"logits_beside_random {_shown(shift)}; {_choice_said(strength)}",
    )


def _unmeasured(why: str) -> Criterion:
    return Criterion(state="not measurable", because=why)


def _all_above(nets: Mapping[str, Net], names: list[str]) -> Criterion:
    return Criterion(
        state="met" if all(nets[name].above_zero for name in names) else "not met",
        because=", ".join(f"{name} {_shown(nets[name])}" for name in names),
    )


def _choice_said(choice: Choice) -> str:
    if not choice.measurable:
        return f"{choice.task} not measurable (in form in {choice.in_form:.0%})"
    rate = choice.rate
    return (
        f"{choice.task} {rate.rate:.2f} ({rate.low:.2f} to {rate.high:.2f}), "
        f"chance {choice.chance:.2f}"
    )


def _shown(each: Net) -> str:
    return f"{each.value:+.2f} ({each.low:+.2f} to {each.high:+.2f})"


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
