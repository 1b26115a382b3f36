"""Training dictionaries on a model's activations."""

from pellucid.training.config import TrainConfig
from pellucid.training.loop import TrainingStoppedError, TrainResult, train
from pellucid.training.metrics import TrainProgress

__all__ = ["TrainConfig", "TrainProgress", "TrainResult", "TrainingStoppedError", "train"]
