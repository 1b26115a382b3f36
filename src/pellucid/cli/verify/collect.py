"""`pellucid verify collect`: chains that a model writes, cut into steps, labelled and read."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import options
from pellucid.cli.ranks import gathered, ranks
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.cli.verify.questions import Grammar, Operators, Temperature, operator_range

Chains = Annotated[
    Path | None,
    typer.Option(
        "--chains",
        metavar="DIR",
        help="Chains that exist, saved as docs/chain_data.md says, instead of new ones.",
    ),
]
Count = Annotated[
    int, typer.Option("--questions", parser=parse_count, metavar="N", help="How many questions.")
]
RightShare = Annotated[
    float,
    typer.Option("--right-share", metavar="SHARE", help="Share of right steps that is read."),
]
Full = Annotated[
    bool, typer.Option("--full", help="Read steps after a chain's first wrong one too.")
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="Graphs to read: after, before, answer, contrast, weakest; repeatable; answer and "
        "after if not given.",
    ),
]
MaxFeatures = Annotated[
    int,
    typer.Option("--max-features", parser=parse_count, metavar="N", help="Features of a graph."),
]


def collect(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
    chains: Chains = None,
    questions: Count = 1000,
    grammar: Grammar = "arithmetic",
    operators: Operators = "3-5",
    temperature: Temperature = 0.3,
    right_share: RightShare = 1.0,
    full: Full = False,
    target: Target = None,
    max_features: MaxFeatures = 128,
) -> None:
    """Let a model write chains of thought, and read every step of them.

    Steps are labelled by execution. Each is read in one forward pass a chain: confidence, hidden
    states, feature activations, and attribution graphs with their fingerprints. A run that was
    stopped goes on where it was; under torchrun each process takes a share.
    """
    from pellucid.api import load_dictionaries, load_model
    from pellucid.verification.chains.store import load_chains
    from pellucid.verification.collecting.collect import Questions, Sampling
    from pellucid.verification.collecting.collect import collect as read_chains
    from pellucid.verification.reading.reader import Reader, ReaderSettings

    started = time.perf_counter()
    wanted = ReaderSettings(
        targets=("answer", "after") if target is None else tuple(target),  # type: ignore[arg-type]
        max_features=max_features,
    )
    given = None if chains is None else load_chains(chains)
    asked = Questions(
        grammar=grammar,
        operators=operator_range(operators),
        count=questions,
        temperature=temperature,
        seed=run.seed,
    )
    sampling = Sampling(strict=not full, right_share=right_share, seed=run.seed)
    loaded = load_model(model, device=run.device)
    own = load_dictionaries(dictionaries or model, device=run.device, model=loaded)
    reader = Reader(loaded, own, wanted)
    with ranks() as share:
        with run.counter("chains read") as on_progress:
            counts = read_chains(
                reader,
                given or asked,
                out,
                source="plain" if chains is None else chains.name,
                sampling=sampling,
                share=share,
                on_progress=on_progress,
            )
        every = gathered(counts, share)
    if share.rank == 0:
        totals = {key: sum(each[key] for each in every) for key in counts}
        _report(run, out, totals | {"processes": share.world}, started)


def _report(run: Run, out: Path, totals: dict[str, int], started: float) -> None:
    from pellucid.verification.collecting.collect import load_steps

    steps = load_steps(out)
    wrong = steps.wrong
    kinds = steps.columns["error"][wrong].tolist()
    seconds = float(steps.columns["seconds"].mean())
    record = totals | {
        "steps": len(steps),
        "wrong": int(wrong.sum()),
        "errors": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "seconds_per_step": seconds,
        "seconds": time.perf_counter() - started,
        "files": {"steps": str(out)},
    }
    run.report(
        record,
        f"{len(steps):,} steps, {record['wrong']:,} of them wrong; {totals['read']:,} chains read, "
        f"{totals['found']:,} were there; {seconds:.3f} processor seconds a step",
        f"wrote {out}",
    )
