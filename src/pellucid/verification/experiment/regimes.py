"""The regimes of the experiment: which chains, and on what a verifier is trained and tested.

in        questions like those that the model was trained on
deeper    questions with more operators than it ever saw
planted   copies of it that follow a wrong rule; the rule that is tested is not trained on
transfer  trained on one task, tested on the other
"""

from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.core.errors import ConfigError
from pellucid.verification.collecting.collect import Questions, Sampling
from pellucid.verification.planted.packaged import packaged_rules

Task = Literal["arithmetic", "boolean"]
TASKS: tuple[Task, ...] = get_args(Task)
RegimeName = Literal["in", "deeper", "planted", "transfer"]
REGIMES: tuple[RegimeName, ...] = get_args(RegimeName)
PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Chains of one model.

    Attributes:
        name: of its folder.
        source: `plain`, or `planted:RULE` for a copy.
        questions: what the model is to solve.
        sampling: which steps are read.
    """

    name: str
    source: str
    questions: Questions
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One way to train and test.

    Attributes:
        name: what is tested.
        train, test: names of collections. The same ones: split by question. Otherwise questions
            that are in both are left out of training.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """What a regime needs and does.

    Attributes:
        task: the task that is tested.
        name: of the regime.
        collections: all chains it needs.
        folds: each is done with every seed; figures are pooled over seeds and averaged over folds.
    """

    task: Task
    name: RegimeName
    collections: tuple[Collection, ...]
    folds: tuple[Fold, ...]


def regime(task: str, name: str, *, scale: float = 1.0) -> Regime:
    """A regime of the packaged specimen.

    Args:
        task: arithmetic or boolean.
        name: of `REGIMES`.
        scale: of the number of questions (less for a trial).

    Raises:
        ConfigError: there is no such task or regime.
    """
    if task not in TASKS or name not in REGIMES:
        raise ConfigError(
            f"there is no regime {name!r} of task {task!r}; use {', '.join(REGIMES)} and "
            f"{', '.join(TASKS)}"
        )
    tasks: dict[str, Task] = {each: each for each in TASKS}
    names: dict[str, RegimeName] = {each: each for each in REGIMES}
    own, chosen = tasks[task], names[name]
    if chosen == "planted":
        rules = enumerate(packaged_rules(own))
        copies = [_planted(own, rule, number, scale) for number, rule in rules]
        sources = [each.name for each in copies]
        folds = tuple(
            Fold(name=left, train=tuple(n for n in sources if n != left), test=(left,))
            for left in sources
        )
        return Regime(task=own, name=chosen, collections=tuple(copies), folds=folds)
    if chosen == "transfer":
        other: Task = "boolean" if task == "arithmetic" else "arithmetic"
        kinds: tuple[Literal["in", "deeper"], ...] = ("in", "deeper")
        train = tuple(_natural(other, kind, scale) for kind in kinds)
        test = tuple(_natural(own, kind, scale) for kind in kinds)
        known = tuple(each.name for each in train)
        folds = tuple(Fold(name=each.name, train=known, test=(each.name,)) for each in test)
        return Regime(task=own, name=chosen, collections=(*train, *test), folds=folds)
    only = _natural(own, "in" if chosen == "in" else "deeper", scale)
    fold = Fold(name=only.name, train=(only.name,), test=(only.name,))
    return Regime(task=own, name=chosen, collections=(only,), folds=(fold,))


_COUNTS = {
    ("arithmetic", "in"): (1600, 0.2),
    ("arithmetic", "deeper"): (450, 1.0),
    ("boolean", "in"): (4000, 0.06),
    ("boolean", "deeper"): (450, 0.6),
}
"""Questions, and the share of right steps that is read."""


def _natural(task: Task, kind: Literal["in", "deeper"], scale: float) -> Collection:
    count, right = _COUNTS[task, kind]
    inside = kind == "in"
    return Collection(
        name=f"{task}-{kind}",
        source=PLAIN,
        questions=Questions(
            grammar=task,
            operators=(3, 5) if inside else (6, 7),
            count=_scaled(count, scale),
            temperature=(0.3 if task == "arithmetic" else 1.0) if inside else 0.0,
            seed=11 if inside else 12,
        ),
        sampling=Sampling(right_share=right),
    )


def _planted(task: Task, rule: str, number: int, scale: float) -> Collection:
    return Collection(
        name=f"{task}-planted-{rule}",
        source=f"planted:{rule}",
        questions=Questions(
            grammar=task,
            operators=(3, 5),
            count=_scaled(300, scale),
            temperature=0.0,
            seed=21 + number,  # other questions for every rule
        ),
        sampling=Sampling(right_share=0.5),
    )


def _scaled(count: int, scale: float) -> int:
    return max(8, round(count * scale))
