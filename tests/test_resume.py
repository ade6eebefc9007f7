"""Killed at any moment and started again, the filter ends with the bytes of a run that nobody disturbed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from filter_entry import broken, entry, picture

KILLS_PER_COLLECTION, COLLECTIONS = 5, 10


def photographs(folder: Path) -> Path:
    for vase in range(30):
        for view in (1, 2, 3):
            picture(folder / f"{vase:02}_{view}.jpg", 3 * vase + view)
    (folder / "again").mkdir()
    (folder / "again/07_9.jpg").write_bytes((folder / "07_1.jpg").read_bytes())  # known content within one run
    broken(folder / "12_7.jpg")
    return folder


def chain(photos: Path, work: Path) -> None:
    """Both CLIP stages, in small batches so that there is something to interrupt."""
    common = ["--model", "builtin", "--device", "cpu", "--scores", str(work / "scores"), "--batch_size", "4"]
    out = ["--output_dir", str(work / "out")]
    assert entry("clipfilter1")(["--input_dir", str(photos), *out, *common]) == 0
    assert entry("clipfilter2")(["--input_dir", str(work / "out/accepted"), *out, *common]) == 0


# Children start at once, from a server that has imported what takes long and has not computed anything yet.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["open_clip", "pyarrow.parquet", "torchvision", "filter_entry"])


def in_child(photos: Path, work: Path, seconds: float | None) -> float:
    """Run the chain in a process of its own; kill it after `seconds`. Returns how long it ran."""
    child = SERVER.Process(target=chain, args=(photos, work))
    started = time.monotonic()
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    else:
        assert child.exitcode == 0
    return time.monotonic() - started


def result(work: Path) -> dict[str, bytes]:
    """All that was written, but for times and the folders that differ between the runs."""
    found = {}
    for path in sorted((work / "out").rglob("*")):
        name = path.relative_to(work / "out").as_posix()
        if path.suffix == ".json":
            report = json.loads(path.read_text())
            for key in ("processing_time_seconds", "settings", "fingerprint"):
                report.pop(key, None)
            found[name] = json.dumps(report).encode()
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.mark.slow
def test_fifty_kills_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos")
    in_child(photos, tmp_path / "first", None)  # starts the server
    whole = in_child(photos, tmp_path / "undisturbed", None)
    expected = result(tmp_path / "undisturbed")
    assert {"filtering_report.json", "best_views_report.json", "errors/errors.csv"} <= expected.keys()
    rng = random.Random(7)
    unfinished = 0
    for number in range(COLLECTIONS):
        work = tmp_path / f"killed{number}"
        for _ in range(KILLS_PER_COLLECTION):
            in_child(photos, work, rng.uniform(0.05, 1) * whole)
            unfinished += not (work / "out/best_views_report.json").exists()
        in_child(photos, work, None)
        assert result(work) == expected
        assert sorted(path.name for path in work.iterdir()) == ["out", "scores"], "no staging folder is left"
    assert unfinished > KILLS_PER_COLLECTION, "the kills came too late to show anything"
