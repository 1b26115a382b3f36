"""What is usual in the graphs of right steps, by kind of operation: what suspects are set against.

Suffixes: N steps, L layers, F features a layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from jaxtyping import Float64

from pellucid.core.errors import CheckpointError, DataError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.verification.repair.kinds import kind_of
from pellucid.verification.steps.step_set import StepSet

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

KIND, FILE = "usual", "usual.safetensors"
FEWEST = 20
"""Right steps that a kind needs to have figures of its own; the others share those of all steps."""
ALL = "all"
_TARGET = "answer"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Usual:
    """Means and spreads among right steps; every mapping has the key `all` and maybe kinds.

    Attributes:
        error_mean, error_spread: by kind, for each layer the share of the inputs' influence on the
            answer that the layer's errors hold (`graph.answer.error.layer_N`) [L].
        feature_mean, feature_spread: by kind, for each feature its signed effect on the answer's
            logit over all paths, 0 where it is not active [L * F].
        steps: how many right steps each kind has.
    """

    error_mean: Mapping[str, Float64[np.ndarray, " L"]]
    error_spread: Mapping[str, Float64[np.ndarray, " L"]]
    feature_mean: Mapping[str, Float64[np.ndarray, " LF"]]
    feature_spread: Mapping[str, Float64[np.ndarray, " LF"]]
    steps: Mapping[str, int]

    @classmethod
    def of(cls, steps: StepSet) -> "Usual":
        """Read the figures off labelled steps; wrong ones are left out.

        Args:
            steps: collected with graphs of the target `answer` and their bags.

        Raises:
            DataError: fewer than 20 right steps, or they were collected without these graphs.
        """
        prefix = f"graph.{_TARGET}.error.layer_"
        names = [n for n in steps.named(prefix) if n.removeprefix(prefix).isdigit()]
        if not names or "effect" not in steps.bags:
            raise DataError(
                "these steps have no graphs of their answers; collect them with the target answer"
            )
        right = np.flatnonzero(~steps.wrong)
        if len(right) < FEWEST:
            raise DataError(
                f"there are {len(right)} right steps to compare with; give at least {FEWEST}"
            )
        names.sort(key=lambda name: int(name.removeprefix(prefix)))
        errors = steps.matrix(names)
        rows = {ALL: right}
        texts = zip(steps.columns["before"], steps.columns["text"], strict=True)
        kinds = np.array([kind_of(str(b).split(), str(t).split()) for b, t in texts])
        for kind in np.unique(kinds[right]).tolist():
            mine = right[kinds[right] == kind]
            if len(mine) >= FEWEST:
                rows[kind] = mine
        bag = steps.bags["effect"]
        features = {kind: _moments(bag[mine]) for kind, mine in rows.items()}
        return cls(
            error_mean={kind: errors[mine].mean(0) for kind, mine in rows.items()},
            error_spread={kind: errors[mine].std(0) for kind, mine in rows.items()},
            feature_mean={kind: mean for kind, (mean, _) in features.items()},
            feature_spread={kind: spread for kind, (_, spread) in features.items()},
            steps={kind: len(mine) for kind, mine in rows.items()},
        )

    def known(self, kind: str) -> str:
        """`kind`, or `all` where too few right steps were of it."""
        return kind if kind in self.steps else ALL

    def save(self, folder: Path) -> Path:
        """Write it as safetensors with a manifest.

        Args:
            folder: to write, replaced if there.

        Raises:
            StorageError: the disk refuses.
        """
        from safetensors.numpy import save_file

        tensors = {
            f"{name}/{kind}": np.ascontiguousarray(values)
            for name in _PARTS
            for kind, values in getattr(self, name).items()
        }
        with atomic_directory(folder) as temporary:
            save_file(tensors, temporary / FILE)
            Manifest(kind=KIND, config={"steps": dict(self.steps)}).write(temporary, [FILE])
        return folder

    @classmethod
    def load(cls, folder: Path) -> "Usual":
        """Read what `save` wrote.

        Args:
            folder: that it was written to.

        Raises:
            CheckpointError: missing, damaged or of another kind.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        manifest = read_manifest(folder, kind=KIND)
        try:
            tensors = load_file(folder / FILE)
            steps = {str(k): int(n) for k, n in manifest.config["steps"].items()}
            parts = {name: {kind: tensors[f"{name}/{kind}"] for kind in steps} for name in _PARTS}
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be read ({error}); write it again") from error
        return cls(steps=steps, **parts)


_PARTS = ("error_mean", "error_spread", "feature_mean", "feature_spread")


def _moments(bag: "csr_matrix") -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(bag.mean(axis=0)).reshape(-1).astype(np.float64)
    squares = np.asarray(bag.multiply(bag).mean(axis=0)).reshape(-1).astype(np.float64)
    return mean, np.sqrt(np.maximum(squares - mean**2, 0.0))
