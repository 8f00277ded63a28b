"""The slot memory of DT-Mem: learned initial slots, content-based reads and writes, an explicit state.

The memory is a matrix of M slots per row of a batch. It enters and leaves every call; nothing of it stays in the
module, so rows never meet, and resetting a row is to overwrite it with `initial_state`. Tokens come grouped in steps. A
step may hold only what is known before its action; then no output depends on its own action or on what follows it.

Source: Kang et al. 2024, "Think Before You Act: Decision Transformers with Working Memory". Differs: docs/dt_mem.md.

Legend: B rows of a batch, T steps, G tokens of a step, W written tokens of a step, L tokens, C steps of a chunk,
H heads, M slots, D width, P width of one head (D / H).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memory.addressing import (
    AddressAxis,
    Beta,
    Write,
    compose_writes,
    fold_query,
    read_address,
    read_slots,
    score,
    softmax_over,
    write_gates,
    write_strength,
)
from memory.memory_usage import MemoryUsage, UsageTrace, measure_usage


class Recalled(NamedTuple):
    """A segment after the memory: its tokens, the slots, and how they were used if that was asked for."""

    token_BTGD: Tensor
    memory_BMD: Tensor
    usage: MemoryUsage | None


class _Projected(NamedTuple):
    """Tokens as the memory meets them, of a segment (time split off: BTGHD) or of a chunk (BLHD)."""

    read_key: Tensor
    write_key: Tensor
    strength_key: Tensor
    value: Tensor


class WorkingMemory(nn.Module):
    """Reads from and writes to M slots of width D.

    With heads, each head addresses the slots by itself and owns D / H of their columns.

    Args:
        width: D, of tokens and slots.
        num_slots: M, at least 2.
        num_heads: H, a divisor of D.
        write: what a token does to the slots it addresses: see `memory.addressing.write_gates`.
        beta: how the write strength is squashed: sigmoid, or the paper's softmax over the address axis.
        address_axis: what addresses are normalised over. slots: every read is a convex combination of the slots.
        initial_std: standard deviation of the initial slots' entries. Default: 1, that of tokens behind a LayerNorm,
            so that initial and written slots are addressed alike. Well below 1 / sqrt(D), all addresses are uniform.
        generator: of the initial weights. Default: torch's global one.

    Attributes:
        initial_slots: (M, D), learned.
        address_query, address_key, write_query, write_key, write_value, output: the projections, without bias. The
            output starts at zero, so that tokens pass unchanged.
        norm: LayerNorm on what is read.

    Raises:
        ValueError: if a size or `initial_std` is out of range.
    """

    def __init__(
        self,
        width: int,
        num_slots: int,
        *,
        num_heads: int = 1,
        write: Write = "paper",
        beta: Beta = "sigmoid",
        address_axis: AddressAxis = "slots",
        initial_std: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_slots < 2:
            raise ValueError(f"num_slots={num_slots}: must be at least 2")
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads={num_heads}: must divide width={width}")
        if initial_std is not None and not initial_std > 0:
            raise ValueError(f"initial_std={initial_std}: must be positive, or slots would stay equal for ever")
        self.width, self.num_slots, self.num_heads = width, num_slots, num_heads
        self.write_form: Write = write
        self.beta: Beta = beta
        self.address_axis: AddressAxis = address_axis
        self.initial_slots = nn.Parameter(torch.empty(num_slots, width))
        self.address_query, self.address_key, self.write_query, self.write_key, self.write_value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(6)
        )
        self.norm = nn.LayerNorm(width)
        self.reset_parameters(1.0 if initial_std is None else initial_std, generator)

    @torch.no_grad()
    def reset_parameters(self, initial_std: float, generator: torch.Generator | None = None) -> None:
        """Draws slots and projections anew, and sets the output to zero.

        Projections are normal with variance 1 / D: over tokens and slots of unit scale, scores have unit variance.
        """
        nn.init.normal_(self.initial_slots, std=initial_std, generator=generator)
        for layer in (self.address_query, self.address_key, self.write_query, self.write_key, self.write_value):
            nn.init.normal_(layer.weight, std=self.width**-0.5, generator=generator)
        nn.init.zeros_(self.output.weight)
        self.norm.reset_parameters()

    def initial_state(self, batch: int) -> Tensor:
        """Gives the memory of `batch` rows that have seen nothing, BMD. It carries gradient to the initial slots."""
        return self.initial_slots.expand(batch, -1, -1)

    def read(self, memory_BMD: Tensor, token_BLD: Tensor) -> Tensor:
        """Gives what tokens of one step read, BLD, before norm and output projection."""
        key_BLHD = self._scoring_key(F.linear(token_BLD, self.address_key.weight), self.address_query)
        with torch.autocast(memory_BMD.device.type, enabled=False):
            score_BLHM = score(key_BLHD.to(memory_BMD.dtype), memory_BMD)
            address_BLHM = read_address(score_BLHM, self.address_axis, token_BLD.shape[1])
            return read_slots(address_BLHM, self._by_head(memory_BMD)).flatten(2)

    def write(self, memory_BMD: Tensor, token_BLD: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Gives the slots after one write of all tokens, whose effects are composed in their order.

        Args:
            memory_BMD: slots before; not changed.
            token_BLD: tokens.
            valid_BL: bool; the others are not written. None: all are.

        Returns:
            slots after, BMD.
        """
        return self.recall(memory_BMD, token_BLD.unsqueeze(2), valid_BL, chunk=token_BLD.shape[1]).memory_BMD

    def forward(
        self,
        memory_BMD: Tensor,
        token_BTGD: Tensor,
        valid_BT: Tensor | None,
        *,
        chunk: int,
        written_BTWD: Tensor | None = None,
        usage: bool = False,
    ) -> Recalled:
        """Gives the tokens with what they recall added to them. Arguments and errors: see `recall`."""
        recalled = self.recall(memory_BMD, token_BTGD, valid_BT, chunk=chunk, written_BTWD=written_BTWD, usage=usage)
        return recalled._replace(token_BTGD=token_BTGD + recalled.token_BTGD)

    def recall(
        self,
        memory_BMD: Tensor,
        token_BTGD: Tensor,
        valid_BT: Tensor | None,
        *,
        chunk: int,
        written_BTWD: Tensor | None = None,
        usage: bool = False,
    ) -> Recalled:
        """Runs a segment through the memory and gives what its tokens recall, without the tokens themselves.

        Chunks are counted from the segment's first position, padding included. Slots, addresses and gates are in the
        memory's precision, also under autocast.

        Args:
            memory_BMD: slots before the segment, float32; not changed.
            token_BTGD: the tokens that read.
            valid_BT: bool; steps that are padding are not written and not counted. None: there is no padding.
            chunk: C. 0: each step is written, then its tokens read, under the addresses from before the write. 1 or
                more: the tokens of C steps read the slots as they stand at the chunk's start, then are written.
            written_BTWD: what is written in place of the tokens: pooled patches, for instance, or all but a token
                that others of its step must not know of (with `chunk` = 0 they read what was written of it).
            usage: whether to measure.

        Returns:
            Wo LayerNorm(read) BTGD, the slots after the segment, and the usage if asked for.

        Raises:
            ValueError: if the memory's shape does not fit, or `chunk` is negative.
        """
        batch, num_steps, num_step_tokens = token_BTGD.shape[:3]
        if memory_BMD.shape != (batch, self.num_slots, self.width):
            expected = (batch, self.num_slots, self.width)
            raise ValueError(f"memory_BMD has shape {tuple(memory_BMD.shape)}: expected {expected}")
        if chunk < 0:
            raise ValueError(f"chunk={chunk}: must be 0 (write, then read, each step) or a positive number of steps")
        segment = self._project(token_BTGD, written_BTWD)
        reads: list[Tensor] = []
        traces: list[UsageTrace] = []
        with torch.autocast(memory_BMD.device.type, enabled=False):
            for part, valid_BC in _chunks(segment, valid_BT, max(chunk, 1), memory_BMD.dtype):
                read_BLD, memory_BMD, trace = self._advance(memory_BMD, part, valid_BC, num_step_tokens, chunk == 0)
                reads.append(read_BLD)
                traces.append(trace)
            normed_BLD = self.norm(torch.cat(reads, 1))
            measured = measure_usage(traces, memory_BMD) if usage else None
        return Recalled(self.output(normed_BLD).view(batch, num_steps, -1, self.width), memory_BMD, measured)

    def _advance(
        self, memory_BMD: Tensor, part: _Projected, valid_BC: Tensor | None, num_step_tokens: int, read_after: bool
    ) -> tuple[Tensor, Tensor, UsageTrace]:
        """Reads and writes one chunk: gives the reads BLD, the slots after, and a trace."""
        axis = self.address_axis
        read_valid_BL, write_valid_BL = (_per_token(valid_BC, key) for key in (part.read_key, part.write_key))
        write_score = score(part.write_key, memory_BMD)
        read_score = write_score if part.read_key is part.write_key else score(part.read_key, memory_BMD)
        read_address_BLHM = read_address(read_score, axis, num_step_tokens)
        shared = axis == "slots" and read_score is write_score
        write_address = read_address_BLHM if shared else softmax_over(write_score, axis, write_valid_BL)
        strength = write_strength(score(part.strength_key, memory_BMD), self.beta, axis, write_valid_BL)
        log_keep_BLHM, add_BLHM = write_gates(write_address, strength, self.write_form, write_valid_BL)
        before_BMHP = self._by_head(memory_BMD)
        after_BMHP = compose_writes(before_BMHP, log_keep_BLHM, add_BLHM, part.value)
        read_BLHP = read_slots(read_address_BLHM, after_BMHP if read_after else before_BMHP)
        trace = UsageTrace(read_address_BLHM.detach(), read_valid_BL, log_keep_BLHM.detach(), write_valid_BL)
        return read_BLHP.flatten(2), after_BMHP.flatten(2), trace

    def _project(self, token_BTGD: Tensor, written_BTWD: Tensor | None) -> _Projected:
        """Projects all tokens of a segment, with one product for those that are written."""
        source_BTWD = token_BTGD if written_BTWD is None else written_BTWD
        layers = (self.address_key, self.write_key, self.write_value)
        projected = F.linear(source_BTWD, torch.cat([layer.weight for layer in layers]))
        key, strength, value = projected.chunk(3, -1)
        write_key = read_key = self._scoring_key(key, self.address_query)
        if written_BTWD is not None:
            read_key = self._scoring_key(F.linear(token_BTGD, self.address_key.weight), self.address_query)
        return _Projected(read_key, write_key, self._scoring_key(strength, self.write_query), self._by_head(value))

    def _scoring_key(self, key: Tensor, query: nn.Module) -> Tensor:
        """Gives keys that score against the slots themselves: ...D to ...HD."""
        assert isinstance(query.weight, Tensor)
        return fold_query(self._by_head(key), query.weight)

    def _by_head(self, tensor: Tensor) -> Tensor:
        """Gives a view with the last axis split over the heads: ...D to ...HP."""
        return tensor.view(*tensor.shape[:-1], self.num_heads, -1)


def _chunks(
    segment: _Projected, valid_BT: Tensor | None, size: int, dtype: torch.dtype
) -> Iterator[tuple[_Projected, Tensor | None]]:
    """Cuts a segment into chunks of `size` steps, with steps and their tokens on one axis, and the chunks' masks."""
    num_steps = segment.value.shape[1]
    cast = {id(tensor): tensor.to(dtype) for tensor in segment}
    for start in range(0, num_steps, size):
        parts = {key: tensor[:, start : start + size].flatten(1, 2) for key, tensor in cast.items()}
        valid_BC = None if valid_BT is None else valid_BT[:, start : start + size]
        yield _Projected(*(parts[id(tensor)] for tensor in segment)), valid_BC


def _per_token(valid_BC: Tensor | None, token_BLHD: Tensor) -> Tensor | None:
    """Repeats a mask of steps for each of their tokens."""
    return None if valid_BC is None else valid_BC.repeat_interleave(token_BLHD.shape[1] // valid_BC.shape[1], 1)
