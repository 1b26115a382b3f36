"""Every baseline: the competitors that a graph must beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pellucid.core.registry import Registry
from pellucid.verification.methods.attention_probe import AttentionProbe
from pellucid.verification.methods.boosting import boosting
from pellucid.verification.methods.features import Bag, Columns, Features, beginning_with
from pellucid.verification.methods.free import FreeScore
from pellucid.verification.methods.learned import Estimator, Learned
from pellucid.verification.methods.logistic import logistic
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.probes import Probe
from pellucid.verification.methods.stacked import Stacked
from pellucid.verification.methods.text import Structure, Words
from pellucid.verification.reading.confidence import ANSWER, CONFIDENCE, TEMPERATURES
from pellucid.verification.reading.embedding_chain import EMBEDDING_CHAIN

FREE = "free."
"""What the names of columns of free scores begin with."""
SURE = [f"{FREE}{scope}{name}" for scope in ("", ANSWER) for name in CONFIDENCE]
MOVING = [FREE + name for name in EMBEDDING_CHAIN]

_CRV = "Zhao et al. 2025, arXiv 2510.09312"
_COE = "Wang et al. 2024, arXiv 2410.13640"
_OURS = "ours"
_ASKED = "asked for by reviewers of CRV"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One competitor.

    Attributes:
        make: a new, unfitted method.
        rung: what it may look at.
        says: what it does, in one line.
        source: where it comes from.
    """

    make: Callable[[], Method]
    rung: Rung
    says: str
    source: str


def _free(
    name: str, columns: list[str], says: str, source: str, rung: Rung = "confidence"
) -> tuple[str, Baseline]:
    return name, Baseline(
        make=lambda: FreeScore(name, [FREE + each for each in columns], rung),
        rung=rung,
        says=says,
        source=source,
    )


def _temperatures(name: str) -> list[str]:
    return [f"{name}_t{each:g}" for each in TEMPERATURES if f"{name}_t{each:g}" in CONFIDENCE]


_STEP = [
    _free("max-prob", ["max_prob"], "1 - mean largest probability", _CRV),
    _free("worst-max-prob", ["worst_max_prob"], "1 - least largest probability", _OURS),
    _free("perplexity", ["max_perplexity"], "mean -log largest probability", _CRV),
    _free("token-perplexity", ["perplexity"], "mean -log probability of the token written", _CRV),
    _free("least-token", ["least_token"], "largest -log probability of a token written", _OURS),
    _free("entropy", ["entropy"], "mean entropy of the next token", _CRV),
    _free("max-entropy", ["max_entropy"], "largest entropy of a next token", _OURS),
    _free("margin", ["margin"], "mean gap between the two largest probabilities", _OURS),
    _free("least-margin", ["least_margin"], "smallest gap between them", _OURS),
    _free(
        "temperature",
        ["max_prob", *_temperatures("max_prob")],
        "MaxProb at a temperature chosen in training",
        "Guo et al. 2017, arXiv 1706.04599",
    ),
    _free(
        "energy",
        _temperatures("energy"),
        "-T logsumexp(z / T), T chosen in training",
        "Liu et al. 2020, arXiv 2010.03759",
    ),
]
_ANSWER = [
    _free(f"answer-{name}", [ANSWER + each for each in columns], f"{says}, answer's tokens", _OURS)
    for name, columns, says in (
        ("max-prob", ["max_prob"], "1 - mean largest probability"),
        ("perplexity", ["perplexity"], "mean -log probability of the token written"),
        ("entropy", ["entropy"], "mean entropy of the next token"),
        ("margin", ["margin"], "mean gap between the two largest probabilities"),
        (
            "temperature",
            ["max_prob", *_temperatures("max_prob")],
            "MaxProb at a temperature chosen in training",
        ),
        ("energy", _temperatures("energy"), "-T logsumexp(z / T), T chosen in training"),
    )
]
_CHAINS = [
    _free("coe-r", ["coe_r"], "Chain-of-Embedding, real form", _COE, "hidden"),
    _free("coe-c", ["coe_c"], "Chain-of-Embedding, complex form", _COE, "hidden"),
    _free(
        "cot-kinetics",
        ["kinetics_momentum", "kinetics_curvature", "kinetics_energy"],
        "momentum and curvature of the state over layers; the form chosen in training",
        "after Bi et al. 2025, arXiv 2505.13408 (its equation is not verified)",
        "hidden",
    ),
]


def _learned(
    name: str,
    rung: Rung,
    says: str,
    source: str,
    forms: Callable[[], Sequence[Features]],
    estimator: Estimator = logistic,
) -> tuple[str, Baseline]:
    return name, Baseline(
        make=lambda: Learned(name, rung, forms(), estimator), rung=rung, says=says, source=source
    )


