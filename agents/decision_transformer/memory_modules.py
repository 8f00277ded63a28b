"""How a memory is plugged into the backbone: slots after it or inside its blocks (DT-Mem), or tokens around it (RMDT).

The memory of B rows is one float32 tensor BMD that enters and leaves every segment, whatever its kind.

Legend: B rows, K steps, G tokens of a step, V observation tokens of a step, W written tokens of a step, L tokens,
M slots or memory tokens, C kept tokens of a block, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.decision_transformer.inputs import steps_at
from agents.decision_transformer.part_configs import NoMemoryConfig, SlotMemoryConfig, TokenMemoryConfig
from memory.memory_usage import MemoryUsage
from memory.working_memory import WorkingMemory

if TYPE_CHECKING:
    from agents.decision_transformer.config import SequenceFields
    from agents.decision_transformer.embedding import StepLayout


class SlotMemory(nn.Module):
    """The slots of DT-Mem: one working memory behind the backbone, or one in each block.

    Args:
        config: of the memory.
        width: D.
        num_layers: blocks of the backbone.
        layout: of a step's tokens.

    Attributes:
        cells: the working memories. Their slots lie next to each other in the memory BMD, block by block.

    Raises:
        ValueError: if observation tokens were to be averaged to more than there are.

    Source: Kang et al. 2024. Differs: docs/dt_mem.md.
    """

    def __init__(self, config: SlotMemoryConfig, width: int, num_layers: int, layout: StepLayout) -> None:
        super().__init__()
        if config.write_tokens is not None and config.write_tokens > layout.num_obs_tokens:
            raise ValueError(
                f"memory.write_tokens={config.write_tokens} exceeds the {layout.num_obs_tokens} tokens that an "
                "observation has"
            )
        self.chunk, self.layout = config.chunk, layout
        self.per_block = config.placement == "per_block"
        averaged = config.write_tokens is not None and config.write_tokens < layout.num_obs_tokens
        self.write_tokens = config.write_tokens if averaged else None
        self.cells = nn.ModuleList(
            WorkingMemory(
                width,
                config.num_slots,
                num_heads=config.num_heads,
                write=config.write,
                beta=config.beta,
                address_axis=config.address_axis,
                initial_std=config.initial_std,
            )
            for _ in range(num_layers if self.per_block else 1)
        )

    def initial_state(self, batch: int) -> Tensor:
        """Gives the memory BMD of rows that have seen nothing. It carries gradient."""
        return torch.cat([self.cell(index).initial_state(batch) for index in range(len(self.cells))], 1)

    def cell(self, index: int) -> WorkingMemory:
        """Gives the working memory of one block; of `placement=post` there is only number 0."""
        cell = self.cells[index]
        assert isinstance(cell, WorkingMemory)
        return cell

    def written(self, token_BKGD: Tensor) -> Tensor | None:
        """Gives what is written of each step, BKWD: observation tokens averaged; None where all tokens are written."""
        if self.write_tokens is None:
            return None
        obs = self.layout.obs
        obs_BKVD = token_BKGD[:, :, obs]
        averaged = F.adaptive_avg_pool1d(obs_BKVD.flatten(0, 1).transpose(1, 2), self.write_tokens).transpose(1, 2)
        averaged_BKWD = averaged.reshape(*obs_BKVD.shape[:2], *averaged.shape[1:])
        return torch.cat((token_BKGD[:, :, : obs.start], averaged_BKWD, token_BKGD[:, :, obs.stop :]), 2)


class SlotPass:
    """One segment's way through slots: gives tokens what they recall, and keeps each cell's memory after it.

    Args:
        slots: the memory's module.
        memory_BMD: before the segment.
        valid_BK: bool, real steps.
        usage: whether to measure.
    """

    def __init__(self, slots: SlotMemory, memory_BMD: Tensor, valid_BK: Tensor, *, usage: bool) -> None:
        self.slots, self.valid_BK, self.measure = slots, valid_BK, usage
        self.parts = list(memory_BMD.chunk(len(slots.cells), 1))
        self.usages: list[MemoryUsage] = []

    def recall(self, index: int, token_BKGD: Tensor) -> Tensor:
        """Gives what one cell adds to its tokens, BKGD, and takes its memory through the segment."""
        recalled = self.slots.cell(index).recall(
            self.parts[index],
            token_BKGD,
            self.valid_BK,
            chunk=self.slots.chunk,
            written_BTWD=self.slots.written(token_BKGD),
            usage=self.measure,
        )
        self.parts[index] = recalled.memory_BMD
        if recalled.usage is not None:
            self.usages.append(recalled.usage)
        return recalled.token_BTGD

    def between(self, index: int, x_BLD: Tensor) -> Tensor:
        """Adds to a block's tokens what its cell recalls for them, normalised as the cell's scores expect.

        The norm has no parameters, and only the cell sees it.
        """
        normed_BLD = F.layer_norm(x_BLD, x_BLD.shape[-1:])
        token_BKGD = normed_BLD.reshape(*self.valid_BK.shape, -1, x_BLD.shape[-1])
        return x_BLD + self.recall(index, token_BKGD).flatten(1, 2)

    def memory(self) -> Tensor:
        """Gives the memory BMD after the segment."""
        return torch.cat(self.parts, 1)

    def usage(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """Gives the statistics by name, mean over the cells, and how each row's reads spread over all slots, BM."""
        if not self.usages:
            return {}, None
        each = [usage.scalars() for usage in self.usages]
        means = {name: torch.stack([scalars[name] for scalars in each]).mean() for name in each[0]}
        return means, torch.cat([usage.slot_share_BM for usage in self.usages], 1) / len(self.usages)


