"""Data-parallel training under ``torchrun``: who this process is among the others, and the few things they agree on.

Every process holds the whole model and trains on its rows of the global batch; the algorithm averages the gradients
(`agents/`). Process 0 alone writes files and evaluates. gloo on CPUs, NCCL on CUDA devices.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: process 0 may evaluate for hours."""


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them. The default is a process by itself.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_size: of those, how many on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, evaluates and talks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until every process has come here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Gives every process whether one of them has the flag set."""
        if self.size == 1:
            return flag
        return any(bool(each[0]) for each in self.gather(np.array([flag], np.uint8)))

    def share(self, text: str) -> str:
        """Gives every process the text of process 0; the others' is not looked at."""
        if self.size == 1:
            return text
        content = np.frombuffer(text.encode(), np.uint8)
        length = int(self.gather(np.array([len(content)], np.int64))[0][0])
        return self.gather(content if self.is_main else np.zeros(length, np.uint8))[0].tobytes().decode()

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Gives every process the arrays of all, in the order of ranks; all have the same shape and dtype."""
        if self.size == 1:
            return [array]
        import torch
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        own = torch.from_numpy(array.copy()).to(device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(every, own)
        return [each.cpu().numpy() for each in every]


ALONE = World()


def torchrun_size() -> int:
    """Gives how many processes ``torchrun`` started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def joined_world(*, cuda: bool) -> Iterator[World]:
    """Joins the processes that ``torchrun`` started, and leaves them at the end.

    Args:
        cuda: whether to talk over NCCL, each process on the CUDA device of its local rank.
    """
    if torchrun_size() == 1:
        yield ALONE
        return
    import torch
    from torch import distributed

    options: dict[str, Any] = {"backend": "nccl" if cuda else "gloo", "timeout": PATIENCE}
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(**options)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        distributed.destroy_process_group()


def end_process(status: int) -> NoReturn:
    """Ends a process of a data-parallel run with this exit status, exit handlers run and streams flushed, at once.

    gloo's threads outlive the process group, and the last of them to let go of a tensor needs the interpreter for it.
    Python 3.11 kills a thread that asks for an interpreter that is being torn down, and C++ answers by aborting the
    process: a run that was done would end with SIGABRT now and then. So the interpreter is not torn down.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
