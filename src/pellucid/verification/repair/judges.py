"""Who says that a step is wrong: a verifier, or confidence alone. No truth is asked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

import numpy as np
import torch

from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import ERROR, FEATURE
from pellucid.models.model import LanguageModel
from pellucid.verification.fingerprints.fingerprint import fingerprint
from pellucid.verification.reading.reader import Reader, ReaderSettings, StepReading
from pellucid.verification.repair.suspects import Accusation, Suspect
from pellucid.verification.verifier.verifier import Verifier
from pellucid.verification.watching.row import as_steps
from pellucid.verification.watching.segments import Segment

WEIGHED = 12
"""Suspects that are taken out of the graph in turn to ask the verifier about them."""
_FLOOR = 0.1
_TARGET, _GRAPH = "answer", "graph."


class Judgement(NamedTuple):
    """What is thought of a step.

    Attributes:
        score: higher is more likely wrong; a probability where a verifier says it.
        flagged: whether it is called wrong.
        reading: what was read of it, None where nothing but logits was.
    """

    score: float
    flagged: bool
    reading: StepReading | None = None


class StepJudge(ABC):
    """Judges one step at a time; forwards that it runs obey the taps of the caller."""

    @abstractmethod
    def judge(self, ids: Sequence[int], segment: Segment, language: str) -> Judgement:
        """Judge a step.

        Args:
            ids: the chain through the step or further, special first token included.
            segment: the step.
            language: of the chain.
        """

    def weigh(
        self, accusation: Accusation, found: Judgement, segment: Segment, language: str
    ) -> Accusation:
        """The accusation with every suspect's importance to this judge; as it is by default.

        Args:
            accusation: of the step.
            found: what this judge said of it.
            segment: the step.
            language: of the chain.
        """
        del found, segment, language
        return accusation

    def record(self) -> dict[str, Any]:
        """What it is, JSON-able."""
        return {"judge": type(self).__name__}


@final
class ConfidenceJudge(StepJudge):
    """Flags a step whose least likely token had too little probability.

    Args:
        model: the model under test.
        least: the probability below which a step is flagged.

    Raises:
        ConfigError: the probability is no share.
    """

    def __init__(self, model: LanguageModel, least: float) -> None:
        if not 0 < least < 1:
            raise ConfigError(f"the least probability is {least}; give a share between 0 and 1")
        self.model, self.least = model, least

    @torch.no_grad()
    def judge(self, ids: Sequence[int], segment: Segment, language: str) -> Judgement:
        """See `StepJudge.judge`; the score is 1 - the least probability."""
        place = segment.place
        logits = self.model.logits(torch.tensor([list(ids[: place.stop])]))[0]
        tokens = torch.tensor(list(ids[place.start : place.stop]))[:, None]
        written = logits[place.start - 1 : place.stop - 1].softmax(-1).gather(1, tokens)
        least = float(written.min())
        return Judgement(1 - least, least < self.least)

    def record(self) -> dict[str, Any]:
        """See `StepJudge.record`."""
        return {"judge": "confidence", "least": self.least}


@final
class VerifierJudge(StepJudge):
    """A fitted verifier, which reads each step as it was trained to.

    Args:
        model: the model under test.
        dictionaries: transcoders of every layer.
        verifier: fitted.
        threshold: probability from which on a step is flagged; the verifier's own if None.

    Raises:
        ConfigError: the threshold is no share.
        DictionaryError: the dictionaries do not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        dictionaries: DictionarySet,
        verifier: Verifier,
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(f"the threshold is {threshold}; give a probability above 0")
        self.verifier, self.threshold = verifier, threshold
        self.reader = Reader(model, dictionaries, _settings(verifier))

    def judge(self, ids: Sequence[int], segment: Segment, language: str) -> Judgement:
        """See `StepJudge.judge`."""
        reading = self.reader.chain(list(ids[: segment.place.stop])).step(segment.place)
        row = as_steps(segment, [reading.columns], language)
        probability = float(self.verifier.probability(row)[0])
        if self.threshold is None:
            return Judgement(probability, bool(self.verifier.flags(row)[0]), reading)
        return Judgement(probability, probability >= self.threshold, reading)

    def weigh(
        self, accusation: Accusation, found: Judgement, segment: Segment, language: str
    ) -> Accusation:
        """Multiply scores by what the verifier's margin loses when a suspect leaves the graph.

        The loss is divided by the largest one, and .1 is added, so that what the verifier does not
        see is not acquitted. Only the first suspects are asked about.

        Args:
            accusation: of the step.
            found: what this judge said of it.
            segment: the step.
            language: of the chain.
        """
        graph = None if found.reading is None else found.reading.graphs.get(_TARGET)
        asked = accusation.suspects[:WEIGHED]
        if found.reading is None or graph is None or not asked:
            return accusation
        rows = [dict(found.reading.columns)]
        for suspect in asked:
            left = fingerprint(_without(graph, suspect), segment.place)
            changed = {f"{_GRAPH}{_TARGET}.{name}": value for name, value in left.items()}
            rows.append({**found.reading.columns, **changed})
        margins = self.verifier.margin(as_steps(segment, rows, language))
        loss = np.maximum(margins[0] - margins[1:], 0.0)
        weight = _FLOOR + loss / max(float(loss.max()), 1e-9)
        weighed = [
            replace(each, importance=float(w), score=each.score * float(w))
            for each, w in zip(asked, weight, strict=True)
        ]
        weighed.sort(key=lambda each: -each.score)
        rest = [
            replace(each, importance=_FLOOR, score=each.score * _FLOOR)
            for each in accusation.suspects[WEIGHED:]
        ]
        suspects = sorted([*weighed, *rest], key=lambda each: -each.score)
        return replace(accusation, suspects=tuple(suspects))

    def record(self) -> dict[str, Any]:
        """See `StepJudge.record`."""
        return {
            "judge": "verifier",
            "threshold": self.threshold,
            "columns": list(self.verifier.columns),
            "estimator": self.verifier.settings.estimator,
        }


def _settings(verifier: Verifier) -> ReaderSettings:
    """What has to be read for a verifier, and the answer's graph in any case."""
    read = dict(verifier.record.get("readings") or {}).get("settings") or {}
    named = {name.split(".")[1] for name in verifier.columns if name.startswith(_GRAPH)}
    targets = (_TARGET, *sorted(named - {_TARGET}))
    most = int(read.get("max_features", ReaderSettings().max_features))
    return ReaderSettings(targets=targets, max_features=most, tokens=False)  # type: ignore[arg-type]


def _without(graph: AttributionGraph, suspect: Suspect) -> AttributionGraph:
    nodes, edges = graph.nodes, graph.edges
    kind = FEATURE if suspect.kind == "feature" else ERROR
    out = (nodes.kind == kind) & (nodes.layer == suspect.layer)
    out &= np.isin(nodes.position, suspect.positions)
    if suspect.index is not None:
        out &= nodes.index == suspect.index
    return graph.subgraph(~out, ~(out[edges.source] | out[edges.target]))
