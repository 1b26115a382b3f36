"""Boolean chains compiled by hand into a GPT-2: one hop a layer, one minterm a neuron.

The first attention gathers bits and running chains at the last position, one head a token; every
later attention writes nothing. A minterm is one ReLU neuron: 2 (a + b) - 3, or 2 (a + b + c) - 5
where a gate also needs its chain to run or to be asked for, is 1 where all that it reads holds and
negative elsewhere. It writes its gate's value on one of two directions ("rails"), true or false.
LayerNorm is neutralised by an epsilon of 1e8, undone by the gain; all directions sum to zero, so
that centring changes nothing. Directions overlap a little (superposition), so that wires that are
not there have small weights too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.ground_truth.boolean_circuit import MINTERMS, Circuit, Prompt
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel

OPEN, ZERO, ONE, FIRST_OTHER = range(4)
NORM_EPSILON = 1e8
ATTENTION_SHARPNESS = 40.0
LOGIT_GAIN = 10.0
HEAD_WIDTH = 8


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """The model and what it computes.

    Attributes:
        model: the language model; neuron 4 c + m of layer h is minterm m of chain c in hop h.
        circuit: the circuit.
        rails: directions of the values of a hop (but the last): chain, value, width.
    """

    model: LanguageModel
    circuit: Circuit
    rails: tuple[Float[Tensor, "chains 2 d"], ...]

    def tokens(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens."""
        bits = [ONE if bit else ZERO for bit in prompt.bits]
        others = [FIRST_OTHER + chain for chain in prompt.others]
        return [OPEN, *bits, *others, FIRST_OTHER + len(self.circuit.chains) + prompt.query]

    def ids(self, prompts: Sequence[Prompt]) -> Int[Tensor, "n S"]:
        """The tokens of several prompts."""
        return torch.tensor([self.tokens(prompt) for prompt in prompts])

    def answer_token(self, value: bool) -> int:
        """The token that says true or false."""
        return FIRST_OTHER + 2 * len(self.circuit.chains) + int(value)


def compile_circuit(circuit: Circuit, *, overlap: float = 0.005, seed: int = 0) -> CompiledModel:
    """The model of a circuit.

    Args:
        circuit: what to compute.
        overlap: standard deviation of the cosine between two directions.
        seed: of the directions.

    Raises:
        ValueError: the circuit needs more directions than the model is wide.
    """
    chains, last = len(circuit.chains), circuit.n_hops - 1
    width = HEAD_WIDTH * (circuit.n_bits + circuit.n_others)
    sizes = {
        "bit": 2,
        "other": chains,
        "position": circuit.length,
        "gathered": 2 * circuit.n_bits,
        "running": chains,
        "query": chains,
        "answer": 2,
        **{f"hop{hop}": 2 * chains for hop in range(last)},
    }
    drawn = _directions(sum(sizes.values()), width, overlap=overlap, seed=seed)
    named = dict(zip(sizes, drawn.split(list(sizes.values())), strict=True))
    module = _blank_module(circuit, width)
    with torch.no_grad():
        _write_embeddings(module, circuit, named)
        _write_gathering(module, circuit, named)
        for hop in range(circuit.n_hops):
            _write_hop(module, circuit, named, hop)
        module.lm_head.weight[-2:] = LOGIT_GAIN * named["answer"]
    rails = tuple(named[f"hop{hop}"].unflatten(0, (-1, 2)) for hop in range(last))
    return CompiledModel(load_model(module), circuit, rails)


