"""The suite: four experiments with every control, on one model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from pellucid.core.errors import ConfigError
from pellucid.core.manifest import config_hash, software_versions
from pellucid.introspection.arms import ABOUT_ARMS, FACTUAL_ARMS, OPEN_ARMS, ArmResult, Arms, Cell
from pellucid.introspection.choices import Choice, choose
from pellucid.introspection.concepts import concept_vectors
from pellucid.introspection.criteria import (
    Contrasts,
    contrast,
    findings_of,
    judge_criteria,
    verdict_of,
)
from pellucid.introspection.dialogue import Dialogue
from pellucid.introspection.judges import Judge
from pellucid.introspection.report import Report
from pellucid.introspection.spoken import (
    Experiment,
    intentional_control,
    prefill_detection,
    thought_against_text,
)
from pellucid.introspection.statistics import rate_of, trials_needed
from pellucid.introspection.wording import Wording
from pellucid.models.model import LanguageModel

Progress = Callable[[str, float], None]
LEAST_TRIALS, QUICK_TRIALS = 200, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is run.

    Attributes:
        layers: after which vectors are tried; None for up to five around two thirds of the depth.
        strengths: factors of the concepts' vectors.
        trials: in every cell, at least; None for what the power calculation asks (10% found
            against 2% with power .8), and no fewer than 200.
        quick: 60 trials a cell, two strengths: to see that everything works, not to report.
        temperature: of answers; 0 takes the likeliest token.
        selection_share: of the concepts, used only to choose layer and strength.
        bootstraps: draws for intervals.
        seed: of everything drawn.

    Raises:
        ConfigError: a setting is out of range.
    """

    layers: tuple[int, ...] | None = None
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    trials: int | None = None
    quick: bool = False
    temperature: float = 1.0
    selection_share: float = 0.25
    bootstraps: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or not all(0 < each < float("inf") for each in self.strengths):
            raise ConfigError(
                f"strengths are {self.strengths}; give positive numbers such as 1, 2, 4, 8"
            )
        if not 0 < self.selection_share < 1:
            raise ConfigError(
                f"selection_share is {self.selection_share}; give a share between 0 and 1"
            )
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; give 0 or more")
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"trials is {self.trials}; give at least 1")

    @property
    def cell_trials(self) -> int:
        """Trials a cell, at least."""
        if self.trials is not None:
            return self.trials
        return QUICK_TRIALS if self.quick else max(LEAST_TRIALS, trials_needed())

    @property
    def tried(self) -> tuple[float, ...]:
        """The strengths that are run."""
        middle = sorted(self.strengths)[1:3] if len(self.strengths) > 2 else self.strengths
        return tuple(middle if self.quick else sorted(self.strengths))


