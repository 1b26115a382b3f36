"""How each activation is trained: one file a rule, one line in the registry."""

from pellucid.core.registry import Registry
from pellucid.training.activations.base import ActivationRule
from pellucid.training.activations.batchtopk import BatchTopKRule
from pellucid.training.activations.jumprelu import JumpReLURule
from pellucid.training.activations.relu import ReLURule
from pellucid.training.activations.topk import TopKRule

RULES: Registry[ActivationRule] = Registry(
    "activation",
    {rule.name: rule for rule in (TopKRule(), BatchTopKRule(), JumpReLURule(), ReLURule())},
)

__all__ = ["RULES", "ActivationRule"]
