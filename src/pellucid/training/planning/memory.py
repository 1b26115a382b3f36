"""The memory of a training process, row by row: each function is one thing that memory is for.

Rows add up to what a process holds while it trains. Moments before and after training may need more
than that; they are beside it. What the allocator keeps of a moment's memory is often used again and
often not, so workspaces that follow each other are added up rather than the largest taken:
`benchmarks/planning.py` compares the sums with the peaks of real runs.
"""

from dataclasses import dataclass

from pellucid.distributed.layout import Layout
from pellucid.harvest.cache.reading import CHUNK_TOKENS
from pellucid.harvest.cache.space import bytes_a_token
from pellucid.harvest.cache.writing import SHARD_BYTES
from pellucid.training.encoding import BLOCK_BYTES, GPU_BLOCK_BYTES
from pellucid.training.planning.shape import DictionaryShape, Share, Training
from pellucid.training.update import GPU_GRADIENT_BYTES, ROWS_AT_ONCE

MB = 2**20
LIBRARIES = 520 * MB
"""Python, torch, transformers and the rest, a model having been loaded and checked (measured)."""
CUDA = 600 * MB
"""What CUDA and its libraries take of a GPU (an assumption: no GPU was at hand)."""

_FLOAT, _INT = 4, 8
_CODE_BYTES = 3 * (_FLOAT + _INT)  # candidates of blocks, joined, and converted
_PAIR_BYTES = 72  # an active (token, feature) pair while pairs are sorted by feature
_BLOCK_COPIES = 2.3  # pre-activations, those of dead features, and the largest of groups of both
_CANDIDATES = {"topk": 1, "batchtopk": 4, "jumprelu": 8, "relu": 8}  # a token, in units of k
_WRITTEN_COPIES = 2  # of the state while several processes write a checkpoint (measured)
_SHARD_COPIES = 3  # blocks, joined, serialised


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one process needs, in bytes.

    Attributes:
        rows: what it holds while it trains, by what it is for.
        moments: what it holds at other moments that might need more.
    """

    rows: dict[str, int]
    moments: dict[str, int]

    @property
    def training(self) -> int:
        """The rows together."""
        return sum(self.rows.values())

    @property
    def peak(self) -> int:
        """The most that is held at any moment."""
        return max(self.training, *self.moments.values())


def process_memory(training: Training, layout: Layout, *, gpu: bool = False) -> Memory:
    """The memory of the process that needs most.

    Args:
        training: what is trained.
        layout: how processes share it.
        gpu: whether it is the memory of a GPU.
    """
    share = training.share(layout)
    lasting = {
        "Python and libraries" if not gpu else "CUDA and libraries": CUDA if gpu else LIBRARIES,
        "the model": training.model.bytes,
    }
    state = state_rows(training, share)
    harvest = {
        "shuffle buffer": buffer_bytes(training, share),
        "a block being harvested": block_bytes(training, share),
        "forward pass of the model": forward_bytes(training, share),
    }
    step = {
        "a batch": share.batch * share.width * _FLOAT,
        "a step": step_bytes(training, share, gpu),
    }
    held = sum(lasting.values()) + sum(harvest.values())
    moments = {"start": held + start_bytes(training, share, gpu)}
    if layout.processes > 1 and not gpu:
        moments["a checkpoint"] = held + (1 + _WRITTEN_COPIES) * sum(state.values())
    moments["end"] = sum(lasting.values()) + end_bytes(training, layout)
    if training.cache is not None:
        moments["writing the cache"] = sum(lasting.values()) + caching_bytes(training)
    return Memory(rows={**lasting, **state, **harvest, **step}, moments=moments)


def state_rows(training: Training, share: Share) -> dict[str, int]:
    """What a step changes (see `TrainState`)."""
    config = training.config
    values = sum(sum(each.values(config).values()) for each in share.dictionaries)
    features = sum(each.features for each in share.dictionaries)
    encoders = sum(each.features * each.d_in for each in share.dictionaries)
    rows = {"parameters": values * _FLOAT, "Adam's moments": 2 * values * _FLOAT}
    if config.average is not None:
        rows["running mean of the weights"] = values * _FLOAT
    if config.precision == "bfloat16":
        rows["encoders in bfloat16"] = encoders * 2
    rows["idle counters"] = features * _INT
    return rows


def buffer_bytes(training: Training, share: Share) -> int:
    """The shuffle buffer: activations and ids of all the tokens of a fill, and their order."""
    tokens = training.plan.fill_batches * share.batch
    return tokens * (share.width * _FLOAT + 2 * _INT)


def block_bytes(training: Training, share: Share) -> int:
    """Consecutive tokens' activations on their way into the buffer."""
    tokens = training.block_tokens
    if training.shuffled:
        tokens = CHUNK_TOKENS
    return tokens * share.width * _FLOAT


