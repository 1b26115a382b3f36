"""Receipts: what an edited run really did, intervention by intervention."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.selection import Entries, Selection
from pellucid.interventions.spec import Intervention

PHASES: tuple[Literal["prefill", "decode"], ...] = ("prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReceipt:
    """What one intervention did.

    Attributes:
        site: its place, by the canonical name.
        op: its operation.
        hash: of its content.
        tokens_edited: prompt tokens (`prefill`) and generated tokens (`decode`); a token that is
            computed again (without a cache) counts again.
        by_row: the same for each row it edits, as (row, prefill, decode).
        gated_off: tokens at which its gate was closed.
        mean_relative_norm: mean of |change| / |value| over edited tokens.
    """

    site: str
    op: str
    hash: str
    tokens_edited: dict[str, int]
    by_row: tuple[tuple[int, int, int], ...]
    gated_off: int
    mean_relative_norm: float


class Tally:
    """Counts what the members of a group do; nothing waits for the device until it is read."""

    def __init__(self, interventions: Sequence[Intervention], selection: Selection) -> None:
        self.interventions = list(interventions)
        self.selection = selection
        self._edited: Float[Tensor, "P 2"] | None = None
        self._reached: Float[Tensor, " P"] | None = None
        self._ratios: Float[Tensor, " members"] | None = None

    def count(
        self,
        entries: Entries,
        old: Float[Tensor, "n d"],
        change: Float[Tensor, "n d"] | None,
        opened: Bool[Tensor, " n"] | None,
    ) -> None:
        """Add the edits of one forward.

        Args:
            entries: the tokens.
            old: values before the edit.
            change: what was added to them; None when every gate was closed.
            opened: where the gate was open; None without a gate.
        """
        with torch.no_grad():
            if self._edited is None or self._reached is None or self._ratios is None:
                pairs = len(self.selection.rows)
                self._edited = torch.zeros(pairs, 2, device=old.device)
                self._reached = torch.zeros(pairs, device=old.device)
                self._ratios = torch.zeros(len(self.interventions), device=old.device)
            done = torch.ones_like(entries.pairs, dtype=torch.float32)
            self._reached.index_add_(0, entries.pairs, done)
            done = done if opened is None else opened.float()
            if change is None:
                return
            self._edited.view(-1).index_add_(0, 2 * entries.pairs + entries.generated, done)
            ratio = change.float().norm(dim=1) / old.float().norm(dim=1).clamp_min(1e-30)
            self._ratios.index_add_(0, entries.members, ratio * done)

    def records(self) -> list[SiteReceipt]:
        """One record a member.

        Raises:
            InterventionError: a member was never reached, or edited nothing though it has no gate.
        """
        return [self._record(number, each) for number, each in enumerate(self.interventions)]

    def _record(self, number: int, intervention: Intervention) -> SiteReceipt:
        own = self.selection.members == number
        if self._edited is None or self._reached is None or self._ratios is None:
            raise _nothing(intervention)
        edited: Int[Tensor, "P 2"] = self._edited[own].long().cpu()
        reached, done = int(self._reached[own].sum()), int(edited.sum())
        if reached == 0 or (done == 0 and intervention.gate is None):
            raise _nothing(intervention)
        counts = edited.tolist()
        return SiteReceipt(
            site=str(intervention.site),
            op=intervention.op.name,
            hash=intervention.hash,
            tokens_edited=dict(zip(PHASES, edited.sum(dim=0).tolist(), strict=True)),
            by_row=tuple(
                (int(row), *each)
                for row, each in zip(self.selection.rows[own], counts, strict=True)
            ),
            gated_off=reached - done,
            mean_relative_norm=float(self._ratios[number]) / max(done, 1),
        )


class Receipt:
    """What an edited run did, readable once it has run.

    Args:
        tallies: one a group of interventions.
        order: the interventions as they were given.
    """

    def __init__(self, tallies: Sequence[Tally], order: Sequence[Intervention]) -> None:
        self._tallies = list(tallies)
        self._order = {id(each): number for number, each in enumerate(order)}

    @property
    def sites(self) -> list[SiteReceipt]:
        """One record an intervention, in the order given.

        Raises:
            InterventionError: an intervention edited nothing.
        """
        found = [
            (self._order[id(each)], record)
            for tally in self._tallies
            for each, record in zip(tally.interventions, tally.records(), strict=True)
        ]
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    @property
    def tokens_edited(self) -> int:
        """Over all interventions and phases."""
        return sum(sum(each.tokens_edited.values()) for each in self.sites)

    @property
    def mean_relative_norm(self) -> float:
        """Mean of |change| / |value| over all edited tokens."""
        records = self.sites
        counts = [sum(each.tokens_edited.values()) for each in records]
        total = sum(c * r.mean_relative_norm for c, r in zip(counts, records, strict=True))
        return total / max(sum(counts), 1)

    def to_json(self) -> dict[str, Any]:
        """The receipt as JSON-able values."""
        return {
            "sites": [asdict(each) for each in self.sites],
            "tokens_edited": self.tokens_edited,
            "mean_relative_norm": self.mean_relative_norm,
        }


def _nothing(intervention: Intervention) -> InterventionError:
    return InterventionError(
        f"the intervention {intervention.op.name} at {intervention.site} edited no token: the run "
        "never computed a token that its where-clause selects; check where, the mode, and that "
        "the edited model was run"
    )
