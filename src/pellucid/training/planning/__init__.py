"""What a training will cost, before anything is spent: memory, disk, time and how to share it."""

from pellucid.training.planning.hardware import Hardware, parse_hardware
from pellucid.training.planning.plan import Plan, plan

__all__ = ["Hardware", "Plan", "parse_hardware", "plan"]