def forward_bytes(training: Training, share: Share) -> int:
    """One forward pass: sites as the model gives them and picked out, scores, an MLP's inside."""
    model, positions = training.model, training.pass_tokens
    length = training.plan.harvest.context_length
    scores = 3 * model.heads * length
    return positions * (2 * share.width + scores + 3 * model.inner) * _FLOAT


def step_bytes(training: Training, share: Share, gpu: bool) -> int:
    """The workspace of the largest update, dead features taking part."""
    groups = share.groups(training.config.kind)
    return max(_group_bytes(training, share, group, gpu) for group in groups)


def _group_bytes(training: Training, share: Share, group: list[DictionaryShape], gpu: bool) -> int:
    config, tokens = training.config, share.batch
    widest = max(group, key=lambda each: each.written)
    parts = len(config.prefixes) + 1
    read = sum(each.d_in for each in group) * (2 if config.kind == "sae" else 1)
    output = sum(each.d_out for each in group)
    own = widest.written
    # The output and, by part of the features, error and gradient; gradients below each other; of
    # dead features what they decode to and their gradient.
    matrices = read + output * ((2 if len(group) > 1 else 1) + 1 + 2 * parts) + own * (parts + 3)
    aux = min(config.aux_k or max(1, widest.d_out // 2), widest.features)
    found = _CANDIDATES[config.activation] * config.k + aux
    codes = tokens * found * (_CODE_BYTES + (len(group) - 1) * (_FLOAT + _INT))
    pairs = tokens * (config.k * (2 if config.activation == "jumprelu" else 1) + aux) * _PAIR_BYTES
    gathered = tokens * found * _FLOAT * (share.layout.features * share.layout.data - 1)
    return (
        tokens * matrices * _FLOAT
        + _encoding_bytes(config.precision == "bfloat16", widest, tokens, gpu)
        + codes
        + pairs
        + gathered
        + _gradient_bytes(widest, gpu)
    )


def _encoding_bytes(reduced: bool, shape: DictionaryShape, tokens: int, gpu: bool) -> int:
    """Dense pre-activations of a block of tokens; in bfloat16 a product's own copy of W_enc."""
    size = 2 if reduced else _FLOAT
    row = shape.features * size
    block = min(tokens, max(1, (GPU_BLOCK_BYTES if gpu else BLOCK_BYTES) // row)) * row
    return int(_BLOCK_COPIES * block) + (2 * shape.features * shape.d_in if reduced else 0)


def _gradient_bytes(shape: DictionaryShape, gpu: bool) -> int:
    """Gradients of a block of rows, and as much again on the way to Adam."""
    row = (shape.d_in + shape.written) * _FLOAT
    rows = max(1, GPU_GRADIENT_BYTES // row) if gpu else ROWS_AT_ONCE
    return 2 * min(rows, shape.features) * row


def start_bytes(training: Training, share: Share, gpu: bool) -> int:
    """Drawing the initial parameters: every process draws those of all features, on the CPU.

    Moments are still pages of zeros that take no memory.
    """
    config = training.config
    values = sum(sum(each.values(config).values()) for each in share.dictionaries)
    if gpu:
        return 3 * values * _FLOAT
    whole = training.dictionary(share.layers[0])
    drawn = max(whole.d_in, whole.written if config.decoder_norm == "unit" else 0)
    return values * _FLOAT + 2 * whole.features * drawn * _FLOAT


def end_bytes(training: Training, layout: Layout) -> int:
    """The first process measures whole dictionaries of all layers, put together one by one."""
    shapes = [training.dictionary(layer) for layer in training.plan.sites]
    sizes = [sum(each.values(training.config).values()) * _FLOAT for each in shapes]
    states = 3 if training.config.average is None else 4
    together = states * max(sizes) if layout.processes > 1 else 0
    alone = training.share(Layout())
    measuring = block_bytes(training, alone) + forward_bytes(training, alone)
    batch = alone.batch * alone.width * _FLOAT
    return sum(sizes) + max(together, measuring + 3 * batch)


def caching_bytes(training: Training) -> int:
    """Writing a cache: a block, a forward pass, and a shard that is joined and serialised."""
    alone = training.share(Layout())
    assert training.cache is not None
    stored = training.block_tokens * bytes_a_token(training.widths.values(), training.cache)
    block = training.block_tokens * alone.width * _FLOAT
    return block + forward_bytes(training, alone) + _SHARD_COPIES * (SHARD_BYTES + stored)