def _probe(name: str, says: str, source: str, make: Callable[[], Method]) -> tuple[str, Baseline]:
    return name, Baseline(make=make, rung="hidden", says=says, source=source)


def _bags(bag: str, rung: Rung, what: str) -> list[tuple[str, Baseline]]:
    return [
        _learned(
            f"{bag}-logistic",
            rung,
            f"logistic regression on {what}; sum, mean or presence",
            _ASKED,
            lambda: [Bag(bag), Bag(bag, "mean"), Bag(bag, "present")],
        ),
        _learned(
            f"{bag}-boosting",
            rung,
            f"gradient boosting on {what}; frequent and telling ones",
            _OURS,
            lambda: [Bag(bag)],
            boosting,
        ),
    ]


_PLACES = [
    _learned(
        "length",
        "length",
        "logistic regression on the number of tokens, its square and rank",
        _ASKED,
        lambda: [Columns(["tokens"], products=True)],
    ),
    _learned(
        "step-index",
        "length",
        "logistic regression on step number, place, operators in the question and remaining",
        _ASKED,
        lambda: [Columns(["number", "start", "operators", "remaining"], products=True)],
    ),
]
_TEXTS = [
    _learned(
        "text-ngrams",
        "text",
        "logistic regression on TF-IDF of 1 to 3 words, of the step and of what it rewrites",
        _ASKED,
        lambda: [Words()],
    ),
    _learned(
        "text-boosting",
        "text",
        "gradient boosting on counts of 1 and 2 words of both",
        _OURS,
        lambda: [Words(2, weighted=False)],
        boosting,
    ),
    _learned(
        "text-structure",
        "text",
        "logistic regression on operators and operands of the rewritten part and its context",
        _OURS,
        lambda: [Structure()],
    ),
    _learned(
        "text-structure-boosting",
        "text",
        "gradient boosting on the same",
        _OURS,
        lambda: [Structure()],
        boosting,
    ),
]
_SURE_ALL = [
    _learned(
        "confidence-all",
        "confidence",
        "logistic regression on every confidence score, of the step and of its answer",
        _OURS,
        lambda: [Columns(SURE)],
    ),
    _learned(
        "confidence-boosting",
        "confidence",
        "gradient boosting on the same",
        _OURS,
        lambda: [Columns(SURE)],
        boosting,
    ),
]
_PROBES = [
    _probe(
        "logistic-probe-mean",
        "logistic probe of the mean hidden state, layer chosen",
        _CRV,
        lambda: Probe("logistic-probe-mean", "logistic", ("hidden",)),
    ),
    _probe(
        "mlp-probe-mean",
        "MLP probe of the mean hidden state, layer chosen",
        _CRV,
        lambda: Probe("mlp-probe-mean", "mlp", ("hidden",)),
    ),
    _probe(
        "logistic-probe",
        "logistic probe of mean, last or pre-answer state; pooling and layer (or all) chosen",
        _OURS,
        lambda: Probe("logistic-probe", "logistic"),
    ),
    _probe(
        "mlp-probe",
        "MLP probe of the same, one network a fold",
        _OURS,
        lambda: Probe("mlp-probe", "mlp"),
    ),
    _probe(
        "attention-probe",
        "attention-pooled probe over the step's tokens, layer chosen",
        _ASKED,
        AttentionProbe,
    ),
]
_ERRORS = [
    _learned(
        "error-norms",
        "error",
        "logistic regression on how much of each layer the dictionary leaves out",
        _OURS,
        lambda: [Columns(beginning_with("error_norm."))],
    ),
    _learned(
        "error-norms-boosting",
        "error",
        "gradient boosting on the same",
        _OURS,
        lambda: [Columns(beginning_with("error_norm."))],
        boosting,
    ),
]

_ALONE: dict[str, Baseline] = dict(
    [
        *_PLACES,
        *_TEXTS,
        *_STEP,
        *_ANSWER,
        *_SURE_ALL,
        *_CHAINS,
        *_PROBES,
        *_bags("activations", "activations", "feature activations (no attribution)"),
        *_ERRORS,
        *_bags("direct", "direct", "activations x direct effects on the target's logit"),
    ]
)
WITHOUT_GRAPH = (
    "step-index",
    "text-structure-boosting",
    "confidence-all",
    "logistic-probe",
    "activations-logistic",
    "error-norms",
)
"""What `without-graph` combines: one method of every rung that needs no attribution."""

METHODS: Registry[Baseline] = Registry(
    "method",
    _ALONE
    | {
        "without-graph": Baseline(
            make=lambda: Stacked(
                "without-graph", "combined", [_ALONE[name].make for name in WITHOUT_GRAPH]
            ),
            rung="combined",
            says=f"logistic regression on the scores of {len(WITHOUT_GRAPH)} of these, a rung each",
            source=_OURS,
        )
    },
)
"""Every baseline by its name, up the ladder."""
