"""A verifier on disk: `verifier.safetensors` and a manifest, nothing that runs when it is read."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import atomic_directory, recover_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.verification.verifier.calibrate import CALIBRATORS
from pellucid.verification.verifier.conformal import Conformal
from pellucid.verification.verifier.estimators import ESTIMATORS
from pellucid.verification.verifier.normalise import Normalise
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier

KIND = "verifier"
ARRAYS = "verifier.safetensors"
MODEL, DICTIONARIES = "model", "dictionaries"
Arrays = dict[str, np.ndarray]


def save_verifier(folder: str | Path, verifier: Verifier) -> Path:
    """Write a verifier, atomically.

    Args:
        folder: to write, replaced if there.
        verifier: the verifier.

    Returns:
        The folder.

    Raises:
        StorageError: the disk refuses.
    """
    from safetensors.numpy import save_file

    normalise = verifier.normalise
    manifest = Manifest(
        kind=KIND,
        config={
            "settings": asdict(verifier.settings),
            "columns": list(verifier.columns),
            "domains": None if normalise is None else list(normalise.domains),
            "basis": verifier.conformal.basis,
            "record": dict(verifier.record),
        },
        seed=verifier.record["seed"],
        parents={
            name: ", ".join(each) if isinstance(each, list) else str(each)
            for name, each in (
                (MODEL, verifier.record["models"]),
                (DICTIONARIES, verifier.record["dictionaries"]),
            )
            if each
        },
        results=dict(verifier.record["out_of_fold"]) | {"threshold": verifier.conformal.to_json()},
    )
    with atomic_directory(Path(folder)) as temporary:
        arrays = {name: np.ascontiguousarray(value) for name, value in _arrays(verifier).items()}
        save_file(arrays, temporary / ARRAYS)
        manifest.write(temporary, [ARRAYS])
    return Path(folder)


def load_verifier(
    folder: str | Path, *, model_fingerprint: str | None = None, any_model: bool = False
) -> Verifier:
    """Read what `Verifier.save` wrote.

    Args:
        folder: of the verifier.
        model_fingerprint: of the model whose steps it is to judge, checked to be one of those whose
            steps it was fitted on.
        any_model: do not check that.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    recover_directory(folder)
    manifest = read_manifest(folder, kind=KIND)
    try:
        found = _verifier(manifest.config, load_file(folder / ARRAYS))
        models = found.record["models"]
    except (
        *(SafetensorError, OSError, ConfigError),
        *(KeyError, TypeError, ValueError, IndexError, AttributeError),
    ) as error:
        raise CheckpointError(
            f"{folder} does not hold a verifier as its manifest describes it ({error}); restore it "
            "from a copy or fit it again"
        ) from error
    if model_fingerprint is not None and not any_model and model_fingerprint not in models:
        raise CheckpointError(
            f"the verifier of {folder} was fitted on steps of another model (fingerprint "
            f"{', '.join(models) or 'unknown'}, this one's is {model_fingerprint}); use that "
            "model, fit a verifier on this one's steps, or allow any model"
        )
    return found


def _arrays(verifier: Verifier) -> Arrays:
    normalise, rule = verifier.normalise, verifier.conformal
    parts: dict[str, Arrays] = {
        "estimator": verifier.estimator.arrays(),
        "calibration": verifier.calibration.arrays(),
        "conformal": {name: getattr(rule, name) for name in _CONFORMAL},
        "training": dict(verifier.training),
    }
    parts |= {f"refit-{n}": each.arrays() for n, each in enumerate(verifier.refits)}
    if normalise is not None:
        parts["normalise"] = {name: getattr(normalise, name) for name in _NORMALISE}
    return {f"{part}/{name}": v for part, each in parts.items() for name, v in each.items()}


_NORMALISE = ("edges", "center", "spread")
_CONFORMAL = ("edges", "margins", "questions")


def _verifier(config: dict[str, Any], tensors: Arrays) -> Verifier:
    parts: dict[str, Arrays] = {}
    for key, value in tensors.items():
        part, name = key.split("/", 1)
        parts.setdefault(part, {})[name] = value
    settings = Settings(**config["settings"])
    columns = tuple(config["columns"])
    kind = ESTIMATORS[settings.estimator]
    normalise = None
    if settings.normalise != "none":
        normalise = Normalise(domains=tuple(config["domains"]), **parts["normalise"])
    found = Verifier(
        columns=columns,
        settings=settings,
        normalise=normalise,
        estimator=kind.from_arrays(parts["estimator"]),
        refits=tuple(kind.from_arrays(parts[f"refit-{n}"]) for n in range(settings.refits)),
        calibration=CALIBRATORS[settings.calibration].from_arrays(parts["calibration"]),
        conformal=Conformal(recall=settings.recall, basis=config["basis"], **parts["conformal"]),
        training=parts["training"],
        record=config["record"],
    )
    shape = (0, len(columns))
    for each in (found.estimator, *found.refits):
        each.contributions(np.zeros(shape))  # refuses another number of columns
    if normalise is not None and normalise.center.shape[-1] != len(columns):
        raise ValueError(f"the normaliser is not of {len(columns)} columns")
    return found
