"""Options about quality that cannot be met: one line, before anything is computed."""

import pytest

from unit.cli.conftest import Command, Workshop
from unit.cli.test_bad_input import assert_refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plot", "density.gif"), ("density.gif ends in '.gif'", ".png or .svg")),
        (("--concepts",), ("has no annotated concepts",)),
    ],
)
def test_evaluation_options_are_checked_first(
    pellucid: Command, workshop: Workshop, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome = pellucid(
        *("eval", workshop.model, "--dictionaries", workshop.dictionaries),
        *("--data", workshop.text, "--tokens", 200, "--quiet", *options),
    )
    assert_refused(outcome, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--track", "mlflow"), ("unknown tracker 'mlflow'", "tensorboard, wandb")),
        (("--measure-every", "0"), ("--measure-every", "write a whole number of at least 1")),
    ],
)
def test_training_options_are_checked_first(
    pellucid: Command,
    workshop: Workshop,
    tmp_path: object,
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    outcome = pellucid(
        *("train", workshop.model, "--data", workshop.text, "--out", f"{tmp_path}/run"),
        *("--tokens", "1k", "--features", 64, "--k", 4, "--batch-tokens", 128, "--quiet"),
        *options,
    )
    assert_refused(outcome, *words)
