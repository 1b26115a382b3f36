"""The two-hop organism: a tiny model that learns `relation stateof city` through the city's state.

240 cities in 24 states, six relations of a state, every answer a word of its own. One-hop facts are
all shown; a quarter of the (city, relation) pairs and 15% of the cities never occur in a two-hop
question, so the model can only answer them by composing. What is known of its circuit: the state,
of which no token of a two-hop prompt speaks, is written at the last position by the first MLP.
`bridge_swap` checks that it is.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall

CITIES, STATES, RELATIONS = 240, 24, 6
OPEN, STATE_OF, FIRST_RELATION = 0, 1, 2
FIRST_STATE = FIRST_RELATION + RELATIONS
FIRST_CITY = FIRST_STATE + STATES
FIRST_ANSWER = FIRST_CITY + CITIES
VOCABULARY = FIRST_ANSWER + STATES * RELATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the organism is trained."""

    layers: int = 4
    width: int = 96
    heads: int = 4
    inner: int = 384
    steps: int = 500
    batch: int = 512
    rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0


def state_of(city: Tensor) -> Tensor:
    """The state of a city, both as numbers from 0."""
    return city % STATES


def answer_of(state: Tensor, relation: Tensor) -> Tensor:
    """The answer's token."""
    return FIRST_ANSWER + state * RELATIONS + relation


def is_unseen_city(city: Tensor) -> Tensor:
    """Cities (15%) that no two-hop question of the training has: one or two a state."""
    number = city // STATES
    return (number == 9) | ((number == 8) & (city % 2 == 0))


def is_unseen_pair(city: Tensor, relation: Tensor) -> Tensor:
    """Pairs (a quarter) that no two-hop question of the training has."""
    return (city + city // STATES + relation) % 4 == 0


def two_hop_ids(city: Tensor, relation: Tensor) -> Int[Tensor, "n 4"]:
    """The prompts `relation stateof city`."""
    opening = torch.full_like(city, OPEN)
    return torch.stack(
        [opening, FIRST_RELATION + relation, torch.full_like(city, STATE_OF), FIRST_CITY + city], 1
    )


def one_hop_ids(city: Tensor) -> Int[Tensor, "n 3"]:
    """The prompts `stateof city`."""
    return torch.stack(
        [torch.full_like(city, OPEN), torch.full_like(city, STATE_OF), FIRST_CITY + city], 1
    )


def build(recipe: Recipe) -> GPT2LMHeadModel:
    """The untrained model: a GPT-2 with ReLU."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=8,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        n_inner=recipe.inner,
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=OPEN,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="eager",
    )
    torch.manual_seed(recipe.seed)
    return GPT2LMHeadModel(config)


def train(recipe: Recipe) -> GPT2LMHeadModel:
    """Train on one-hop and two-hop questions; the loss is on the answer alone."""
    module = build(recipe).train()
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(recipe.steps):
        factor = min(1.0, (step + 1) / 50, 2 * (recipe.steps - step) / recipe.steps)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * factor
        ids, where, answers = training_batch(recipe.batch, generator)
        hidden = module.transformer(input_ids=ids, use_cache=False).last_hidden_state
        logits = module.lm_head(hidden[torch.arange(len(ids)), where])
        loss = cross_entropy(logits, answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def training_batch(
    count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n 4"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Prompts padded on the right, the position of the last token, and the answers.

    Equal parts: state of a city, relation of a state, relation of the state of a city.
    """

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    city, relation, state = draw(CITIES), draw(RELATIONS), draw(STATES)
    kind = torch.arange(count) % 3
    held_out = is_unseen_city(city) | is_unseen_pair(city, relation)
    kind = torch.where((kind == 2) & held_out, torch.zeros_like(kind), kind)
    ids = two_hop_ids(city, relation)
    answers = answer_of(state_of(city), relation)
    first = kind == 0
    ids[first, :3], answers[first] = one_hop_ids(city[first]), FIRST_STATE + state_of(city[first])
    second = kind == 1
    ids[second, 2] = FIRST_STATE + state[second]
    answers[second] = answer_of(state[second], relation[second])
    ids[kind < 2, 3] = OPEN
    return ids, torch.where(kind == 2, 3, 2), answers


def load_or_train(recipe: Recipe, cache: Path | None) -> LanguageModel:
    """The trained model, read from the cache if it is there and put there if not."""
    path = None if cache is None else cache / f"two_hop_{recipe.layers}_{recipe.seed}.safetensors"
    if path is not None and path.exists():
        module = build(recipe)
        module.load_state_dict(load_file(path))
    else:
        module = train(recipe)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: t.contiguous() for name, t in module.state_dict().items()}, path)
    return load_model(module)


def every_pair() -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """City and relation of every two-hop question."""
    grid = torch.cartesian_prod(torch.arange(CITIES), torch.arange(RELATIONS))
    return grid[:, 0], grid[:, 1]


@torch.no_grad()
def accuracy(model: LanguageModel) -> dict[str, float]:
    """Share of two-hop questions answered right: trained ones, unseen pairs, unseen cities."""
    city, relation = every_pair()
    predicted = model.logits(two_hop_ids(city, relation))[:, -1].argmax(-1)
    right = predicted == answer_of(state_of(city), relation)
    unseen_city, unseen_pair = is_unseen_city(city), is_unseen_pair(city, relation)
    groups = {
        "trained": ~unseen_city & ~unseen_pair,
        "unseen_pairs": ~unseen_city & unseen_pair,
        "unseen_cities": unseen_city,
    }
    return {name: float(right[rows].float().mean()) for name, rows in groups.items()}


@torch.no_grad()
def bridge_swap(model: LanguageModel, *, seed: int = 0) -> dict[str, float]:
    """What becomes of two-hop answers when the first MLP's output at the city is another city's.

    The donor asks another relation of the other city, and the city's own embedding stays as it is.
    So where the answer follows the other city's state, the first MLP at the last position wrote the
    state, and later blocks read it from there.

    Returns:
        swap_other_state: share that becomes the asked relation of the donor's state.
        swap_same_state: share that changes at all when the donor is of the same state (control).
    """
    city, relation = every_pair()
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, city.shape, generator=generator)

    asked = (relation + draw(1, RELATIONS)) % RELATIONS
    other = (city + draw(1, STATES)) % CITIES
    same = (city + STATES * draw(1, CITIES // STATES)) % CITIES
    right = answer_of(state_of(city), relation)
    moved = _with_first_mlp(model, two_hop_ids(city, relation), two_hop_ids(other, asked))
    kept = _with_first_mlp(model, two_hop_ids(city, relation), two_hop_ids(same, asked))
    hit = moved == answer_of(state_of(other), relation)
    return {
        "swap_other_state": float(hit.float().mean()),
        "swap_same_state": float((kept != right).float().mean()),
    }


def _with_first_mlp(model: LanguageModel, ids: Tensor, donors: Tensor) -> Int[Tensor, " n"]:
    """Answers when the first MLP's output at the last position is that of the donors."""
    site = Site("mlp_out", 0)
    donor: Float[Tensor, "n d"] = model.activations(donors, [site])[site][:, -1]

    def patch(value: Tensor, _call: TapCall) -> Tensor:
        changed = value.clone()
        changed[:, -1] = donor
        return changed

    with model.tapped([(site, patch)]):
        return model.logits(ids)[:, -1].argmax(-1)
