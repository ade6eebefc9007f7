"""Which device to compute on."""

from __future__ import annotations

import argparse
import sys

from vasekit.cli import UserError


def add_flags(parser: argparse.ArgumentParser, gpu: int | None = None) -> None:
    """--device and --gpu; neither given means the first GPU, or the CPU where there is none."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--device", help="cpu, cuda or cuda:N (default: the first GPU, else the CPU)")
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