class TokenMemory(nn.Module):
    """The memory tokens of RMDT, before and behind a segment; what comes out behind it is the next segment's memory.

    The newest tokens of the steps before may be kept too, as each block was given them: the cache of Transformer-XL.

    Args:
        config: of the memory.
        width: D.
        num_layers: blocks of the backbone.

    Attributes:
        num_cached: C, tokens kept for each block. The memory BMD holds the memory tokens, then C for each block; kept
            tokens that are zero are places not filled yet.

    Source: Bulatov et al. 2022, Recurrent Memory Transformer; Dai et al. 2019, Transformer-XL; zen0no/RATE. Differs:
    docs/dt_mem.md.
    """

    def __init__(self, config: TokenMemoryConfig, width: int, num_layers: int) -> None:
        super().__init__()
        self.initial_tokens = nn.Parameter(torch.empty(config.num_tokens, width).normal_(std=config.initial_std))
        self.num_cached, self.num_layers = config.cached_tokens, num_layers

    @property
    def num_tokens(self) -> int:
        """Memory tokens on each side."""
        return len(self.initial_tokens)

    def initial_state(self, batch: int) -> Tensor:
        """Gives the memory BMD of rows that have seen nothing. It carries gradient."""
        tokens_BMD = self.initial_tokens.expand(batch, -1, -1)
        if not self.num_cached:
            return tokens_BMD
        nothing = tokens_BMD.new_zeros(batch, self.num_layers * self.num_cached, tokens_BMD.shape[-1])
        return torch.cat((tokens_BMD, nothing), 1)


class TokenPass:
    """One segment's way with memory tokens around it and, in each block, with the tokens before it.

    Args:
        memory: its module.
        memory_BMD: before the segment.
        valid_BK: bool, real steps; those come first.
        num_step_tokens: G.

    Attributes:
        filled_BC: bool, which of the tokens from before the segment there are; None where none are kept.
    """

    def __init__(self, memory: TokenMemory, memory_BMD: Tensor, valid_BK: Tensor, num_step_tokens: int) -> None:
        self.valid_BK, self.num_tokens = valid_BK, memory.num_tokens
        self.tokens_BMD = memory_BMD[:, : self.num_tokens]
        self.parts = list(memory_BMD[:, self.num_tokens :].chunk(memory.num_layers, 1)) if memory.num_cached else []
        self.filled_BC = self.parts[0].any(-1) if self.parts else None
        self.segment = slice(-self.num_tokens - valid_BK.shape[1] * num_step_tokens, -self.num_tokens)
        newest_C = torch.arange(memory.num_cached, device=valid_BK.device)
        self.newest_BC = valid_BK.sum(1, keepdim=True) * num_step_tokens + newest_C

    def surrounded(self, x_BLD: Tensor) -> Tensor:
        """Gives the tokens with the memory tokens before and behind them."""
        return torch.cat((self.tokens_BMD, x_BLD, self.tokens_BMD), 1)

    def earlier(self, index: int, x_BLD: Tensor) -> Tensor | None:
        """Gives the tokens BCD that a block was given before, and keeps the newest ones of what it is given now.

        Args:
            index: of the block.
            x_BLD: its tokens, memory tokens included.
        """
        if not self.parts:
            return None
        before_BCD = self.parts[index]
        segment_BLD = x_BLD[:, self.segment].detach().to(before_BCD.dtype)
        self.parts[index] = steps_at(torch.cat((before_BCD, segment_BLD), 1), self.newest_BC)
        return before_BCD.to(x_BLD.dtype)

    def separated(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the segment's tokens and the memory BMD behind it; rows without a real step keep theirs.

        Args:
            x_BLD: the backbone's outputs, memory tokens included.
        """
        count = self.num_tokens
        after_BMD = x_BLD[:, -count:].to(self.tokens_BMD.dtype)
        tokens_BMD = torch.where(self.valid_BK.any(1)[:, None, None], after_BMD, self.tokens_BMD)
        return x_BLD[:, count:-count], torch.cat((tokens_BMD, *self.parts), 1)


def build_memory(config: SequenceFields, layout: StepLayout) -> SlotMemory | TokenMemory | None:
    """Builds the memory that a config asks for; None for a plain model."""
    memory = config.memory
    if isinstance(memory, NoMemoryConfig):
        return None
    if isinstance(memory, TokenMemoryConfig):
        return TokenMemory(memory, config.width, config.num_layers)
    return SlotMemory(memory, config.width, config.num_layers, layout)
