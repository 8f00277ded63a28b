"""The DT-Mem authors' own ``src/model.py``, run unchanged from the user's copy of luciferkonn/DT_Mem.

One tick is one forward or one gradient step of their model with memory, on one batch of made-up pixels that stays in
memory. Their constructor moves a vector to the GPU; here that call gives the vector itself.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants.sequence_parts import LARGE, LARGE_CONTEXT, LARGE_TOKENS, note
from benchmarks.turns import Turn
from trainers.threads import keep_freed_memory

NUM_ACTIONS, NUM_REWARDS, RETURN_RANGE = 18, 4, (-20, 100)


def stay_on_the_cpu() -> None:
    """Makes ``Tensor.cuda`` give the tensor itself, in this process."""

    def cuda(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return self

    Tensor.cuda = cuda  # type: ignore[method-assign, assignment]


def their_model(release: Path) -> Any:
    """Builds the model as the release's ``train.py`` does at its README's sizes, memory on."""
    sys.path.insert(0, str(release))
    model = importlib.import_module("src.model")
    return model.DecisionTransformer(
        num_actions=NUM_ACTIONS,
        num_rewards=NUM_REWARDS,
        return_range=RETURN_RANGE,
        n_layer=LARGE["num_layers"],
        n_embd=LARGE["width"],
        n_head=LARGE["num_heads"],
        seq_len=LARGE_TOKENS,
        attn_drop=0.1,
        resid_drop=0.1,
        predict_reward=True,
        single_return_token=True,
        device="cpu",
        use_gw=True,
    )


def their_batch(batch_size: int) -> dict[str, Tensor]:
    """Gives random pixels and ids in the shapes of the release's dataset."""
    shape = (batch_size, LARGE_CONTEXT, 1)
    return {
        "observations": torch.rand(batch_size, LARGE_CONTEXT, 4, 84, 84),
        "actions": torch.randint(0, NUM_ACTIONS, shape),
        "rewards": torch.randint(-1, 2, shape).float(),
        "returns-to-go": torch.randint(0, 50, shape).float(),
    }


def working(model: Any, batch: dict[str, Tensor], phase: str) -> Callable[[], None]:
    """Gives one forward, or one gradient step as the release's ``Trainer`` takes it."""
    if phase == "forward":
        model.eval()

        @torch.no_grad()
        def forward() -> None:
            model(batch)

        return forward
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)

    def update() -> None:
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return update


def main() -> None:
    """Works in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", type=Path, required=True, help="folder that holds src/model.py")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--notes", type=Path, required=True, help="file for numbers the referee reads")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--phase", choices=("forward", "update"), required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    stay_on_the_cpu()
    model = their_model(options.release)
    note(options.notes, parameters=sum(weight.numel() for weight in model.parameters()))
    work = working(model, their_batch(options.batch_size), options.phase)
    work()
    turn = Turn()
    turn.begin()
    while True:
        work()
        turn.tick()


if __name__ == "__main__":
    main()
