"""Where the effects of an intervention are read: logits, and directions at a site."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.freeze import Taps
from pellucid.replacement.local import LocalReplacement


@dataclass(frozen=True, slots=True)
class LogitProbe:
    """A token's logit less that of another, or less the mean logit; before any softcap."""

    token: int
    other: int | None = None
    position: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class SiteProbe:
    """The product of a site's value at a position with a direction.

    With a feature's encoder row at what it reads, this is its pre-activation less a constant.
    """

    site: Site
    position: int
    direction: Float[Tensor, " d"]


Probe = LogitProbe | SiteProbe


class Reader:
    """Taps that keep what the probes read in one forward pass, and the readings of that pass.

    `site_taps` belong before every other tap, so that they read a residual before it is held or
    changed; `logit_taps` after.
    """

    def __init__(self, local: LocalReplacement, probes: Sequence[Probe]) -> None:
        self._probes, self._kept = probes, dict[str, Tensor]()

        def keeper(name: str) -> TapFunction:
            def keep(value: Tensor, _call: TapCall) -> None:
                self._kept[name] = value

            return keep

        sites = {str(probe.site): probe.site for probe in probes if isinstance(probe, SiteProbe)}
        self.site_taps: Taps = [(site, keeper(name)) for name, site in sites.items()]
        self.logit_taps: Taps = [(local.run.model.unembedding_point(), keeper("logits"))]

    def readings(self) -> Float[Tensor, "B P"]:
        """The value at every probe."""
        return torch.stack([self._reading(probe) for probe in self._probes], dim=1)

    def _reading(self, probe: Probe) -> Float[Tensor, " B"]:
        if isinstance(probe, SiteProbe):
            value = self._kept[str(probe.site)][:, probe.position]
            return value @ probe.direction.to(value.dtype)
        logits = self._kept["logits"][:, probe.position]
        other = logits.mean(dim=1) if probe.other is None else logits[:, probe.other]
        return logits[:, probe.token] - other
