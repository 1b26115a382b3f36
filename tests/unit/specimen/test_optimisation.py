import math

import pytest
import torch

from pellucid.specimen import architecture, optimisation
from pellucid.specimen.vocabulary import BOS_ID, EOS_ID


def test_learning_rate_rises_and_falls_in_straight_lines() -> None:
    rates = [
        optimisation.learning_rate(step, peak=2.0, warmup_steps=4, total_steps=12)
        for step in range(12)
    ]
    assert rates == pytest.approx([0.5, 1, 1.5, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25])


def test_targets_skip_the_start_of_the_next_document_and_the_end() -> None:
    ids = torch.tensor([[BOS_ID, 7, EOS_ID, BOS_ID, 9]])
    ignored = optimisation.IGNORED
    assert optimisation.next_token_targets(ids).tolist() == [[7, EOS_ID, ignored, 9, ignored]]


def test_loss_is_the_mean_surprise_of_the_predicted_tokens() -> None:
    """Against sums written out in plain Python."""
    ids = torch.tensor([[BOS_ID, 2, BOS_ID, 3]])
    logits = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))

    def surprise(position: int, token: int) -> float:
        scores = logits[0, position].tolist()
        return math.log(sum(math.exp(score) for score in scores)) - scores[token]

    expected = (surprise(0, 2) + surprise(2, 3)) / 2
    assert float(optimisation.loss_of(logits, ids)) == pytest.approx(expected, rel=1e-6)


def test_steps_learn_a_repeated_batch() -> None:
    config = architecture.build_config(layers=1, width=16, heads=2, inner=16)
    model = architecture.build_model(config, seed=0)
    optimiser = optimisation.build_optimiser(model, weight_decay=0.1)
    ids = torch.randint(4, 20, (4, 12), generator=torch.Generator().manual_seed(0))
    losses = [
        optimisation.train_step(model, optimiser, ids, rate=2e-2, clip=1.0) for _ in range(30)
    ]
    assert losses[0] == pytest.approx(math.log(config.vocab_size), rel=0.02)
    assert losses[-1] < losses[0] / 3


def test_only_matrices_decay() -> None:
    config = architecture.build_config(layers=1, width=16, heads=2, inner=16)
    model = architecture.build_model(config, seed=0)
    decayed, kept = optimisation.build_optimiser(model, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    gains = [p for name, p in model.named_parameters() if "norm" in name]
    assert {id(p) for p in kept["params"]} == {id(p) for p in gains}


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_one() -> None:
    config = architecture.build_config(layers=1, width=16, heads=2, inner=16)
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    one, same, other = (architecture.build_model(config, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)
    weights = [m.lm_head.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
