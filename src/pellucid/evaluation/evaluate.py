"""`evaluate`: dictionaries measured on held-out text, beside the baselines they must beat."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.baselines import BASELINES, fit_baselines
from pellucid.evaluation.concepts import ConceptReport, measure_concepts
from pellucid.evaluation.duplicates import near_duplicates
from pellucid.evaluation.replaced import (
    ORIGINAL,
    predict,
    replacement_report,
    score_variants,
    stand_alone,
    stand_in_for_mlps,
    variants,
)
from pellucid.evaluation.report import Evaluation, TaskFigures
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import SpecimenText, TextSource
from pellucid.models.model import LanguageModel
from pellucid.replacement.functions import mlp_functions
from pellucid.replacement.splice import MlpFunction, replaced_logits
from pellucid.specimen.tasks import task_accuracy
from pellucid.specimen.vocabulary import token_ids

DEFAULT_TOKENS = 50_000
Progress = Callable[[str, float], None]
"""Called with what is being measured and the share of it that is done."""


def evaluate(
    model: LanguageModel,
    dictionaries: DictionarySet,
    data: str | Path | TextSource,
    *,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    layerwise: bool = True,
    tasks: bool = True,
    concepts: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measure dictionaries, and the model with its MLPs computed by them.

    Every document is read by itself, as a prompt is. Figures come from the held-out split of the
    text; the baselines are fitted on as much of its training split.

    Args:
        model: the model that the dictionaries belong to.
        dictionaries: of any kind; unless each maps a layer's `mlp_in` to its `mlp_out`, only
            fidelity is measured.
        data: a text source, or what `open_text` takes.
        tokens: how many tokens to measure on.
        seed: of the random dictionary, the bootstrap and the specimen's corpus.
        layerwise: also replace each layer alone, and the first 1, 2, ... layers. The layers of a
            cross-layer transcoder do not stand alone: of them, only the latter.
        tasks: on the specimen's text and vocabulary, also measure its tasks.
        concepts: there, also measure how features stand for the concepts of its corpus.
        on_progress: told what is being measured.

    Raises:
        ConfigError: concepts are asked for on another text or vocabulary than the specimen's.
        DictionaryError: the dictionaries belong to another model.
        DataError: the text cannot be read or is too short.
    """
    tell = on_progress or _silent
    dictionaries.check_model(model, every_layer=False)
    source = open_text(data, seed=seed)
    on_specimen = isinstance(source, SpecimenText) and _knows_specimen(model)
    if concepts and not on_specimen:
        raise ConfigError(
            f"{source.name} has no annotated concepts; measure them on the specimen's corpus alone"
        )
    held_out, fitting = source.split("heldout"), source.split("train")
    rows = EvaluationRows(held_out, model, tokens=tokens)
    tell("fidelity", 0.0)
    fidelity = _measure_fidelity(dictionaries, rows)
    measured = Evaluation(
        tokens=rows.tokens,
        documents=rows.documents,
        layers=fidelity,
        duplicates=[near_duplicates(dictionary) for dictionary in dictionaries],
        concepts=_measure_concepts(model, dictionaries, tokens, seed, tell) if concepts else [],
        baselines_fitted_apart=fitting.fingerprint != held_out.fingerprint,
    )
    if not stand_in_for_mlps(dictionaries.dictionaries):
        return measured

    tell("baselines", 0.0)
    fitting_rows = EvaluationRows(fitting, model, tokens=tokens)
    layers = tuple(dictionaries.layers)
    alone = stand_alone(dictionaries.dictionaries)
    functions: dict[str, Mapping[int, MlpFunction]] = {}
    functions["dictionary"] = mlp_functions(dictionaries, layers)
    functions |= fit_baselines(dictionaries, fidelity, fitting_rows, seed=seed)
    sums = score_variants(
        model,
        functions,
        variants(layers, layerwise=layerwise, alone=alone),
        rows,
        on_progress=lambda share: tell("predictions", share),
    )
    tell("tasks", 0.0)
    return replace(
        measured,
        predictions=int(sums[ORIGINAL].count.sum()),
        original_ce=float(sums[ORIGINAL].nll.sum() / sums[ORIGINAL].count.sum()),
        replacement=replacement_report(sums, layers, layerwise=layerwise, alone=alone, seed=seed),
        baselines={name: predict(name, layers, sums, seed=seed) for name in BASELINES},
        tasks=_measure_tasks(model, dictionaries) if tasks and on_specimen else {},
    )


def _silent(stage: str, share: float) -> None:
    """Nobody is listening."""


def _measure_fidelity(dictionaries: DictionarySet, rows: EvaluationRows) -> list[LayerFidelity]:
    sites = [site for d in dictionaries for site in (d.read_site, d.write_site)]
    stream = rows.activations(list(dict.fromkeys(sites)))
    return measure_dictionaries(dictionaries.dictionaries, stream, tokens=rows.tokens)


def _measure_concepts(
    model: LanguageModel, dictionaries: DictionarySet, tokens: int, seed: int, tell: Progress
) -> list[ConceptReport]:
    return measure_concepts(
        model,
        dictionaries,
        tokens=tokens,
        seed=seed,
        on_progress=lambda share: tell("concepts", share),
    )


def _knows_specimen(model: LanguageModel) -> bool:
    return model.tokenizer is not None and model.tokenizer.get_vocab() == dict(token_ids())


def _measure_tasks(model: LanguageModel, dictionaries: DictionarySet) -> dict[str, TaskFigures]:
    original = task_accuracy(model.logits)
    replaced = task_accuracy(
        partial(replaced_logits, model, mlp_functions(dictionaries, dictionaries.layers))
    )
    return {
        name: TaskFigures(original=original[name], replaced=replaced[name]) for name in original
    }
