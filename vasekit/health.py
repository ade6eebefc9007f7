"""Is this installation able to run: packages, the GPUs that were asked for, the cache.

`python -m vasekit.doctor --health`, which a container's healthcheck calls.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vasekit import gpus
from vasekit.cli import UserError

# swift loads its parts when they are used: this shows that it is there, not that all of it works.
PACKAGES = ("torch", "torchvision", "open_clip", "transformers", "peft", "swift")


def check(environment: Mapping[str, str]) -> str:
    """What was found, in a line. Raises UserError with what is wrong."""
    return f"healthy: {_packages()}, {_devices(environment)}, {_cache(environment)}"


def _packages() -> str:
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken installation raises
            raise UserError(f"import {name}: {error}; install requirements/base.txt again") from None
    return f"{len(PACKAGES)} packages"


def _devices(environment: Mapping[str, str]) -> str:
    import torch

    asked = environment.get("GPUS") or environment.get("NVIDIA_VISIBLE_DEVICES", "")
    if asked in ("", "cpu", "none", "void"):
        return "no GPU asked for"
    seen, usable = gpus.visible(environment), torch.cuda.device_count()
    if not seen or usable < len(seen):
        raise UserError(
            f"GPUS={asked}: the driver shows {len(seen)} and CUDA {usable}; start the container with GPUs"
            " (docker compose, or docker run --gpus all), or give GPUS=cpu"
        )
    return f"{usable} GPU{'s' * (usable > 1)}"


def _cache(environment: Mapping[str, str]) -> str:
    folder = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"HF_HOME {folder}: {error.strerror}; name a folder that can be written") from None
    return f"{folder} can be written"
