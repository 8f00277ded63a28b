"""The bare DQN update, the physical limit of a training loop: no env, no replay, the same batch over and over.

Target forward, forward, backward and Adam on the Nature CNN (VALID padding) at batch 32, in plain PyTorch, from
uint8 tensors that are already in memory. One tick is one update.

Legend: B batch, A actions.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import platform

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.turns import Turn

NUM_ACTIONS, BATCH, WARM_UP_UPDATES = 6, 32, 20


def nature_cnn() -> nn.Sequential:
    """Gives the network of Mnih et al. 2015 (VALID padding, 3136 features) as one would write it in plain PyTorch."""
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, NUM_ACTIONS),
    )


class BareLearner:
    """Updates one network on one batch."""

    def __init__(self, *, channels_last: bool, bf16: bool, fused: bool) -> None:
        """Makes networks, optimizer and batch.

        Args:
            channels_last: memory format of network and input.
            bf16: forward and backward of the convolutions and matrix products under autocast; the rest in fp32.
            fused: PyTorch's fused Adam instead of its default.
        """
        torch.manual_seed(0)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = bf16
        self.online = nature_cnn().to(memory_format=self.layout)  # type: ignore[call-overload]
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=6.25e-5, eps=1.5e-4, fused=fused or None)
        self.obs_B, self.next_obs_B = (torch.randint(0, 256, (BATCH, 4, 84, 84), dtype=torch.uint8) for _ in range(2))
        self.action_B = torch.randint(0, NUM_ACTIONS, (BATCH, 1))
        self.reward_B, self.discount_B = torch.randn(BATCH), torch.full((BATCH,), 0.99)

    def q_values(self, network: nn.Module, obs_B: Tensor) -> Tensor:
        """Gives the network's fp32 action values for uint8 stacks, shape (B, A)."""
        pixels_B = obs_B.float().div_(255.0).contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return network(pixels_B).float()

    def update(self) -> None:
        """Takes one gradient step on the squared TD error."""
        with torch.no_grad():
            target_B = self.reward_B + self.discount_B * self.q_values(self.target, self.next_obs_B).amax(1)
        q_B = self.q_values(self.online, self.obs_B).gather(1, self.action_B).squeeze(1)
        loss = functional.mse_loss(q_B, target_B)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks: given back to the system, they cost page faults in every update."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at the highest value there is
        mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD


def main() -> None:
    """Runs updates in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--keep-memory", action="store_true")
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    learner = BareLearner(channels_last=options.channels_last, bf16=options.bf16, fused=options.fused)
    for _ in range(WARM_UP_UPDATES):
        learner.update()
    turn = Turn()
    turn.begin()
    while True:
        learner.update()
        turn.tick()


if __name__ == "__main__":
    main()
