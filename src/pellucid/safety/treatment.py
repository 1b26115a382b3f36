"""Ways to stop a behaviour, as named lists of interventions that a gate can be put on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.places import FeatureSite
from pellucid.core.types import AnySite
from pellucid.interventions.operations import Add, Clamp, ProjectOut
from pellucid.interventions.spec import Gate, Intervention, content_hash
from pellucid.interventions.where import EVERYWHERE, Where, at
from pellucid.probes.probe import Probe

DECISION = at(-1)
"""The last token of a prompt, whose output begins the answer."""


@final
@dataclass(frozen=True, slots=True)
class Treatment:
    """A named edit.

    Attributes:
        name: for tables.
        interventions: without a gate, at the decision token.
    """

    name: str
    interventions: tuple[Intervention, ...]

    @property
    def hash(self) -> str:
        """Of its content."""
        return content_hash(self.interventions)

    def gated(self, gate: Gate | None) -> list[Intervention]:
        """The same edits, done where the gate is open.

        Args:
            gate: one gate for all; None for always.
        """
        return [replace(each, gate=gate) for each in self.interventions]

    def placed(
        self, where: Where, gate: Gate | None = None, rows: tuple[int, ...] | None = None
    ) -> list[Intervention]:
        """The same edits at other tokens, the gate reading at the token it decides about.

        Args:
            where: which tokens.
            gate: its `over` becomes `where`.
            rows: which rows.
        """
        if gate is not None:
            gate = replace(gate, over=where)
        return [replace(each, where=where, gate=gate, rows=rows) for each in self.interventions]

    def everywhere(self, gate: Gate | None = None) -> list[Intervention]:
        """The same edits with every token taken for a decision."""
        return self.placed(EVERYWHERE, gate)

    def to_json(self) -> dict[str, Any]:
        """The name and the interventions as records."""
        return {
            "name": self.name,
            "interventions": [each.to_json() for each in self.interventions],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Treatment":
        """The inverse of `to_json`.

        Raises:
            InterventionError: a record that cannot be read.
        """
        edits = tuple(Intervention.from_json(each) for each in record["interventions"])
        return cls(str(record["name"]), edits)


def clamp_features(name: str, values: Mapping[FeatureSite, float]) -> Treatment:
    """Give features fixed activations at the decision token."""
    edits = (Intervention(site, Clamp(value), DECISION) for site, value in values.items())
    return Treatment(name, tuple(edits))


def shift_features(name: str, amounts: Mapping[FeatureSite, float]) -> Treatment:
    """Add to features' activations at the decision token."""
    edits = (Intervention(site, Add(strength=a), DECISION) for site, a in amounts.items())
    return Treatment(name, tuple(edits))


def add_vector(
    name: str, site: AnySite, vector: Float[Tensor, " d"], strength: float = 1.0
) -> Treatment:
    """Add a vector at the decision token."""
    return Treatment(name, (Intervention(site, Add(vector, strength), DECISION),))


def project_out(name: str, sites: Sequence[AnySite], vector: Float[Tensor, " d"]) -> Treatment:
    """Remove a direction at the decision token, at several sites."""
    edits = (Intervention(site, ProjectOut(vector), DECISION) for site in sites)
    return Treatment(name, tuple(edits))


def gate_of(probe: Probe) -> Gate:
    """The gate that opens at the decision token when a probe fires there.

    Args:
        probe: one that reads the last token.

    Raises:
        InterventionError: its numbers make no gate.
    """
    return Gate(
        site=probe.site,
        vector=torch.as_tensor(probe.vector),
        bias=probe.bias,
        threshold=probe.threshold,
        over=DECISION,
    )
