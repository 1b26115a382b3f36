"""Three further experiments: thought against text, prefill detection, intentional control."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pellucid.introspection.arms import Arms, Cell
from pellucid.introspection.concepts import site_after
from pellucid.introspection.dialogue import Prompt, padded
from pellucid.introspection.injection import Asked, within
from pellucid.introspection.judges import ExactJudge, words_of
from pellucid.introspection.statistics import Net, Rate, Trials, net, rate_of

MEASURABLE = 0.5
"""Share of control trials in which the model must do the plain text task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment's figures.

    Attributes:
        name: of the experiment.
        control: share of trials without any injection in which the model did the text task.
        rates: by arm.
        nets: paired differences of arms.
        figures: anything else.
    """

    name: str
    control: float
    rates: Mapping[str, Rate] = field(default_factory=dict)
    nets: Mapping[str, Net] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measurable(self) -> bool:
        """Whether the model does the text task often enough to measure anything."""
        return self.control >= MEASURABLE

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return {
            "measurable": self.measurable,
            "control": self.control,
            "rates": {name: rate.to_json() for name, rate in self.rates.items()},
            "nets": {name: each.to_json() for name, each in self.nets.items()},
            **self.figures,
        }


def thought_against_text(arms: Arms, cell: Cell, *, bootstraps: int) -> Experiment:
    """Inject while a sentence is read; ask for the injected word, and for the sentence itself.

    Args:
        arms: the suite's arms.
        cell: which trials.
        bootstraps: draws for intervals.
    """
    reading = {kind: _read(arms, cell, kind) for kind in ("none", "concept", "random")}
    repeating = {kind: _repeat(arms, cell, kind) for kind in ("none", "concept")}
    settings = {"bootstraps": bootstraps, "seed": arms.seed}
    return Experiment(
        name="thought against text",
        control=float(repeating["none"].mean()),
        rates={f"read_{kind}": rate_of(hits) for kind, hits in reading.items()}
        | {f"repeated_{kind}": rate_of(hits) for kind, hits in repeating.items()}
        | {"both": rate_of(reading["concept"] * repeating["concept"])},
        nets={
            f"read_concept_less_{kind}": net(reading["concept"], reading[kind], **settings)
            for kind in ("none", "random")
        },
    )


def prefill_detection(arms: Arms, cell: Cell, *, bootstraps: int) -> Experiment:
    """Put a word into the model's mouth; ask whether it meant it, with what injected before.

    Args:
        arms: the suite's arms.
        cell: which trials.
        bootstraps: draws for intervals.
    """
    answers = {kind: _meant(arms, cell, kind) for kind in ("none", "matching", "other", "random")}
    meant = {kind: yes for kind, (yes, _) in answers.items()}
    settings = {"bootstraps": bootstraps, "seed": arms.seed}
    return Experiment(
        name="prefill detection",
        control=float(answers["none"][1].mean()),
        rates={kind: rate_of(yes) for kind, yes in meant.items()},
        nets={
            f"matching_less_{kind}": net(meant["matching"], meant[kind], **settings)
            for kind in ("none", "other", "random")
        },
    )


@torch.no_grad()
def intentional_control(arms: Arms, cell: Cell, *, bootstraps: int) -> Experiment:
    """Ask to write a sentence while thinking, or not thinking, of a word; read the residual.

    The sentence is given as the answer's beginning; the figure is the mean over its tokens of the
    residual's cosine with the word's vector, less that with the other words' vectors.

    Args:
        arms: the suite's arms.
        cell: which trials; no vector is added.
        bootstraps: draws for intervals.
    """
    wording = arms.dialogue.wording
    shown: dict[str, Trials] = {}
    right: list[float] = []
    for name, form in (("think", wording.writing), ("avoid", wording.avoiding)):
        values = np.zeros(cell.shape)
        for row, number in enumerate(cell.words):
            for repeat in range(cell.repeats):
                sentence = wording.sentences[(row + repeat) % len(wording.sentences)]
                word = arms.concepts.words[number]
                question = form.format(word=word, sentence=sentence)
                prompt = arms.dialogue.write([("user", question)], prefill=sentence)
                values[row, repeat], written = _alignment(arms, cell, prompt, number)
                right.append(written)
        shown[name] = values
    settings = {"bootstraps": bootstraps, "seed": arms.seed}
    return Experiment(
        name="intentional control",
        control=float(np.mean(right)),
        nets={
            "think": net(shown["think"], np.zeros(cell.shape), **settings),
            "avoid": net(shown["avoid"], np.zeros(cell.shape), **settings),
            "think_less_avoid": net(shown["think"], shown["avoid"], **settings),
        },
        figures={"layer": cell.layer},
    )


def _trials(cell: Cell) -> list[tuple[int, int]]:
    return [(row, repeat) for row in range(len(cell.words)) for repeat in range(cell.repeats)]


def _over_sentence(arms: Arms, cell: Cell, form: str, kind: str) -> tuple[list[Asked], list[str]]:
    """The question about a sentence in every trial, and the sentences."""
    wording = arms.dialogue.wording
    rows, sentences = [], []
    for row, repeat in _trials(cell):
        sentence = wording.sentences[(row + repeat) % len(wording.sentences)]
        question = form.format(sentence=sentence, n=1 + repeat)
        prompt = arms.dialogue.write([("user", question)], [("sentence", sentence)])
        rows.append(_injected(arms, cell, kind, (row, repeat), prompt, "sentence"))
        sentences.append(sentence)
    return rows, sentences


def _injected(
    arms: Arms, cell: Cell, kind: str, trial: tuple[int, int], prompt: Prompt, part: str
) -> Asked:
    if kind == "none":
        return Asked(prompt=prompt)
    return Asked(prompt=prompt, injections=(within(prompt, part, arms.vector(cell, kind, *trial)),))


def _said(arms: Arms, cell: Cell, rows: list[Asked]) -> list[str]:
    return arms.asker(cell.layer).answers(rows, arms.dialogue.wording.answer_tokens)


def _read(arms: Arms, cell: Cell, kind: str) -> Trials:
    rows, _ = _over_sentence(arms, cell, arms.dialogue.wording.reading, kind)
    judge = ExactJudge(arms.dialogue.wording)
    named = [judge.first_named(answer) for answer in _said(arms, cell, rows)]
    words = [arms.concepts.words[cell.words[row]] for row, _ in _trials(cell)]
    hits = [float(name == word) for name, word in zip(named, words, strict=True)]
    return np.array(hits).reshape(cell.shape)


def _repeat(arms: Arms, cell: Cell, kind: str) -> Trials:
    rows, sentences = _over_sentence(arms, cell, arms.dialogue.wording.repeating, kind)
    pairs = zip(_said(arms, cell, rows), sentences, strict=True)
    hits = [float(words_of(answer) == words_of(sentence)) for answer, sentence in pairs]
    return np.array(hits).reshape(cell.shape)


def _meant(arms: Arms, cell: Cell, kind: str) -> tuple[Trials, Trials]:
    """Whether each trial's answer affirms, and whether it answers at all.

    `other`: another concept than the word put into the model's mouth is injected.
    """
    wording, rows = arms.dialogue.wording, []
    known = {"matching": "concept", "other": "concept"}.get(kind, kind)
    for row, repeat in _trials(cell):
        shift = 1 if kind == "other" else 0
        word = arms.concepts.words[cell.words[(row + shift) % len(cell.words)]]
        turns = [
            ("user", wording.request),
            ("assistant", wording.spoken.format(word=word)),
            ("user", wording.intended.format(n=1 + repeat)),
        ]
        prompt = arms.dialogue.write(turns, [("earlier", wording.request)])
        rows.append(_injected(arms, cell, known, (row, repeat), prompt, "earlier"))
    judged = ExactJudge(wording).read("", _said(arms, cell, rows))
    yes = np.array([float(each.answered == "yes") for each in judged])
    answered = np.array([float(each.answered in ("yes", "no")) for each in judged])
    return yes.reshape(cell.shape), answered.reshape(cell.shape)


def _alignment(arms: Arms, cell: Cell, prompt: Prompt, number: int) -> tuple[float, float]:
    """The contrast of cosines over the sentence, and the share of it that the model would write."""
    model, site = arms.dialogue.model, site_after(cell.layer)
    ids, mask, _ = padded([prompt])
    start, stop = prompt.spans["prefill"]
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, _: Any) -> None:
        kept["residual"] = value

    with model.tapped([(site, keep)]):
        logits = model.logits(ids, mask)[0]
    residual = kept["residual"][0, start:stop].float().cpu()
    vectors = functional.normalize(arms.concepts.vectors[cell.layer], dim=1)
    cosines = (functional.normalize(residual, dim=1) @ vectors.T).mean(dim=0)
    others = torch.arange(len(cosines)) != number
    written = (logits[start - 1 : stop - 1].argmax(dim=-1).cpu() == ids[0, start:stop]).float()
    return float(cosines[number] - cosines[others].mean()), float(written.mean())
