"""Runs on disk: whole and half-written checkpoints and models, the table of runs, and their curves."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vasekit import builtin, curves, runs
from vasekit.cli import UserError
from vasekit.files import write_json


def safetensors(path: Path, sizes: dict[str, int]) -> Path:
    """A file of bytes, written without torch: a 5 GB one is a hole, made in no time."""
    header, end = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    return path


def torch_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"state" * 20)


def checkpoint(folder: Path, step: int, processes: int = 1, **args: object) -> Path:
    """What Trainer leaves of an adapter's run."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    write_json(made / "adapter_config.json", {"peft_type": "LORA"})
    safetensors(made / "adapter_model.safetensors", {"a": 40, "b": 8})
    write_json(made / "args.json", {"save_only_model": False, "local_world_size": processes} | args)
    ranks = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    for name in ("optimizer.pt", "scheduler.pt", *ranks):
        torch_file(made / name)
    write_json(made / "trainer_state.json", {"global_step": step, "max_steps": 60})
    return made


def sharded(folder: Path, shards: int = 3, size: int = 100) -> Path:
    """A whole model folder of empty tensors."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        write_json(folder / name, {"model_type": "qwen2_5_vl"})
    names = [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
    for k, name in enumerate(names):
        safetensors(folder / name, {f"layers.{k}.one": size, f"layers.{k}.two": size})
    where = {f"layers.{k}.{part}": name for k, name in enumerate(names) for part in ("one", "two")}
    index = {"metadata": {"total_size": 2 * size * shards}, "weight_map": where}
    write_json(folder / "model.safetensors.index.json", index)
    return folder


def cut(path: Path, by: int = 7) -> None:
    os.truncate(path, max(0, path.stat().st_size - by))


# ---- checkpoints ----

DAMAGES: dict[str, Callable[[Path], object]] = {
    "no trainer_state": lambda c: (c / "trainer_state.json").unlink(),
    "half a trainer_state": lambda c: cut(c / "trainer_state.json"),
    "another step": lambda c: write_json(c / "trainer_state.json", {"global_step": 39}),
    "weights cut": lambda c: cut(c / "adapter_model.safetensors"),
    "weights empty": lambda c: cut(c / "adapter_model.safetensors", 10**6),
    "weights garbage": lambda c: (c / "adapter_model.safetensors").write_bytes(b"\xff" * 200),
    "no weights": lambda c: (c / "adapter_model.safetensors").unlink(),
    "no optimizer": lambda c: (c / "optimizer.pt").unlink(),
    "optimizer cut": lambda c: cut(c / "optimizer.pt"),
    "optimizer empty": lambda c: cut(c / "optimizer.pt", 10**6),
    "no schedule": lambda c: (c / "scheduler.pt").unlink(),
    "no random state": lambda c: (c / "rng_state.pth").unlink(),
    "random state cut": lambda c: cut(c / "rng_state.pth"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_not_complete(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    whole = checkpoint(tmp_path, 40)
    assert runs.is_complete(whole)
    damage(whole)
    assert not runs.is_complete(whole)
    assert runs.checkpoints(tmp_path) == []


def test_weights_alone_are_complete_where_the_run_saves_no_more(tmp_path: Path) -> None:
    only = checkpoint(tmp_path, 10, save_only_model=True)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (only / name).unlink()
    assert runs.is_complete(only)


def test_every_process_has_to_leave_its_random_state(tmp_path: Path) -> None:
    four = checkpoint(tmp_path, 10, processes=4)
    assert runs.is_complete(four)
    (four / "rng_state_2.pth").unlink()
    assert not runs.is_complete(four)


def test_deepspeed_names_its_state_in_latest(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 10, processes=2)
    for name in ("optimizer.pt", "scheduler.pt"):
        (made / name).unlink()
    state = made / "global_step10" / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"
    state.parent.mkdir()
    torch_file(state)
    assert not runs.is_complete(made)
    (made / "latest").write_text("global_step10")
    assert runs.is_complete(made)
    cut(state)
    assert not runs.is_complete(made)


def test_half_written_checkpoints_are_set_aside_and_whole_ones_stay(tmp_path: Path) -> None:
    whole = [checkpoint(tmp_path, 20), checkpoint(tmp_path / "v0-2026", 20)]
    before = {path: path.stat().st_mtime_ns for folder in whole for path in folder.iterdir()}
    for _ in range(2):
        half = checkpoint(tmp_path, 40)
        (half / "trainer_state.json").unlink()
        (tmp_path / "v0-2026" / "checkpoint-30").mkdir(exist_ok=True)
        moved = runs.set_aside(tmp_path)
    aside, below = tmp_path / "incomplete", tmp_path / "v0-2026" / "incomplete"
    assert moved == [aside / "checkpoint-40.2", below / "checkpoint-30.2"]
    assert {path.name for path in aside.iterdir()} == {"checkpoint-40", "checkpoint-40.2"}
    assert (aside / "checkpoint-40" / "optimizer.pt").is_file()
    assert runs.set_aside(tmp_path) == []
    assert sorted(runs.checkpoints(tmp_path)) == sorted(whole)
    assert before == {path: path.stat().st_mtime_ns for folder in whole for path in folder.iterdir()}


def test_a_checkpoint_set_aside_is_never_taken_again(tmp_path: Path) -> None:
    checkpoint(tmp_path / "incomplete", 40)
    assert runs.checkpoints(tmp_path) == []


# ---- models ----


def test_the_built_in_model_and_a_whole_sharded_one_lack_nothing(tmp_path: Path) -> None:
    assert runs.model_problems(builtin.VLM) == []
    assert runs.model_problems(sharded(tmp_path / "model")) == []
    assert runs.is_model(tmp_path / "model")


def test_twenty_shards_of_5_gb_take_milliseconds(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model", shards=20, size=2_500_000_000)
    started = time.perf_counter()
    assert runs.model_problems(folder) == []
    assert time.perf_counter() - started < 0.5


SECOND = "model-00002-of-00003.safetensors"
LACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config": (lambda m: (m / "config.json").unlink(), "config.json is missing"),
    "tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "no tokenizer"),
    "processor": (lambda m: (m / "preprocessor_config.json").unlink(), "no processor"),
    "shard": (lambda m: (m / SECOND).unlink(), f"{SECOND} is missing (2 tensors, layers.1.one the first)"),
    "cut": (lambda m: cut(m / SECOND), f"{SECOND} is cut off"),
    "long": (lambda m: os.truncate(m / SECOND, 10_000), f"{SECOND} is cut off or damaged (10,000 bytes"),
    "tensor": (lambda m: safetensors(m / SECOND, {"layers.1.one": 200}), f"{SECOND} lacks layers.1.two"),
    "size": (
        lambda m: safetensors(m / SECOND, {"layers.1.one": 100, "layers.1.two": 90}),
        "says 600 bytes of tensors, the shards hold 590",
    ),
    "index": (lambda m: cut(m / "model.safetensors.index.json"), "model.safetensors.index.json is cut off"),
    "weights": (lambda m: [path.unlink() for path in m.glob("model*")], "no weights"),
}


@pytest.mark.parametrize(("damage", "said"), LACKS.values(), ids=LACKS)
def test_what_a_model_lacks_is_said(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    folder = sharded(tmp_path / "model")
    damage(folder)
    problems = runs.model_problems(folder)
    assert len(problems) == 1
    assert said in problems[0]


def test_slow_tokenizer_files_do_and_a_missing_folder_lacks_everything(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    (folder / "merges.txt").write_text("a b")
    (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
    assert runs.model_problems(folder) == []
    assert len(runs.model_problems(tmp_path / "nowhere")) == 4


def test_a_truncated_model_or_adapter_is_refused_by_name(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    cut(folder / SECOND)
    assert not runs.is_model(folder)
    with pytest.raises(UserError, match=f"--model .* incomplete, {SECOND} is cut off"):
        runs.find_model(folder, "--model")
    adapter = checkpoint(tmp_path, 10)
    assert runs.find_adapter(adapter, "--adapters") == adapter
    cut(adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is cut off"):
        runs.find_adapter(adapter, "--adapters")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        runs.find_adapter(adapter, "--adapters")


# ---- the table ----


def log(folder: Path, *entries: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry) for entry in entries]
    (folder / runs.LOG).write_text("\n".join([*lines, '{"loss": 0.']), encoding="utf-8")


def step(number: int, steps: int = 60, **values: float) -> dict[str, object]:
    return values | {"global_step/max_steps": f"{number}/{steps}"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A finished run, one that was stopped, one that failed, one that was killed, an old one, a merge, and others."""
    started = "2026-01-02T03:04:05+00:00"
    new = {"stage": "sft", "recipe": {"name": "paper"}, "rows": 4284, "started": started}
    cards = {"gpus": [{"name": "NVIDIA H100", "memory": 80}] * 2}
    finished = {"seconds": 254.0, "peak_memory_gib": {"0": 11.5, "1": 12.25}, "result": {"loss": 0.5}}
    ended = {"started": started, "ended": started}
    write_json(tmp_path / "sft" / runs.RUN, new | cards | {"finished": finished, "attempts": [ended | {"status": 0}]})
    log(tmp_path / "sft", step(1, loss=5.0), step(60, loss=0.5378), step(60, train_runtime=9.0))
    for name, status in (("stopped", 143), ("failed", 1), ("killed", None)):
        attempt = {"started": started} if status is None else ended | {"status": status}
        write_json(tmp_path / name / runs.RUN, new | {"stage": "grpo", "attempts": [attempt], "gpus": []})
        log(tmp_path / name, step(20, reward=0.25, loss=0.0), step(40, reward=0.75, loss=0.0))
    write_json(tmp_path / "old" / runs.RUN, {"stage": "sft", "gpus": 4, "finished": {"checkpoint": "x", "seconds": 3}})
    write_json(tmp_path / "sft-merged" / runs.RUN, {"stage": "merge", "finished": {"seconds": 10.38}})
    write_json(tmp_path / "mcore" / runs.RUN, {"stage": "hf2megatron", "seconds": 7.0})
    write_json(tmp_path / "bare" / runs.RUN, {"stage": "sft"})
    write_json(tmp_path / "foreign" / runs.RUN, {"mine": 1})
    write_json(tmp_path / ".tmp-x" / runs.RUN, {"stage": "merge"})
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / runs.RUN).write_text('{"stage": "sf')
    return tmp_path


