"""The arithmetic of the bare DQN update and nothing else: one large matrix product with as many multiplications.

What PyTorch's matrix product reaches here is about what these cores can do; no update with the same arithmetic can be
much faster. One tick is one update's worth.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contestants.bare_learner import BareLearner, keep_freed_memory
from benchmarks.turns import Turn

SIDE = 1_024
"""Columns of the first factor, and both sides of the second: large enough for full speed, small enough for caches."""


def flops_of_an_update() -> int:
    """Counts the floating-point operations of an update's convolutions and matrix products (a multiply-add is two)."""
    learner = BareLearner(channels_last=False, bf16=False, fused=False)
    with FlopCounterMode(display=False) as counter:
        learner.update()
    return int(counter.get_total_flops())


def main() -> None:
    """Multiplies in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    rows = round(flops_of_an_update() / (2 * SIDE * SIDE))
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    left, right = torch.randn(rows, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    product = left @ right
    turn = Turn()
    turn.begin()
    while True:
        torch.mm(left, right, out=product)
        turn.tick()


if __name__ == "__main__":
    main()
