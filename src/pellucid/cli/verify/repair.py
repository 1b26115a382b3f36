"""`pellucid verify repair`: flagged steps mended by taking away what made them, beside controls."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.cli.verify.questions import Grammar, Operators, Temperature, operator_range

if TYPE_CHECKING:
    from rich.table import Table

    from pellucid.models.model import LanguageModel
    from pellucid.verification.chains.kept import KeptChain
    from pellucid.verification.repair.mend import Mender

VerifierFolder = Annotated[
    Path, typer.Option("--verifier", metavar="DIR", help="Written by `verify fit`.")
]
Steps = Annotated[
    Path,
    typer.Option(
        "--steps",
        metavar="DIR",
        help="Collected steps with graphs of the answer; its right steps say what is usual.",
    ),
]
Chains = Annotated[
    Path | None,
    typer.Option("--chains", metavar="DIR", help="Collected folder of chains to repair."),
]
Count = Annotated[
    int,
    typer.Option(
        "--questions", parser=parse_count, metavar="N", help="Questions to ask without --chains."
    ),
]
Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="NAME",
        help="suspects, features, errors, random, resample or likeliest; repeatable; suspects, "
        "random and resample if not given.",
    ),
]
TryCount = Annotated[
    int, typer.Option("--tries", parser=parse_count, metavar="N", help="Tries of an arm a step.")
]
Verified = Annotated[
    int,
    typer.Option(
        "--verified", parser=parse_count, metavar="N", help="Answers put to the verifier a step."
    ),
]
RightShare = Annotated[
    float, typer.Option("--right-share", metavar="SHARE", help="Share of right steps to judge.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="P",
        help="Probability from which on a step is flagged; the verifier's own if not given.",
    ),
]
AnyModel = Annotated[
    bool,
    typer.Option("--any-model", help="Allow a verifier that was fitted on another model's steps."),
]


def repair(
    run: Run,
    model: options.Model,
    verifier: VerifierFolder,
    steps: Steps,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
    chains: Chains = None,
    questions: Count = 100,
    grammar: Grammar = "arithmetic",
    operators: Operators = "3-5",
    temperature: Temperature = 0.3,
    arm: Arms = None,
    tries: TryCount = 64,
    verified: Verified = 4,
    right_share: RightShare = 1.0,
    threshold: Threshold = None,
    any_model: AnyModel = False,
) -> None:
    """Flag steps, try to mend them, and measure what that mends and what it harms.

    What is accused of a flagged step's answer is scaled by 0, .5 and 2 in turn; the first other
    answer with which the step is no longer flagged is taken. Every arm has the same tries and the
    same verifier. The truth, found by execution, is used for the score alone. Parts in --out are
    kept, so that a run that was stopped goes on.
    """
    from pellucid import api
    from pellucid.verification.collecting.collect import load_steps
    from pellucid.verification.repair.judges import VerifierJudge
    from pellucid.verification.repair.mend import Mender
    from pellucid.verification.repair.proposals import Tries
    from pellucid.verification.repair.trial import TrialSettings, run_trial, summarise
    from pellucid.verification.repair.usual import Usual
    from pellucid.verification.verifier import load_verifier

    started = time.perf_counter()
    arms = tuple(arm or TrialSettings().arms)
    settings = TrialSettings(arms=arms, right_share=right_share, seed=run.seed)
    limits = Tries(count=tries, verified=verified)
    bounds = operator_range(operators)
    name = options.or_specimen(dictionaries, model, "--dictionaries")
    loaded = api.load_model(model, device=run.device)
    fitted = load_verifier(verifier, model_fingerprint=loaded.fingerprint(), any_model=any_model)
    features = api.load_dictionaries(name, device=run.device, model=loaded)
    judge = VerifierJudge(loaded, features, fitted, threshold)
    mender = Mender(loaded, features, judge, Usual.of(load_steps(steps)), tries=limits)
    kept = _chains(mender, chains, (grammar, bounds, questions, temperature, run.seed))
    with run.counter("chains") as count:
        rows = run_trial(mender, kept, out, settings, on_progress=count)
    record = summarise(rows, arms, seed=run.seed) | {"out": str(out)}
    run.report(
        record | {"seconds": time.perf_counter() - started},
        f"{record['wrong']} wrong steps, of which {record['recall']:.0%} flagged; "
        f"{record['right_judged']} right ones judged, {record['false_alarms']:.1%} flagged",
        _table(record["repair"]),
        f"wrote {out}",
    )


def _chains(
    mender: "Mender", folder: Path | None, drawn: tuple[str, tuple[int, int], int, float, int]
) -> "list[KeptChain]":
    """Chains of a collected folder, or written by the model now."""
    from pellucid.verification.collecting.collect import Questions, load_kept

    if folder is not None:
        return load_kept(folder)
    grammar, bounds, count, temperature, seed = drawn
    asked = Questions(
        grammar=grammar, operators=bounds, count=count, temperature=temperature, seed=seed
    )
    return _written(mender.model, asked)


def _written(model: "LanguageModel", asked: Any) -> "list[KeptChain]":
    from pellucid.verification.collecting.collect import PART

    parts = range(-(-asked.count // PART))
    return [chain for part in parts for chain in asked.chains(model, part, "plain")]


def _table(arms: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    shown = Table(title="Repair", title_justify="left")
    for name in ("arm", "mended", "interval", "harmed", "gain over resampling"):
        shown.add_column(name, justify="left" if name == "arm" else "right")
    for name, each in arms.items():
        gain = each.get("gain")
        shown.add_row(
            name,
            _percent(each["fix_rate"]),
            _range(each),
            _percent(each["harm"]),
            "" if gain is None else f"{_percent(gain['value'])} ({_range(gain)})",
        )
    return shown


def _range(figure: dict[str, Any]) -> str:
    return f"{_percent(figure['low'])} to {_percent(figure['high'])}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
