"""The GPUs that a process would see, asked of the driver (NVML): no CUDA context is made, no torch imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Gpu(NamedTuple):
    """name, and bytes in all and free; index as nvidia-smi counts."""

    index: int
    uuid: str
    name: str
    total: int
    free: int


def present() -> list[Gpu]:
    """All GPUs of this machine; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu(nvml, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory.total, memory.free)


def visible(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, by number or UUID, in its order and up to the first unknown one."""
    found = present()
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return found
    chosen: list[Gpu] = []
    for name in wanted.split(","):
        gpu = next(
            (g for g in found if name.strip() == str(g.index) or (name.strip() and g.uuid.startswith(name.strip()))),
            None,
        )
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def cuda_of_driver() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the driver runs; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    except pynvml.NVMLError:
        return None
    return version // 1000, version % 1000 // 10
