"""`pellucid steer`: a vector, its effect by strength, and random vectors beside it."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli import options
from pellucid.cli import steer_options as given
from pellucid.cli.run import Run, finite
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.interventions.steering.sweep import Sweep
    from pellucid.interventions.steering.vector import Steering, SteeringVector
    from pellucid.models.model import LanguageModel

_SAMPLES = 2
_SAMPLE_TOKENS = 16
_NEUTRAL = 32


def steer(
    run: Run,
    model: options.Model,
    prompts: given.Prompts,
    positive: given.Positive = None,
    negative: given.Negative = None,
    vector: given.Vector = None,
    feature: given.Feature = None,
    method: given.Methods = None,
    target: given.Targets = None,
    site: given.SiteName = None,
    strengths: given.Strengths = "0.25,0.5,1,2",
    tokens: given.Tokens = "on",
    dictionaries: options.Dictionaries = None,
    data: options.Data = None,
    when: given.When = None,
    unless: given.Unless = None,
    refusal: given.Refusal = None,
    out: given.OutFolder = None,
) -> None:
    """Steer a model and measure it.

    Makes a vector of contrasting texts or of a feature, or reads one, and reports by strength how
    much likelier it makes the targets (the positive texts, if none are given) and what it costs on
    neutral text, beside five random vectors of the same length.
    """
    from pellucid import api
    from pellucid.cli.steer_inputs import Source, made_vector, neutral_texts, texts, wheres
    from pellucid.interventions.steering.sweep import sweep

    started = time.perf_counter()
    rhos = options.parsed("--strengths", _numbers, strengths)
    source = Source(positive, negative, vector, feature, method, site, tuple(target or ()))
    source.check()
    asked = texts(prompts)
    loaded = api.load_model(model, device=run.device)
    found = made_vector(
        loaded, source, asked, partial(_dictionaries, run, loaded, model, dictionaries)
    )
    found = found.at(wheres(tokens))
    act, condition = _conditional(loaded, found, when, unless)
    text = options.SPECIMEN if data is None and model == options.SPECIMEN else data
    neutral = neutral_texts(loaded, text, _NEUTRAL)
    if not neutral:
        run.remark("No --data: the prompts themselves stand for neutral text.")
    with run.counter("strengths measured") as on_progress:
        measured = sweep(
            loaded,
            found,
            rhos,
            prompts=asked,
            targets=list(source.targets()),
            neutral=neutral or asked,
            act=act,
            seeds=range(run.seed, run.seed + 5),
            on_progress=on_progress,
        )
    record = _record(found, measured) | condition | _samples(loaded, asked, act(found), measured)
    if refusal is not None:
        record["cosine_with_refusal"] = found.cosine(_read(refusal))
    record |= {"neutral": text or "prompts", "seconds": time.perf_counter() - started}
    files = _write(out, found, record)
    run.report(record | {"files": files}, *_shown(record, measured), *map(str, files.values()))


def _record(vector: "SteeringVector", measured: "Sweep") -> dict[str, Any]:
    own = [row for row in measured.rows if row.arm == "vector"]
    return {
        "effect": own[-1].effect,
        "method": vector.method,
        "site": str(vector.site),
        "norm": vector.norm,
        "provenance": dict(vector.provenance),
        "table": measured.to_json(),
    }


def _samples(
    model: "LanguageModel", prompts: list[str], steering: "Steering", measured: "Sweep"
) -> dict[str, Any]:
    """What the model writes without steering and at every strength, and the last receipt."""
    from pellucid.interventions.generate import generate

    few = prompts[:_SAMPLES]
    written = [generate(model, few, max_new_tokens=_SAMPLE_TOKENS)]
    strengths = [row.strength for row in measured.rows if row.arm == "vector"]
    for strength in strengths:
        edits = steering.interventions(strength)
        written.append(generate(model, few, edits, max_new_tokens=_SAMPLE_TOKENS))
    return {
        "samples": [
            {"strength": strength, "prompt": prompt, "text": text}
            for strength, made in zip([0.0, *strengths], written, strict=True)
            for prompt, text in zip(few, made.texts, strict=True)
        ],
        "receipt": written[-1].receipt.to_json(),
    }


def _conditional(
    model: "LanguageModel", vector: "SteeringVector", when: Path | None, unless: Path | None
) -> tuple[Callable[["SteeringVector"], "Steering"], dict[str, Any]]:
    """How a vector acts: always, or only on one kind of prompt."""
    if (when is None) != (unless is None):
        raise ConfigError("--when and --unless belong together; give both files or neither")
    if when is None or unless is None:
        return lambda each: each, {}
    from pellucid.cli.steer_inputs import gate_sites, lines
    from pellucid.interventions.steering.conditional import ConditionalSteering, fit_condition

    found = fit_condition(model, lines(when), lines(unless), gate_sites(vector.site))
    about = {
        "site": str(found.gate.site),
        "threshold": found.gate.threshold,
        "above": found.gate.above,
        "f1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
    }
    return (
        lambda each: ConditionalSteering(steering=each, condition=found, where=each.where),
        {"condition": about},
    )


def _shown(record: dict[str, Any], measured: "Sweep") -> list[Any]:
    """The table and the samples, for a reader."""
    from rich.table import Table

    table = Table(title=f"{record['method']} at {record['site']}", title_justify="left")
    for column in ("rho", "effect", "95%", "random", "95%", "neutral CE", "random"):
        table.add_column(column, justify="right")
    rows = measured.rows
    for own, control in zip(rows[::2], rows[1::2], strict=True):
        table.add_row(
            f"{own.rho:g}",
            f"{own.effect:+.3f}",
            _interval(own.low, own.high),
            f"{control.effect:+.3f}",
            _interval(control.low, control.high),
            f"{own.ce_change:+.3f}",
            f"{control.ce_change:+.3f}",
        )
    shown: list[Any] = [table]
    for name in ("condition", "cosine_with_refusal"):
        if name in record:
            shown.append(f"{name.replace('_', ' ')}: {record[name]}")
    return shown + [
        f"[{each['strength']:.3g}] {each['prompt']} -> {each['text']}" for each in record["samples"]
    ]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"


def _write(out: Path | None, vector: "SteeringVector", record: dict[str, Any]) -> dict[str, str]:
    from pellucid.core.files import write_text

    if out is None:
        return {}
    vector.save(out / "vector")
    write_text(out / "table.json", json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
    return {"vector": str(out / "vector"), "table": str(out / "table.json")}


def _read(folder: Path) -> "SteeringVector":
    from pellucid.interventions.steering.vector import load_vector

    return load_vector(folder)


def _dictionaries(run: Run, loaded: "LanguageModel", model: str, name: str | None) -> Any:
    from pellucid import api

    chosen = options.or_specimen(name, model, "--dictionaries")
    return api.load_dictionaries(chosen, device=run.device, model=loaded)


def _numbers(text: str) -> list[float]:
    """Read numbers such as `0.5,1`.

    Raises:
        ValueError: a part is none, not finite, or 0.
    """
    values = [float(part) for part in text.split(",")]
    if not all(abs(value) < float("inf") and value for value in values):
        raise ValueError(f"{text!r} must hold finite numbers other than 0, as in 0.5,1")
    return values
