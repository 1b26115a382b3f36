"""Training dictionaries on a model's activations."""

from pellucid.training.config import TrainConfig
from pellucid.training.loop import TrainResult, train
from pellucid.training.metrics import TrainProgress
from pellucid.training.resumable import TrainingStoppedError

__all__ = ["TrainConfig", "TrainProgress", "TrainResult", "TrainingStoppedError", "train"]
