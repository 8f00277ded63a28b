"""The sequence model of every Decision Transformer here: tokens, backbone, memory, heads.

Outputs for step t depend on the observations, rewards and asked-for returns up to t and on the actions before it; never
on its own action or on anything later (docs/dt_mem.md). The memory is an argument and a result, never an attribute.

Legend: B rows, K steps, G tokens of a step, L tokens, M slots or memory tokens, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import torch
from torch import Tensor, nn

from agents.decision_transformer.backbone import (
    Backbone,
    initialize_like_gpt2,
    segment_mask,
    surrounded_mask,
    with_earlier,
    with_padding,
)
from agents.decision_transformer.embedding import SegmentEmbedding
from agents.decision_transformer.heads import Heads, Outputs
from agents.decision_transformer.inputs import PromptInputs, SegmentInputs, aligned, realigned
from agents.decision_transformer.memory_modules import SlotMemory, SlotPass, TokenMemory, TokenPass, build_memory
from agents.networks import PRECISIONS

if TYPE_CHECKING:
    from agents.decision_transformer.config import DecisionTransformerConfig
    from memory.data_summary import DataSummary

__all__ = ["Outputs", "SequenceModel"]


class SequenceModel(nn.Module):
    """From a segment and a memory to actions and the memory behind the segment.

    Args:
        config: of the model.
        observation_space: of one environment.
        action_space: of one environment, Discrete or a bounded Box of one dimension.
        data: statistics of the training data, for vector observations; None leaves them as they are.

    Attributes:
        embedding, backbone, memory (or None), heads: the parts, in this order.

    Raises:
        ValueError: if config and spaces do not fit together.
    """

    def __init__(
        self,
        config: DecisionTransformerConfig,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        data: DataSummary | None = None,
    ) -> None:
        super().__init__()
        self.embedding = SegmentEmbedding(config, observation_space, action_space, data)
        self.backbone = Backbone(config)
        self.heads = Heads(config, action_space, self.embedding.layout)
        for part in (self.embedding, self.backbone, self.heads):
            initialize_like_gpt2(part, config.num_layers, fan_in=config.initialization == "fan_in")
        self.memory = build_memory(config, self.embedding.layout)
        self.single_return = config.single_return_token
        self.precision = PRECISIONS[config.precision]
        self._masks: dict[tuple[int, int, torch.device], Tensor | None] = {}

    def initial_memory(self, batch: int) -> Tensor | None:
        """Gives the memory BMD of rows that have seen nothing, float32; None for a plain model. It carries gradient."""
        return None if self.memory is None else self.memory.initial_state(batch)

    def forward(
        self, inputs: SegmentInputs, memory_BMD: Tensor | None = None, *, usage: bool = False
    ) -> tuple[Outputs, Tensor | None]:
        """Gives the outputs of a segment and the memory behind it.

        Args:
            inputs: a segment of each row.
            memory_BMD: before the segment; not changed. None: the initial one.
            usage: whether to measure how the memory is used.

        Returns:
            outputs (those of padded steps mean nothing, but are finite), and the memory, None for a plain model.

        Raises:
            ValueError: if the segment or its prompt is too long.
        """
        inputs, places_BK = aligned(inputs)
        if memory_BMD is None:
            memory_BMD = self.initial_memory(len(inputs.valid))
        with torch.autocast(inputs.valid.device.type, self.precision, enabled=self.precision is not torch.float32):
            token_BKGD, memory_BMD, passed = self._through_backbone(inputs, memory_BMD, usage)
            action, *logits = self.heads(token_BKGD)
        measured, share_BM = ({}, None) if passed is None else passed.usage()
        return_logits, reward_logits = (None if part is None else realigned(part, places_BK) for part in logits)
        return Outputs(realigned(action, places_BK), return_logits, reward_logits, measured, share_BM), memory_BMD

    def _through_backbone(
        self, inputs: SegmentInputs, memory_BMD: Tensor | None, usage: bool
    ) -> tuple[Tensor, Tensor | None, SlotPass | None]:
        """Gives the tokens BKGD that the heads read, the memory behind the segment, and its way through the slots."""
        x_BLD = self.embedding(inputs).flatten(1, 2)
        prompt = None if inputs.prompt is None else self.embedding.prompt_tokens(inputs.prompt)
        before = 0 if prompt is None else prompt.shape[1]
        if prompt is not None:
            x_BLD = torch.cat((prompt, x_BLD), 1)
        if isinstance(self.memory, TokenMemory):
            assert memory_BMD is not None
            around = TokenPass(self.memory, memory_BMD, inputs.valid, self.embedding.layout.num_tokens)
            mask = self._mask(inputs, before, around.filled_BC)
            x_BLD = self.backbone(around.surrounded(x_BLD), mask, earlier=around.earlier)
            x_BLD, memory_BMD = around.separated(x_BLD)
            return x_BLD[:, before:].reshape(*inputs.valid.shape, -1, x_BLD.shape[-1]), memory_BMD, None
        passed = None
        if isinstance(self.memory, SlotMemory):
            assert memory_BMD is not None
            passed = SlotPass(self.memory, memory_BMD, inputs.valid, usage=usage)
        in_blocks = passed is not None and passed.slots.per_block
        mask = self._mask(inputs, before)
        x_BLD = self.backbone(x_BLD, mask, passed.between if passed is not None and in_blocks else None)
        token_BKGD = x_BLD[:, before:].unflatten(1, (inputs.valid.shape[1], -1))
        if passed is not None:
            if not in_blocks:
                token_BKGD = token_BKGD + passed.recall(0, token_BKGD)
            memory_BMD = passed.memory()
        return token_BKGD, memory_BMD, passed

    def _mask(self, inputs: SegmentInputs, prompt_length: int, filled_BC: Tensor | None = None) -> Tensor | None:
        """Gives who sees whom, None for plain causality: padding on the right is never seen by what comes before it.

        Args:
            inputs: of the segment.
            prompt_length: tokens of the prompt.
            filled_BC: bool, which tokens from before the segment there are; all but memory tokens see them.
        """
        mask_LL = self._static_mask(inputs.valid.shape[1], prompt_length, inputs.valid.device)
        around = self.memory.num_tokens if isinstance(self.memory, TokenMemory) else 0
        if mask_LL is None or not (around or prompt_length):
            return mask_LL
        own = torch.ones(len(inputs.valid), around, dtype=torch.bool, device=inputs.valid.device)
        valid = inputs.valid.repeat_interleave(self.embedding.layout.num_tokens, 1)
        before = [] if inputs.prompt is None else [_per_token(inputs.prompt, prompt_length)]
        mask = with_padding(mask_LL, torch.cat([own, *before, valid, own], 1))
        return mask if filled_BC is None else with_earlier(mask, filled_BC, around)

    def _static_mask(self, num_steps: int, prompt_length: int, device: torch.device) -> Tensor | None:
        """Gives the mask without padding; built once for each size."""
        key = (num_steps, prompt_length, device)
        if key not in self._masks:
            layout = self.embedding.layout
            mask = segment_mask(layout, num_steps, single_return=self.single_return)
            around = self.memory.num_tokens if isinstance(self.memory, TokenMemory) else 0
            if around or prompt_length:
                mask = surrounded_mask(mask, num_steps * layout.num_tokens, prompt=prompt_length, around=around)
            self._masks[key] = None if mask is None else mask.to(device)
        return self._masks[key]


def _per_token(prompt: PromptInputs, num_tokens: int) -> Tensor:
    return prompt.valid.repeat_interleave(num_tokens // prompt.valid.shape[1], 1)