def test_the_table_shows_every_run(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main([str(world)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == list(runs._HEAD)
    table = {line.split()[0]: line for line in lines}
    assert table.keys() == {"sft", "stopped", "failed", "killed", "old", "sft-merged", "mcore", "bare"}
    for name, said in {
        "sft": ("paper", "finished", "4284", " 60 ", "loss 0.5378", "254.0", "12.2", "2026-01-02 03:04", "2 x NVIDIA"),
        "stopped": ("grpo", "interrupted at step 40 of 60", "reward 0.7500", "cpu"),
        "failed": ("failed at step 40 of 60",),
        "killed": ("running or killed at step 40 of 60",),
        "old": ("finished", " 4"),
        "sft-merged": ("merge", "finished", "10.4"),
        "mcore": ("finished", "7.0"),
        "bare": ("interrupted",),
    }.items():
        assert all(word in table[name] for word in said), table[name]


def test_the_table_as_json(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main([str(world), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sft"] == {
        "name": "sft",
        "stage": "sft",
        "recipe": "paper",
        "state": "finished",
        "step": 60,
        "steps": 60,
        "rows": 4284,
        "measure": "loss",
        "value": 0.5378,
        "seconds": 254.0,
        "peak_memory_gib": 12.25,
        "started": "2026-01-02T03:04:05+00:00",
        "gpus": "2 x NVIDIA H100",
    }
    assert rows["bare"]["step"] is None


def test_no_run_is_one_line_and_a_missing_folder_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UserError, match="no such folder"):
        runs.main([str(tmp_path / "nowhere")])


# ---- curves ----


def test_steps_that_come_twice_are_taken_from_the_later_lines() -> None:
    first = [step(n, loss=float(n), learning_rate=1.0) for n in (10, 20, 30, 33)]
    second = [step(n, loss=n + 0.5) for n in (22, 30, 40)]
    evaluated = step(40, eval_loss=7.0)
    summary = step(40, loss=99.0, train_runtime=1.0)
    found, resumed = curves.series([*first, *second, evaluated, summary])
    assert found["loss"] == {10: 10.0, 20: 20.0, 22: 22.5, 30: 30.5, 40: 40.5}
    assert found["eval_loss"] == {40: 7.0}
    assert found["learning_rate"] == {10: 1.0, 20: 1.0}
    assert resumed == [22]


def test_curves_of_both_stages_are_drawn_beside_the_log(tmp_path: Path) -> None:
    nan = float("nan")
    log(tmp_path / "sft", *(step(n, loss=nan if n == 30 else 1 / n, grad_norm=1.0) for n in range(1, 61)))
    parts = {"rewards/Shape/mean": 0.5, "rewards/Date/mean": 0.25, "rewards/Style/mean": nan}
    lengths = {f"completions/{name}_length": 9.0 for name in ("min", "mean", "max")}
    grpo = [
        step(n, reward=0.5, reward_std=0.1, frac_reward_zero_std=0.0, kl=0.0, **parts, **lengths) for n in (1, 2, 2)
    ]
    log(tmp_path / "grpo" / "v0-2026", *grpo)
    for folder, where in (("sft", "sft"), ("grpo", "grpo/v0-2026")):
        path = curves.draw(tmp_path / folder)
        assert path == tmp_path / where / curves.CURVES
        assert path.read_bytes().startswith(b"\x89PNG")
        assert {entry.name for entry in path.parent.iterdir()} == {runs.LOG, curves.CURVES}


def test_panels_are_those_of_the_stage_and_of_what_was_logged() -> None:
    keys = ("loss", "token_acc", "learning_rate", "grad_norm")
    sft, _ = curves.series([step(1, **dict.fromkeys(keys, 1.0))])
    assert [panel.title for panel in curves._panels(sft)] == [
        "Loss",
        "Token accuracy",
        "Learning rate",
        "Gradient norm",
    ]
    grpo, _ = curves.series([step(1, **{"reward": 1.0, "rewards/A/mean": 1.0, "rewards/A/std": 0.0})])
    assert [panel.title for panel in curves._panels(grpo)] == ["Reward"]  # one part is the reward itself
    grpo, _ = curves.series([step(1, **{"reward": 1.0, "rewards/A/mean": 1.0, "rewards/B/mean": 0.0})])
    assert curves._panels(grpo)[1].lines == (("rewards/A/mean", "A"), ("rewards/B/mean", "B"))


def test_too_short_a_log_gives_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert curves.draw(tmp_path) is None
    log(tmp_path, step(1, loss=1.0))
    assert curves.draw(tmp_path) is None
    with pytest.raises(UserError, match="two points"):
        curves.main([str(tmp_path)])
    log(tmp_path, step(1, loss=1.0), step(2, loss=0.5))
    assert curves.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"curves: {tmp_path / curves.CURVES}\n"
