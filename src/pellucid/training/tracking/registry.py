"""Trackers by the name that `--track` and `pip install 'pellucid[NAME]'` know them by."""

from pellucid.core.registry import Registry
from pellucid.training.tracking.tensorboard import TensorBoardTracker
from pellucid.training.tracking.tracker import Tracker
from pellucid.training.tracking.wandb import WandbTracker

TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker", {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}
)