def _directions(count: int, width: int, *, overlap: float, seed: int) -> Float[Tensor, "n d"]:
    """Unit vectors that sum to zero and have small random cosines."""
    if count > width - 1:
        raise ValueError(f"{count} directions do not fit a width of {width}; use fewer chains")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(width, width, generator=generator, dtype=torch.float64)
    noise[:, 0] = 1.0
    frame = torch.linalg.qr(noise).Q[:, 1 : count + 1].T
    moved = torch.randn(count, width, generator=generator, dtype=torch.float64)
    moved -= moved.mean(dim=1, keepdim=True)
    vectors = frame + overlap / 2**0.5 * moved
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def _blank_module(circuit: Circuit, width: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=FIRST_OTHER + 2 * len(circuit.chains) + 2,
        n_positions=circuit.length,
        n_embd=width,
        n_layer=circuit.n_hops,
        n_head=width // HEAD_WIDTH,
        n_inner=MINTERMS * len(circuit.chains),
        activation_function="relu",
        layer_norm_epsilon=NORM_EPSILON,
        tie_word_embeddings=False,
        bos_token_id=OPEN,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="eager",
    )
    module = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            is_gain = "ln_" in name and name.endswith("weight")
            parameter.fill_(NORM_EPSILON**0.5 if is_gain else 0.0)
    return module


def _write_embeddings(module: GPT2LMHeadModel, circuit: Circuit, named: dict[str, Tensor]) -> None:
    words, chains = module.transformer.wte.weight, len(circuit.chains)
    words[[ZERO, ONE]] = named["bit"]
    words[FIRST_OTHER : FIRST_OTHER + chains] = named["other"]
    words[FIRST_OTHER + chains : FIRST_OTHER + 2 * chains] = named["query"] + named["running"]
    module.transformer.wpe.weight.copy_(named["position"])


def _write_gathering(module: GPT2LMHeadModel, circuit: Circuit, named: dict[str, Tensor]) -> None:
    """Head n of the first block: from the last position to token 1 + n, from elsewhere to token 0.

    The heads of bits copy the bit to directions of its own, the others which chain runs.
    """
    attention, position = module.transformer.h[0].attn, named["position"]
    width, sharpness = module.config.n_embd, ATTENTION_SHARPNESS * HEAD_WIDTH**0.5
    for head in range(circuit.n_bits + circuit.n_others):
        q, k, v = (part * width + head * HEAD_WIDTH for part in range(3))
        weight = attention.c_attn.weight
        weight[:, q] = sharpness * position[-1]
        weight[:, q + 1] = sharpness * position[:-1].sum(0)
        weight[:, k] = position[1 + head]
        weight[:, k + 1] = position[0]
        is_bit = head < circuit.n_bits
        read = named["bit" if is_bit else "other"]
        write = named["gathered"][2 * head : 2 * head + 2] if is_bit else named["running"]
        weight[:, v : v + len(read)] = read.T
        attention.c_proj.weight[head * HEAD_WIDTH :][: len(read)] = write


def _write_hop(
    module: GPT2LMHeadModel, circuit: Circuit, named: dict[str, Tensor], hop: int
) -> None:
    """The neurons of one hop."""
    mlp, is_last = module.transformer.h[hop].mlp, hop == circuit.n_hops - 1
    write = named["answer" if is_last else f"hop{hop}"]
    for number, chain in enumerate(circuit.chains):
        for minterm in range(MINTERMS):
            literals = (minterm >> 1, minterm & 1)[-len(chain.read(hop)) :]
            bits = [2 * bit + value for bit, value in zip(chain.read(hop), literals, strict=True)]
            reads = [named["gathered"][bits]]
            if hop == 0:
                reads.append(named["running"][[number]])
            else:
                reads.append(named[f"hop{hop - 1}"][[2 * number + (minterm >> 1)]])
            if is_last:
                reads.append(named["query"][[number]])
            rows = torch.cat(reads)
            neuron = MINTERMS * number + minterm
            mlp.c_fc.weight[:, neuron] = 2 * rows.sum(0)
            mlp.c_fc.bias[neuron] = 1.0 - 2 * len(rows)
            value = int(chain.tables[hop][minterm])
            mlp.c_proj.weight[neuron] = write[value if is_last else 2 * number + value]
