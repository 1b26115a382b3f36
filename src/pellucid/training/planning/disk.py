"""What a training writes: checkpoints, the finished dictionaries, a cache of activations."""

from pellucid.harvest.cache.space import bytes_a_token
from pellucid.training.planning.shape import Training
from pellucid.training.run_checkpoint import KEPT_CHECKPOINTS

_LEARNT_THRESHOLDS = ("batchtopk", "jumprelu")  # saved with a threshold a feature


def parameters(training: Training) -> int:
    """Values that are trained, of all dictionaries."""
    return sum(
        sum(training.dictionary(layer).values(training.config).values())
        for layer in training.plan.sites
    )


def dictionary_bytes(training: Training, *, value_bytes: int = 4) -> int:
    """The finished dictionaries.

    Args:
        training: what is trained.
        value_bytes: of a stored value: 4, or 2 with `--store float16`.
    """
    values = 0
    for layer in training.plan.sites:
        shape = training.dictionary(layer)
        counts = shape.values(training.config)
        if training.config.activation in _LEARNT_THRESHOLDS:
            counts["threshold"] = shape.features
        values += sum(counts.values())
    return values * value_bytes


def checkpoint_bytes(training: Training) -> int:
    """One checkpoint: parameters, both moments, the running mean if there is one, counters."""
    copies = 3 if training.config.average is None else 4
    idle = sum(8 * training.dictionary(layer).features for layer in training.plan.sites)
    return copies * 4 * parameters(training) + idle


def run_bytes(training: Training) -> int:
    """The most that the run's own folder holds: checkpoints that are kept and one being written.

    The finished dictionaries are written before the checkpoints are deleted, and are smaller.
    """
    return (KEPT_CHECKPOINTS + 1) * checkpoint_bytes(training)


def cache_bytes(training: Training) -> int:
    """The cache of all activations that the run trains on; 0 without one."""
    if training.cache is None:
        return 0
    a_token = bytes_a_token(training.widths.values(), training.cache)
    return a_token * training.plan.harvested_tokens
