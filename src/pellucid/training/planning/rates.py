"""How long the parts of a training take, and from them how long the whole of it takes."""

from dataclasses import dataclass

from pellucid.distributed.layout import Layout
from pellucid.training.planning.hardware import GB, Hardware
from pellucid.training.planning.shape import DictionaryShape, Share, Training

_FLOAT = 4
_ADAM_PASSES = 7  # weight, gradient and two moments read, all but the gradient written
_PAIR_PASSES = 3  # rows of a pair that decoding and both gradients read


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds of the parts of a training in one process that does all of it.

    Attributes:
        harvest: a token: reading text and running the model.
        batch: a token: drawing it from the buffer.
        step: an update of one dictionary (all, of a cross-layer transcoder), however many tokens.
        token: what each token adds to that.
        store: a token written to a cache; None without one.
        read: a token read from it.
        link: bytes a second that a process exchanges with others.
    """

    harvest: float
    batch: float
    step: float
    token: float
    store: float | None = None
    read: float | None = None
    link: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Seconds of a training under a layout.

    Attributes:
        harvesting: reading text and running the model, or reading the cache.
        stepping: batches and updates.
        exchanging: waiting for other processes' numbers.
        caching: harvesting and storing beforehand, by one process.
    """

    harvesting: float
    stepping: float
    exchanging: float
    caching: float

    @property
    def training(self) -> float:
        """Without the cache's making: what `tokens_per_second` of a run is about."""
        return self.harvesting + self.stepping + self.exchanging

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.caching


def stated_rates(training: Training, hardware: Hardware) -> Rates:
    """Rates from arithmetic: matrix products at a share of the peak, the rest at memory's speed.

    Args:
        training: what is trained.
        hardware: what one process has.
    """
    share = training.share(Layout())
    operations = hardware.tflops * 1e12 * hardware.efficiency
    speed = hardware.bandwidth * GB
    groups = share.groups(training.config.kind)
    updates = [_update(training, group) for group in groups]
    fixed = sum(weights * _ADAM_PASSES * _FLOAT for weights, _, _ in updates) / len(groups)
    dense = sum(flops for _, flops, _ in updates) / len(groups)
    sparse = sum(values for _, _, values in updates) / len(groups)
    stored = None if training.cache is None else 2 * share.width * _FLOAT / speed
    return Rates(
        harvest=training.model.flops / operations,
        batch=2 * share.width * _FLOAT / speed,
        step=fixed / speed,
        token=dense / operations + sparse * _FLOAT / speed,
        store=stored,
        read=stored,
        link=hardware.link * GB,
    )


def _update(training: Training, group: list[DictionaryShape]) -> tuple[int, float, float]:
    """Of one update: weights, and a token's operations in products and values moved for pairs."""
    config = training.config
    weights, flops, moved = 0, 0.0, 0.0
    for shape in group:
        aux = config.aux_k or max(1, shape.d_out // 2)
        weights += sum(shape.values(config).values())
        flops += 2 * shape.d_in * shape.features
        moved += 2 * shape.features  # pre-activations written and searched
        moved += _PAIR_PASSES * (config.k + aux) * (shape.d_in + shape.written)
    return weights, flops, moved


def duration(training: Training, rates: Rates, layout: Layout) -> Duration:
    """How long a training takes under a layout.

    Text is read once for every process of `data`; processes that share it by layers or features
    each run the model on all of it. Adam goes over all weights that a process has, at every step.

    Args:
        training: what is trained.
        rates: of one process that does all of it.
        layout: of the processes.
    """
    share = training.share(layout)
    steps, tokens = training.plan.total_steps, training.plan.harvested_tokens
    groups = len(share.groups(training.config.kind))
    every = training.share(Layout()).width
    update = (rates.step + rates.token * share.batch) / layout.features
    batch = rates.batch * share.batch * share.width / every
    harvest, caching = rates.harvest / layout.data, 0.0
    if rates.read is not None and rates.store is not None:
        caching = (rates.harvest + rates.store) * tokens
        harvest = rates.read * share.width / every / layout.data
    return Duration(
        harvesting=harvest * tokens,
        stepping=(groups * update + batch) * steps,
        exchanging=exchanged_bytes(training, share) / rates.link * steps,
        caching=caching,
    )


def exchanged_bytes(training: Training, share: Share) -> float:
    """What a process sends in a step: gradients of its weights, and what features write together.

    Rings: of n processes each sends 2 (n - 1) / n of what is summed.
    """
    config, layout = training.config, share.layout
    around = {n: 2 * (n - 1) / n for n in (layout.data, layout.features)}
    values = sum(sum(each.values(config).values()) for each in share.dictionaries)
    sent = around[layout.data] * values
    if layout.features > 1:
        written = sum(each.d_out for each in share.dictionaries) * (len(config.prefixes) + 2)
        aux = sum(config.aux_k or max(1, each.d_out // 2) for each in share.dictionaries)
        candidates = config.k * len(share.dictionaries) + aux
        sent += around[layout.features] * share.batch * written
        sent += (layout.features - 1) * share.batch * candidates
    return sent * _FLOAT
