"""Which device to compute on."""

from __future__ import annotations

import argparse
import os
import sys

from vasekit.cli import UserError


def add_flags(parser: argparse.ArgumentParser, gpu: int | None = None) -> None:
    """--device and --gpu; neither given means the first GPU, or the CPU where there is none."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--device", help="cpu, cuda, cuda:N or cuda:0,1 (default: the first GPU, else the CPU)")
    group.add_argument("--gpu", type=int, default=gpu, metavar="N", help="short for --device cuda:N")


def pick(device: str | None, gpu: int | None = None) -> str:
    """The device asked for if it exists (else a UserError), or the best there is."""
    import torch

    have = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    wanted = device or (f"cuda:{gpu}" if gpu is not None else have[min(1, len(have) - 1)])
    if wanted == "cuda":
        wanted = "cuda:0"
    if wanted not in have:
        flag = f"--device {device}" if device else f"--gpu {gpu}"
        raise UserError(f"{flag}: no such device here; there is {', '.join(have)}")
    return wanted


def pick_all(device: str | None, gpu: int | None = None) -> list[str]:
    """Several devices, for one process each: `cuda:0,1,2`, `cpu,cpu`; none named: the GPUs that GPUS= names."""
    import torch

    if device is None and gpu is None and os.environ.get("GPUS", "cpu") != "cpu":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or [pick(None)]
    names = device.split(",") if device else [None]
    return [pick(f"cuda:{name}" if name and name.isdigit() else name, gpu) for name in names]


def fast_precision(device: str) -> str:
    """The half precision that the device computes in at full speed, or fp32 where there is none."""
    import torch

    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


def ask() -> str:
    """Let the person choose from the devices there are; without a terminal, take the best and say so."""
    import torch

    have = ["cpu"] + [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    best = len(have) > 1
    if not sys.stdin.isatty():
        print(f"--auto_select_device: no terminal to ask on, taking {have[best]}")
        return pick(None)
    for number, name in enumerate(have):
        print(f"  {number}) {name}")
    answer = input(f"device [{int(best)}]: ").strip() or str(int(best))
    if not answer.isdigit() or int(answer) >= len(have):
        raise UserError(f"device {answer}: give a number from 0 to {len(have) - 1}")
    return have[int(answer)].split()[0]
