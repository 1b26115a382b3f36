"""Multi-hop Boolean chains over input bits, with the wires that each prompt really uses.

A chain combines two bits in its first hop, and its last value with one more bit in each later hop.
Every gate is written as its four minterms, as in a truth table, so that exactly one minterm of a
running gate is on, because of exactly the earlier minterm and the tokens that it reads. The true
graph of a prompt is therefore a set of wires without any judgement call. Each prompt runs several
chains and asks for the end of one: wires of the others are real and do not matter.
"""

from dataclasses import dataclass
from itertools import product
from random import Random

Node = tuple[str, int, int]
"""("token", position, 0), ("minterm", hop, number) or ("answer", 0, 0)."""
Wire = tuple[Node, Node]
"""A source and its target."""
ANSWER: Node = ("answer", 0, 0)
MINTERMS = 4
TABLES = tuple(
    table
    for table in product((False, True), repeat=MINTERMS)
    if sum(table) in (1, 2, 3) and table[:2] != table[2:] and table[::2] != table[1::2]
)
"""The ten truth tables, in the order 00 01 10 11, that depend on both inputs."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Bits in the order in which hops read them, two in the first, and one table a hop."""

    bits: tuple[int, ...]
    tables: tuple[tuple[bool, ...], ...]

    def read(self, hop: int) -> tuple[int, ...]:
        """The bits that a hop reads."""
        return self.bits[:2] if hop == 0 else self.bits[hop + 1 : hop + 2]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input bits, chains that run without being asked for, and the chain that is asked for."""

    bits: tuple[bool, ...]
    others: tuple[int, ...]
    query: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What a prompt's circuit does.

    Attributes:
        answer: the value at the end of the chain asked for.
        active: every minterm that is on; in the last hop only that of the chain asked for.
        wires: every wire between parts that are on, those of the other chains too.
        used: the wires on a path to the answer.
    """

    answer: bool
    active: frozenset[Node]
    wires: frozenset[Wire]
    used: frozenset[Wire]

    @property
    def used_nodes(self) -> frozenset[Node]:
        """The minterms on a path to the answer."""
        return frozenset(source for source, _ in self.used if source[0] == "minterm")


@dataclass(frozen=True, slots=True)
class Circuit:
    """Chains of equal length. A prompt is: opening token, bits, other chains, query."""

    n_bits: int
    n_others: int
    chains: tuple[Chain, ...]

    @property
    def n_hops(self) -> int:
        """Gates in a chain."""
        return len(self.chains[0].tables)

    @property
    def length(self) -> int:
        """Tokens in a prompt."""
        return self.n_bits + self.n_others + 2

    def minterms(self, prompt: Prompt, chain: int) -> list[int]:
        """Which row of its table, 2 a + b, each gate of a chain is at."""
        bits = [prompt.bits[bit] for bit in self.chains[chain].bits]
        rows, value = [], bits[0]
        for table, bit in zip(self.chains[chain].tables, bits[1:], strict=True):
            rows.append(2 * value + bit)
            value = table[rows[-1]]
        return rows

    def truth(self, prompt: Prompt) -> Truth:
        """The wires that are on, and those the answer rests on."""
        starters = {chain: 1 + self.n_bits + n for n, chain in enumerate(prompt.others)}
        starters[prompt.query] = self.length - 1
        sources: dict[Node, list[Node]] = {}
        for chain, starter in starters.items():
            asked = chain == prompt.query
            rows = self.minterms(prompt, chain)[: self.n_hops if asked else -1]
            for hop, row in enumerate(rows):
                bits = self.chains[chain].read(hop)
                read: list[Node] = [("token", 1 + bit, 0) for bit in bits]
                if hop > 0:
                    read.append(("minterm", hop - 1, MINTERMS * chain + rows[hop - 1]))
                if hop in (0, self.n_hops - 1):
                    read.append(("token", starter, 0))
                sources["minterm", hop, MINTERMS * chain + row] = read
        rows = self.minterms(prompt, prompt.query)
        last: Node = ("minterm", self.n_hops - 1, MINTERMS * prompt.query + rows[-1])
        active = frozenset(sources)
        sources[ANSWER] = [last]
        return Truth(
            answer=self.chains[prompt.query].tables[-1][rows[-1]],
            active=active,
            wires=frozenset((source, target) for target in sources for source in sources[target]),
            used=frozenset(_leading_to(ANSWER, sources)),
        )

    def draw(self, count: int, *, seed: int) -> list[Prompt]:
        """Random prompts; each chain is asked for equally often."""
        rng = Random(seed)
        prompts = []
        for number in range(count):
            query = number % len(self.chains)
            free = [chain for chain in range(len(self.chains)) if chain != query]
            bits = tuple(rng.random() < 0.5 for _ in range(self.n_bits))
            prompts.append(Prompt(bits, tuple(rng.sample(free, self.n_others)), query))
        return prompts


def _leading_to(target: Node, sources: dict[Node, list[Node]]) -> set[Wire]:
    found: set[Wire] = set()
    waiting = [target]
    while waiting:
        current = waiting.pop()
        for source in sources.get(current, []):
            if (source, current) not in found:
                found.add((source, current))
                waiting.append(source)
    return found


def random_circuit(
    *, n_bits: int = 8, n_chains: int = 6, n_hops: int = 3, n_others: int = 2, seed: int = 0
) -> Circuit:
    """Chains on random distinct bits, with random tables."""
    rng = Random(seed)
    chains = tuple(
        Chain(
            bits=tuple(rng.sample(range(n_bits), n_hops + 1)),
            tables=tuple(rng.choice(TABLES) for _ in range(n_hops)),
        )
        for _ in range(n_chains)
    )
    return Circuit(n_bits, n_others, chains)
