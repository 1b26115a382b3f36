"""Edited forwards: the context manager that everything else uses, and runs of whole prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.places import FeatureSite, Place, parse_place
from pellucid.core.types import SITE_KINDS, Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.operations import Custom
from pellucid.interventions.plan import Plan
from pellucid.interventions.prompts import Batch, Prompts, as_batch
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.spec import Intervention
from pellucid.interventions.targets import view_of
from pellucid.interventions.where import Where
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint, watched


@contextmanager
def edit(
    model: LanguageModel,
    interventions: Sequence[Intervention],
    *,
    dictionaries: DictionarySet | None = None,
    batch: Batch | None = None,
    new_tokens: int | None = None,
    until: Sequence[int] | None = None,
) -> Iterator[Receipt]:
    """Edit every forward of this thread inside the context; nothing is left behind after it.

    Args:
        model: the model; its `forward`, its module called directly, `generate` of the module.
        interventions: the edits, applied in this order where they meet.
        dictionaries: of the features they name.
        batch: the prompts. None: each forward from the beginning of a sequence brings its own.
        new_tokens: the most tokens that follow a prompt; None for as many as the context holds.
        until: for each prompt, the first position that no edit may touch; None for no limit.

    Yields:
        The receipt, complete when the context ends.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: an intervention that is malformed, contradicts another, or (when the
            context ends) edited nothing.
    """
    plan = Plan(
        model,
        interventions,
        dictionaries=dictionaries,
        batch=batch,
        new_tokens=new_tokens,
        until=until,
    )
    with watched(model.module, plan.tick, plan.finish), model.tapped(plan.taps):
        yield plan.receipt
    _ = plan.receipt.sites


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One edited forward.

    Attributes:
        logits: next-token logits; at padding they mean nothing.
        batch: the prompts as they were run.
        receipt: what was edited.
    """

    logits: Float[Tensor, "B S V"]
    batch: Batch
    receipt: Receipt

    @property
    def last(self) -> Float[Tensor, "B V"]:
        """The logits after each prompt's last token."""
        ends = self.batch.positions.argmax(dim=1)
        return self.logits[torch.arange(len(ends), device=ends.device), ends]


def run(
    model: LanguageModel,
    prompts: Prompts,
    interventions: Sequence[Intervention] = (),
    *,
    dictionaries: DictionarySet | None = None,
    mask: Bool[Tensor, "B S"] | None = None,
) -> Run:
    """One forward of some prompts under interventions; gradients flow through it.

    Args:
        model: the model.
        prompts: texts, ids row by row, or a tensor of ids.
        interventions: the edits.
        dictionaries: of the features they name.
        mask: with a tensor of ids, True at real tokens.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: an intervention is malformed, contradicts another or edited nothing.
        PromptError: a prompt that the model cannot be asked.
    """
    batch = as_batch(model, prompts, mask, left=False)
    with edit(
        model, interventions, dictionaries=dictionaries, batch=batch, new_tokens=0
    ) as receipt:
        logits = model.logits(batch.ids, batch.mask)
    return Run(logits, batch, receipt)


def run_with_cache(
    model: LanguageModel,
    prompts: Prompts,
    places: Sequence[str | Place] | Callable[[str], bool] | None = None,
    interventions: Sequence[Intervention] = (),
    *,
    dictionaries: DictionarySet | None = None,
) -> tuple[Run, dict[str, Float[Tensor, "B S d"]]]:
    """An edited forward, and the values at some places as the edits left them.

    Args:
        model: the model.
        prompts: as in `run`.
        places: names in any spelling, or a filter of canonical names; None for every site.
        interventions: the edits.
        dictionaries: of the features they name.

    Returns:
        The run, and values by the names as given.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: as in `run`.
    """
    names = _every_site(model) if places is None or callable(places) else list(places)
    if callable(places):
        names = [name for name in names if places(str(name))]
    cache: dict[str, Tensor] = {}
    reads = [_reader(model, name, cache) for name in names]
    batch = as_batch(model, prompts, left=False)
    with (
        edit(model, interventions, dictionaries=dictionaries, batch=batch, new_tokens=0) as receipt,
        model.tapped(reads),
    ):
        logits = model.logits(batch.ids, batch.mask)
    return Run(logits, batch, receipt), cache


def run_with_hooks(
    model: LanguageModel,
    prompts: Prompts,
    hooks: Sequence[tuple[str | Place, Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]]],
    where: Where | None = None,
) -> Run:
    """A forward in which functions replace values; each is given those of all real tokens.

    Args:
        model: the model.
        prompts: as in `run`.
        hooks: places, and functions from values [n, d] to new values [n, d].
        where: which tokens; None for all, the special first one included.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: a function gives another shape.
    """
    everything = Where(windows=((0, None),)) if where is None else where
    edits = [
        Intervention(
            parse_place(place) if isinstance(place, str) else place,
            Custom(getattr(function, "__name__", "hook"), function),
            everything,
        )
        for place, function in hooks
    ]
    return run(model, prompts, edits)


def _every_site(model: LanguageModel) -> list[str | Place]:
    spec = model.spec
    kinds = [kind for kind in SITE_KINDS if kind != "embed"]
    if spec is not None and spec.parallel:
        kinds.remove("resid_mid")
    return [Site("embed"), *(Site(kind, n) for n in range(model.n_layers) for kind in kinds)]


def _reader(
    model: LanguageModel, name: str | Place, cache: dict[str, Tensor]
) -> tuple[TapPoint, TapFunction]:
    place = parse_place(name) if isinstance(name, str) else name
    if isinstance(place, FeatureSite):
        place = Site("mlp_in", place.layer)
    view = view_of(model, place)

    def keep(value: Tensor, _: TapCall) -> None:
        cache[str(name)] = view.read(value)

    return view.point, keep
