"""Fine-tuning dictionaries end to end, with all MLPs replaced at once."""

from pellucid.training.finetune.config import FinetuneConfig
from pellucid.training.finetune.loop import FinetuneProgress, FinetuneResult, finetune

__all__ = ["FinetuneConfig", "FinetuneProgress", "FinetuneResult", "finetune"]
