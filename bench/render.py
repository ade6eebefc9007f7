"""Photographs rendered per second, by size and number of processes: `python bench/render.py`."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasekit.synth import world  # noqa: E402


def take(job: tuple[world.Photo, int]) -> None:
    photo, size = job
    photo.take(size)


def main() -> int:
    photos = list(world.plan(8_999, 60, 7))
    print(f"{len(photos)} photographs of a world in its usual mixture, {os.cpu_count()} cores")
    for processes in (1, os.cpu_count() or 1):
        for size in (112, 224):
            with ProcessPoolExecutor(processes) as pool:
                list(pool.map(take, [(p, size) for p in photos[:8]]))  # start the workers before the clock
                started = time.perf_counter()
                list(pool.map(take, [(p, size) for p in photos], chunksize=8))
                rate = len(photos) / (time.perf_counter() - started)
            print(f"{size:4d} px, {processes} processes: {rate:6.1f} photographs/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
