"""Gates at work: whether an intervention is open at each token, from that token and earlier ones.

Shape legend: R rows of the forward, S its columns, w width of what is read.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.clock import Clock
from pellucid.interventions.selection import Prompted, Selection
from pellucid.interventions.spec import Gate
from pellucid.interventions.targets import dictionary_of, view_of, width_of
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint


class GateReader:
    """Reads a gate's site in every forward and keeps what running reductions need.

    Args:
        model: the model.
        gate: the gate.
        dictionaries: for a gate at a feature.
        clock: of the run.

    Raises:
        InterventionError: a vector is missing, superfluous or of the wrong width.
        SiteError: the model has no such site.
    """

    def __init__(
        self, model: LanguageModel, gate: Gate, dictionaries: DictionarySet | None, clock: Clock
    ) -> None:
        self.gate = gate
        self._clock = clock
        self._over = Selection()
        self._open: Bool[Tensor, "R S"] | None = None
        self._carried: tuple[Tensor, Tensor] | None = None
        site = gate.site
        self._dictionary = None
        if isinstance(site, FeatureSite):
            self._dictionary = dictionary_of(site, dictionaries)
            self._view = view_of(model, self._dictionary.read_site)
        else:
            self._view = view_of(model, site)
        if (gate.vector is None) != isinstance(site, FeatureSite):
            raise InterventionError(
                f"the gate at {site} has "
                + ("no vector; give what to read along" if gate.vector is None else "a vector")
                + ("" if gate.vector is None else "; a feature needs none")
            )
        width = None if isinstance(site, FeatureSite) else width_of(model, site)
        if gate.vector is not None and width is not None and gate.vector.shape != (width,):
            raise InterventionError(
                f"the vector of the gate at {site} has shape {tuple(gate.vector.shape)}; the site "
                f"has width {width}"
            )

    @property
    def tap(self) -> tuple[TapPoint, TapFunction]:
        """What reads the site."""
        return self._view.point, self._read

    def fill(self, prompted: Prompted, rows: list[int]) -> None:
        """Take the prompts that it opens or closes.

        Raises:
            InterventionError: no token of one of them counts.
        """
        table = prompted.table(self.gate.over, rows)
        if not table.any(axis=1).all():
            raise InterventionError(
                f"the gate at {self.gate.site} counts no token of a row; widen its `over`"
            )
        self._over.fill(prompted, [(rows, table)])

    def start(self) -> None:
        """A forward begins."""
        self._open = None
        if self._clock.restarted:
            self._carried = None

    def opened(self, rows: Tensor, columns: Tensor) -> Bool[Tensor, " n"]:
        """Whether the gate is open at some tokens of this forward.

        Raises:
            InterventionError: the gate's site has not been computed yet.
        """
        if self._open is None:
            raise InterventionError(
                f"the gate at {self.gate.site} is computed after what it gates; read it earlier"
            )
        return self._open[rows, columns]

    @torch.no_grad()
    def _read(self, value: Tensor, _: TapCall) -> None:
        x_RSw = self._view.read(value).detach()
        entries = self._over.entries(self._clock, value.device)
        counted = torch.zeros(x_RSw.shape[:2], dtype=torch.bool, device=value.device)
        if entries is not None:
            counted[entries.rows, entries.columns] = True
        if self.gate.reduce == "here":
            reading, any_counted = self._reading(x_RSw), counted
        elif self.gate.reduce == "max":
            reading, any_counted = self._running_max(self._reading(x_RSw), counted)
        else:
            reading, any_counted = self._running_mean(x_RSw, counted)
        threshold = self.gate.threshold
        passed = reading > threshold if self.gate.above else reading < threshold
        self._open = passed & any_counted

    def _reading(self, x_RSw: Float[Tensor, "R S w"]) -> Float[Tensor, "R S"]:
        gate, rows = self.gate, x_RSw.flatten(0, 1)
        if self._dictionary is not None:
            assert isinstance(gate.site, FeatureSite)
            tokens = torch.arange(len(rows), device=rows.device)
            features = torch.full_like(tokens, gate.site.feature)
            reading = self._dictionary.activations_of(rows, tokens, features)
        else:
            assert gate.vector is not None
            rows, vector = rows.float(), gate.vector.to(rows.device)
            if gate.measure == "cosine":
                reading = torch.nn.functional.cosine_similarity(rows, vector[None], dim=-1)
            else:
                reading = rows @ vector + gate.bias
        return reading.view(x_RSw.shape[:2])

    def _running_max(
        self, reading: Float[Tensor, "R S"], counted: Bool[Tensor, "R S"]
    ) -> tuple[Tensor, Tensor]:
        best = reading.masked_fill(~counted, -torch.inf)
        if self._carried is not None:
            best = torch.cat([self._carried[0][:, None], best], dim=1)
        best = best.cummax(dim=1).values[:, -reading.shape[1] :]
        self._carried = best[:, -1], best[:, -1]
        return best, best > -torch.inf

    def _running_mean(
        self, x_RSw: Float[Tensor, "R S w"], counted: Bool[Tensor, "R S"]
    ) -> tuple[Tensor, Tensor]:
        sums = (x_RSw.float() * counted[..., None]).cumsum(dim=1)
        counts = counted.float().cumsum(dim=1)
        if self._carried is not None:
            sums, counts = sums + self._carried[0][:, None], counts + self._carried[1][:, None]
        self._carried = sums[:, -1], counts[:, -1]
        mean = sums / counts.clamp_min(1)[..., None]
        return self._reading(mean.to(x_RSw.dtype)), counts > 0
