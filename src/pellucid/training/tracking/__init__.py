"""Services that draw a run's curves while it goes on; `metrics.jsonl` holds them all anyway."""

from pellucid.training.tracking.registry import TRACKERS
from pellucid.training.tracking.tracker import TrackedRun, Tracker

__all__ = ["TRACKERS", "TrackedRun", "Tracker"]
