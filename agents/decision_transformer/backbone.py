"""The transformer: pre-norm blocks over the tokens of prompt, segment and memory, and who may see whom.

Legend: B rows, L tokens, H heads, P width of a head, D width, K steps, G tokens of a step.
Source: GPT-2 (openai/gpt-2, src/model.py) for blocks and initialisation; google-research/multi_game_dt for the patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.decision_transformer.adapters import BottleneckAdapter
from agents.decision_transformer.tokenizers import INIT_STD

if TYPE_CHECKING:
    from agents.decision_transformer.config import SequenceFields
    from agents.decision_transformer.embedding import StepLayout

MLP_FACTOR = 4
BetweenLayers = Callable[[int, Tensor], Tensor]
"""From the number of a block and its tokens after attention to the tokens its MLP gets."""
EarlierTokens = Callable[[int, Tensor], Tensor | None]
"""From the number of a block and the tokens it gets to earlier ones BCD that they see too."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values.

    Args:
        width: D.
        num_heads: H.
        dropout: probability of dropping an attention weight or an output.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None, num_earlier: int = 0) -> Tensor:
        """Gives what the tokens gather, BLD; only (B, L - C, D) where the first C are earlier ones.

        Args:
            x_BLD: tokens.
            mask_LL: bool, True where a row's token sees a column's, (L, L) or (B, 1, L, L), (B, 1, L - C, L) with
                earlier ones; None: those up to itself.
            num_earlier: C, how many of the first tokens are seen and gather nothing themselves.
        """
        heads = self.qkv(x_BLD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        gathered_BHLP = F.scaled_dot_product_attention(
            heads[0, :, :, num_earlier:],
            heads[1],
            heads[2],
            attn_mask=mask_LL,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=mask_LL is None,
        )
        return self.dropout(self.output(gathered_BHLP.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention, then perhaps a memory, then an MLP and perhaps an adapter; each adds to its input.

    Args:
        config: of the model.
    """

    def __init__(self, config: SequenceFields) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.num_heads, config.dropout)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp_in = nn.Linear(config.width, MLP_FACTOR * config.width)
        self.mlp_out = nn.Linear(MLP_FACTOR * config.width, config.width)
        self.activation: nn.Module = nn.GELU() if config.activation == "gelu" else nn.ReLU()
        self.dropout = nn.Dropout(config.dropout)
        self.adapter = None if config.adapter is None else BottleneckAdapter(config.width, config.adapter)

    def forward(
        self,
        x_BLD: Tensor,
        mask_LL: Tensor | None,
        between: Callable[[Tensor], Tensor] | None = None,
        earlier_BCD: Tensor | None = None,
    ) -> Tensor:
        """Gives the tokens after the block, BLD.

        Args:
            x_BLD: tokens.
            mask_LL: see `SelfAttention`.
            between: applied to the tokens after attention, such as a memory.
            earlier_BCD: what this block was given before, seen besides.
        """
        if earlier_BCD is None:
            gathered_BLD = self.attention(self.norm1(x_BLD), mask_LL)
        else:
            seen_BLD = torch.cat((earlier_BCD, x_BLD), 1)
            gathered_BLD = self.attention(self.norm1(seen_BLD), mask_LL, earlier_BCD.shape[1])
        x_BLD = x_BLD + gathered_BLD
        if between is not None:
            x_BLD = between(x_BLD)
        y_BLD = self.dropout(self.mlp_out(self.activation(self.mlp_in(self.norm2(x_BLD)))))
        if self.adapter is not None:
            y_BLD = self.adapter(y_BLD)
        return x_BLD + y_BLD


class Backbone(nn.Module):
    """Blocks and a final norm.

    Args:
        config: of the model.
    """

    def __init__(self, config: SequenceFields) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self,
        x_BLD: Tensor,
        mask_LL: Tensor | None,
        between: BetweenLayers | None = None,
        earlier: EarlierTokens | None = None,
    ) -> Tensor:
        """Gives the normalised tokens after all blocks, BLD.

        Args:
            x_BLD: tokens.
            mask_LL: see `SelfAttention`.
            between: applied in each block between attention and MLP.
            earlier: gives each block more tokens to see.
        """
        for index, block in enumerate(self.blocks):
            x_BLD = block(
                x_BLD,
                mask_LL,
                None if between is None else _at_layer(between, index),
                None if earlier is None else earlier(index, x_BLD),
            )
        return self.norm(x_BLD)


def _at_layer(between: BetweenLayers, index: int) -> Callable[[Tensor], Tensor]:
    return lambda x_BLD: between(index, x_BLD)


@torch.no_grad()
def initialize_like_gpt2(module: nn.Module, num_layers: int, *, fan_in: bool = False) -> None:
    """Sets linear layers and tables to a normal of deviation 0.02, and biases to zero, in place.

    Layers that add to the residual stream are scaled down by sqrt(2 * layers). Convolutional networks and adapters keep
    their own. Source: GPT-2; karpathy/minGPT.

    Args:
        module: part of a model.
        num_layers: blocks of the whole model.
        fan_in: whether linear layers start with deviation 1 / sqrt(inputs) instead, which at GPT-2's own width of 768
            is 0.036. In narrow models 0.02 makes attention scores, and so their gradients, nearly nothing.
    """
    for name, part in module.named_modules():
        if {"body", "adapter"} & set(name.split(".")):
            continue
        if isinstance(part, nn.Linear | nn.Embedding):
            adds = name.endswith(("attention.output", "mlp_out"))
            std = part.in_features**-0.5 if fan_in and isinstance(part, nn.Linear) else INIT_STD
            nn.init.normal_(part.weight, std=std / (math.sqrt(2 * num_layers) if adds else 1.0))
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def segment_mask(layout: StepLayout, num_steps: int, *, single_return: bool) -> Tensor | None:
    """Gives who sees whom among the tokens of a segment, (L, L) bool, or None where that is plain causality.

    A token sees those before it, itself, and all patches of its own frame; with `single_return`, none but the first of
    the return tokens is seen.

    Source: google-research/multi_game_dt, the notebook's attention mask.
    """
    if layout.num_obs_tokens == 1 and not single_return:
        return None
    places_L = torch.arange(num_steps * layout.num_tokens)
    step_L, token_L = places_L // layout.num_tokens, places_L % layout.num_tokens
    patch_L = (token_L >= layout.obs.start) & (token_L < layout.obs.stop)
    same_frame_LL = (step_L[:, None] == step_L) & patch_L[:, None] & patch_L
    mask_LL = (places_L[:, None] >= places_L) | same_frame_LL
    if single_return:
        mask_LL &= (token_L != layout.return_at) | (step_L == 0)
    return mask_LL


def surrounded_mask(mask_LL: Tensor | None, num_tokens: int, *, prompt: int = 0, around: int = 0) -> Tensor:
    """Gives the mask of memory tokens, prompt, segment and memory tokens again, in this order.

    The prompt is causal and sees the leading memory tokens; the segment sees both besides its own mask. Leading memory
    tokens see each other only, trailing ones see all.

    Args:
        mask_LL: of the segment, None for plain causality.
        num_tokens: of the segment, L.
        prompt: tokens of the prompt.
        around: memory tokens before, and as many after.

    Source: zen0no/RATE for the memory tokens.
    """
    before, end = around + prompt, around + prompt + num_tokens
    full = torch.ones(end + around, end + around, dtype=torch.bool).tril()
    full[:around, :around] = True
    if mask_LL is not None:
        full[before:end, before:end] = mask_LL
    full[end:] = True
    return full


def with_padding(mask_LL: Tensor, valid_BL: Tensor) -> Tensor:
    """Gives masks (B, 1, L, L) under which padded tokens are seen by nobody, except by themselves.

    So a padded token never sees nothing at all, which would make its output NaN.

    Args:
        mask_LL: without padding.
        valid_BL: bool, True where a token is real.
    """
    own_LL = torch.eye(len(mask_LL), dtype=torch.bool, device=mask_LL.device)
    seen_BLL = mask_LL & valid_BL.unsqueeze(1)
    return (seen_BLL | (own_LL & ~valid_BL.unsqueeze(1))).unsqueeze(1)


def with_earlier(mask_B1LL: Tensor, filled_BC: Tensor, around: int) -> Tensor:
    """Gives masks (B, 1, L, C + L) under which tokens from before the segment are seen by all but memory tokens.

    Args:
        mask_B1LL: of memory tokens, segment, and memory tokens again.
        filled_BC: bool, which of them there are.
        around: memory tokens before, and as many after.

    Source: zen0no/RATE, with its default read_mem_from_cache=False.
    """
    reads_L1 = torch.ones(mask_B1LL.shape[2], 1, dtype=torch.bool, device=filled_BC.device)
    reads_L1[:around] = reads_L1[len(reads_L1) - around :] = False
    return torch.cat(((filled_BC.unsqueeze(1) & reads_L1).unsqueeze(1), mask_B1LL), 3)
