"""`pellucid intervene`: edit a running model, with a receipt."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.core.errors import ConfigError

Prompts = Annotated[list[str], typer.Argument(metavar="PROMPT...", help="One text or several.")]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Interventions as JSON; see interventions.md."),
]
ClampFlag = Annotated[
    list[str] | None,
    typer.Option("--clamp", metavar="L:I=V", help="Clamp feature I of layer L to V; repeatable."),
]
Ablate = Annotated[
    list[str] | None,
    typer.Option("--ablate", metavar="L:I", help="Clamp feature I of layer L to 0; repeatable."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="SITE", help="Place of the operation below, as resid_post@2."),
]
AddFlag = Annotated[
    str | None,
    typer.Option("--add", metavar="FILE", help="Add a vector: JSON, a list of numbers."),
]
Strength = Annotated[float, typer.Option("--strength", help="Factor of --add.")]
ScaleFlag = Annotated[str | None, typer.Option("--scale", metavar="F", help="Multiply by F.")]
SetFlag = Annotated[
    str | None, typer.Option("--set", metavar="V", help="Put V into every dimension.")
]
ProjectOutFlag = Annotated[
    str | None,
    typer.Option("--project-out", metavar="FILE", help="Remove the directions of a JSON file."),
]
WhereFlag = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="WHERE",
        help="Tokens of the flags above: prompt, generated, positions (3,-1), windows (2:5), "
        "text=WORDS, separated by commas; all but BOS if not given.",
    ),
]
Generate = Annotated[
    int | None,
    typer.Option("--generate", parser=parse_count, metavar="N", help="Also write N tokens."),
]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also write what the unedited model writes.")
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws", parser=parse_count, metavar="N", help="Random edits to compare the effect with."
    ),
]


def intervene(
    run: Run,
    model: options.Model,
    prompts: Prompts,
    file: File = None,
    clamp: ClampFlag = None,
    ablate: Ablate = None,
    at: At = None,
    add: AddFlag = None,
    strength: Strength = 1.0,
    scale: ScaleFlag = None,
    set_to: SetFlag = None,
    project_out: ProjectOutFlag = None,
    where: WhereFlag = None,
    dictionaries: options.Dictionaries = None,
    generate: Generate = None,
    compare: Compare = False,
    draws: Draws = 16,
) -> None:
    """Edit a running model and prove it.

    Says which tokens were edited and by how much, and how the next token's distribution changes,
    beside random edits of the same size at the same tokens. An edit that did not happen is an
    error.
    """
    from pellucid import api
    from pellucid.cli.edits import at_site, features, parse_where, read_file

    started = time.perf_counter()
    if compare and generate is None:
        raise ConfigError("--compare compares what is written; say how much with --generate")
    tokens = parse_where(where)
    operations = {"--add": add, "--scale": scale, "--set": set_to, "--project-out": project_out}
    edits = [] if file is None else read_file(file)
    edits += features(clamp, ablate, tokens) + at_site(at, operations, strength, tokens)
    if not edits:
        raise ConfigError("there is no intervention; give --file, --clamp, --ablate or --at")
    loaded = api.load_model(model, device=run.device)
    set_of = _dictionaries(run, (model, loaded), dictionaries, edits)
    record, shown = _edited(run, loaded, prompts, edits, set_of, (generate, compare, draws))
    run.report(record | {"seconds": time.perf_counter() - started}, *shown)


def _dictionaries(run: Run, model: tuple[str, Any], name: str | None, edits: list[Any]) -> Any:
    """The dictionaries, where an edit or a gate names a feature."""
    from pellucid import api
    from pellucid.core.places import FeatureSite

    places = [each.site for each in edits] + [each.gate.site for each in edits if each.gate]
    if name is None and not any(isinstance(place, FeatureSite) for place in places):
        return None
    name = options.or_specimen(name, model[0], "--dictionaries")
    return api.load_dictionaries(name, device=run.device, model=model[1])


def _edited(
    run: Run,
    model: Any,
    prompts: list[str],
    edits: list[Any],
    dictionaries: Any,
    wanted: tuple[int | None, bool, int],
) -> tuple[dict[str, Any], list[Any]]:
    """What the edits did, as a record and for a reader."""
    from pellucid.cli.edits import edits_prompt
    from pellucid.cli.intervention_words import describe_effect, describe_receipt
    from pellucid.interventions import generate
    from pellucid.interventions.effect import effects

    new_tokens, compare, draws = wanted
    settings: dict[str, Any] = {"dictionaries": dictionaries}
    record: dict[str, Any] = {"effect": None}
    shown: list[Any] = []
    receipt = None
    on_prompt = [each for each in edits if edits_prompt(each)]
    if on_prompt or new_tokens is None:
        found, receipt = effects(
            model, prompts, on_prompt or edits, draws=draws, seed=run.seed, **settings
        )
        each = [
            {"prompt": prompt} | effect.to_json(model)
            for prompt, effect in zip(prompts, found, strict=True)
        ]
        record["effect"] = {
            "prompts": each,
            "kl": sum(one["kl"] for one in each) / len(each),
            "control_kl": sum(one["control"]["kl"] for one in each) / len(each),
        }
        shown.append(describe_effect(record["effect"]))
    if new_tokens is not None:
        done = generate(model, prompts, edits, max_new_tokens=new_tokens, **settings)
        receipt = done.receipt
        record["generated"] = {"edited": done.texts}
        if compare:
            plain = generate(model, prompts, max_new_tokens=new_tokens)
            record["generated"]["unedited"] = plain.texts
        for name, texts in record["generated"].items():
            shown += [f"{name}: {text}" for text in texts]
    assert receipt is not None
    record["receipt"] = receipt.to_json()
    return record, [describe_receipt(record["receipt"]), *shown]
