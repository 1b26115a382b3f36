"""`pellucid verify`: which steps of a chain of thought are wrong, from what the model computed."""

from pellucid.cli.verify.collect import collect
from pellucid.cli.verify.experiment import experiment
from pellucid.cli.verify.fit import fit
from pellucid.cli.verify.repair import repair
from pellucid.cli.verify.watch import watch

__all__ = ["collect", "experiment", "fit", "group", "repair", "watch"]


def group() -> None:
    """Tell where a chain of thought goes wrong by what the model computed, and mend it."""