def introspect(
    model: LanguageModel,
    wording: Wording,
    judge: Judge | None,
    *,
    settings: Settings | None = None,
    concepts: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Run the whole suite.

    A quarter of the concepts choose the layer and the strength; the rest are reported on, so that
    no figure is of the trials that it was chosen by.

    Args:
        model: with a tokenizer.
        wording: what is said to it.
        judge: reads answers; None for logits alone: yes or no by the larger logit, the name by
            the largest of the concepts' logits after a forced yes.
        settings: how much is run.
        concepts: of the wording's concepts, those to run on; None for all.
        on_progress: told the stage's name and the share that is done.

    Raises:
        ConfigError: a layer is out of range, or too few concepts.
        PromptError: a word that the model does not know, or a prompt that is too long.
        InterventionError: an injection did not happen.
    """
    settings = settings or Settings()
    layers = _layers(model, settings)
    tell = on_progress or (lambda stage, share: None)
    dialogue = Dialogue(model, wording)
    tell("concept vectors", 0.0)
    arms = Arms(
        dialogue,
        concept_vectors(dialogue, layers),
        judge,
        seed=settings.seed,
        temperature=settings.temperature,
    )
    choosing, reported = _split(wording, concepts, settings)
    sweep, best = _sweep(arms, layers, choosing, settings, tell)
    repeats = -(-settings.cell_trials // len(reported))
    cell = replace(best, words=reported, repeats=repeats)
    results = {}
    names = (*OPEN_ARMS, *ABOUT_ARMS, *FACTUAL_ARMS)
    for number, name in enumerate(names):
        tell(f"arm {name}", 0.3 + 0.3 * number / len(names))
        results[name] = arms.run(name, cell)
    strengths = _by_strength(arms, cell, results, settings, tell)
    choices = {task: choose(arms, cell, task) for task in ("localisation", "comparison")}
    spoken = _spoken(arms, cell, settings, tell)
    contrasts = contrast(results, bootstraps=settings.bootstraps, seed=settings.seed)
    tell("done", 1.0)
    provenance = _provenance(model, wording, judge, settings)
    return _report(arms, cell, results, contrasts, choices, spoken, (sweep, strengths), provenance)


def _layers(model: LanguageModel, settings: Settings) -> list[int]:
    count = model.n_layers
    if settings.layers is not None:
        wrong = [layer for layer in settings.layers if not 0 <= layer < count]
        if wrong or not settings.layers:
            raise ConfigError(
                f"layers {settings.layers} are not all in {model.name}; use 0 to {count - 1}"
            )
        return sorted(set(settings.layers))
    if count <= 5:
        return list(range(max(1, count - 1)))
    shares = (0.4, 0.53, 0.67, 0.75, 0.85)
    return sorted({min(count - 2, round(share * count)) for share in shares})


def _split(
    wording: Wording, concepts: Sequence[str] | None, settings: Settings
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Concepts that choose, and concepts that are reported on."""
    known = {word: number for number, word in enumerate(wording.concepts)}
    strange = sorted(set(concepts or ()) - set(known))
    if strange:
        raise ConfigError(
            f"{strange[0]!r} is no concept of the wording {wording.name!r}; use some of its own"
        )
    numbers = list(known.values()) if concepts is None else [known[word] for word in concepts]
    if len(numbers) < 4:
        raise ConfigError(f"there are {len(numbers)} concepts; give at least 4")
    Random(f"concepts {settings.seed}").shuffle(numbers)
    count = max(1, round(settings.selection_share * len(numbers)))
    return tuple(sorted(numbers[:count])), tuple(sorted(numbers[count:]))


def _sweep(
    arms: Arms,
    layers: Sequence[int],
    choosing: tuple[int, ...],
    settings: Settings,
    tell: Progress,
) -> tuple[list[dict[str, Any]], Cell]:
    """Every layer and strength on the choosing concepts, and the cell to report on.

    That is where the model looks best: most right names beyond those under random vectors, then
    most affirmations of any kind, then two thirds of the depth, then the weakest injection.
    """
    found: list[tuple[tuple[float, ...], dict[str, Any], Cell]] = []
    pairs = [(layer, strength) for layer in layers for strength in settings.tried]
    depth = 2 / 3 * (arms.dialogue.model.n_layers - 1)
    for number, (layer, strength) in enumerate(pairs):
        tell(f"layer {layer}, strength {strength:g}", 0.3 * number / len(pairs))
        cell = Cell(layer=layer, strength=strength, words=choosing, repeats=1)
        concept, random = (arms.run(name, cell) for name in ("concept", "random"))
        identified = float(concept.identified.mean())
        affirmed = float(concept.affirmed.mean())
        record = {
            "layer": layer,
            "strength": strength,
            "rho": arms.concepts.rho(layer, strength),
            "identified": identified,
            "affirmed": affirmed,
            "affirmed_random": float(random.affirmed.mean()),
            "n": concept.gaps.size,
        }
        gained = identified - float(random.identified.mean())
        order = (gained, affirmed, -abs(layer - depth), -strength)
        found.append((order, record, cell))
    best = max(found, key=lambda each: each[0])[2]
    return [record for _, record, _ in found], best


def _by_strength(
    arms: Arms,
    cell: Cell,
    results: Mapping[str, ArmResult],
    settings: Settings,
    tell: Progress,
) -> list[dict[str, Any]]:
    """Concept and random arm at every strength, at the chosen layer, on the reported concepts."""
    rows = []
    for number, strength in enumerate(settings.tried):
        tell(f"strength {strength:g}", 0.6 + 0.2 * number / len(settings.tried))
        here = replace(cell, strength=strength)
        done = {
            name: results[name] if strength == cell.strength else arms.run(name, here)
            for name in ("concept", "random")
        }
        rows.append(
            {
                "strength": strength,
                "rho": arms.concepts.rho(cell.layer, strength),
                "identified": rate_of(done["concept"].identified).to_json(),
                "affirmed": done["concept"].rate().to_json(),
                "affirmed_random": done["random"].rate().to_json(),
            }
        )
    return rows


def _spoken(arms: Arms, cell: Cell, settings: Settings, tell: Progress) -> list[Experiment]:
    done = []
    for number, run in enumerate((thought_against_text, prefill_detection, intentional_control)):
        tell(run.__name__.replace("_", " "), 0.82 + 0.05 * number)
        done.append(run(arms, cell, bootstraps=settings.bootstraps))
    return done


def _provenance(
    model: LanguageModel, wording: Wording, judge: Judge | None, settings: Settings
) -> dict[str, Any]:
    return {
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "wording": wording.name,
        "wording_hash": config_hash(asdict(wording)),
        "judge": {"name": "logits"} if judge is None else judge.to_json(),
        "settings": asdict(settings) | {"cell_trials": settings.cell_trials},
        "versions": software_versions(),
    }


def _report(
    arms: Arms,
    cell: Cell,
    results: Mapping[str, ArmResult],
    contrasts: Contrasts,
    choices: Mapping[str, Choice],
    spoken: Sequence[Experiment],
    tables: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    provenance: Mapping[str, Any],
) -> Report:
    criteria = judge_criteria(results, contrasts, choices)
    sweep, strengths = tables
    return Report(
        verdict=verdict_of(criteria),
        criteria=criteria,
        findings=findings_of(contrasts),
        cell={
            "layer": cell.layer,
            "strength": cell.strength,
            "rho": arms.concepts.rho(cell.layer, cell.strength),
            "concepts": len(cell.words),
            "repeats": cell.repeats,
        },
        arms={name: each.to_json() for name, each in results.items()}
        | {task: choice.to_json() for task, choice in choices.items()},
        contrasts=contrasts.to_json(),
        strengths=strengths,
        sweep=sweep,
        experiments={each.name: each.to_json() for each in spoken},
        receipt=arms.receipts(),
        provenance=provenance,
    )
