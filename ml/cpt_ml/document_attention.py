"""Attention and positions that stay within a document where several share a window.

`documents_BT` numbers the documents of each window: neighbours with the same number belong together. Shape suffixes:
B batch, T tokens, N heads, H head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def document_positions(documents_BT: Tensor) -> Tensor:
    """Place of each token in its document, 0 for the first that the window has of it (B, T)."""
    index_BT = torch.arange(documents_BT.shape[1], device=documents_BT.device).expand_as(documents_BT)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    start_BT = torch.where(begins_BT, index_BT, torch.zeros_like(index_BT)).cummax(1).values
    return index_BT - start_BT


def document_mask(documents_BT: Tensor) -> Any:
    """What `attend` takes as its mask, made once for all layers: of a GPU the blocks that hold anything to compute
    (flex_attention, arXiv:2412.05496), else a boolean (B, 1, T, T)."""
    if documents_BT.device.type == "cuda":
        return block_mask(documents_BT)
    causal_TT = torch.ones(documents_BT.shape[1], documents_BT.shape[1], dtype=torch.bool).tril()
    return (documents_BT[:, None, :, None] == documents_BT[:, None, None, :]) & causal_TT


def block_mask(documents_BT: Tensor) -> Any:
    """The same as flex_attention's BlockMask."""
    from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415 - imports torch._dynamo, seconds

    def within(b: Tensor, _: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents_BT[b, q] == documents_BT[b, k])

    batch, length = documents_BT.shape
    return create_block_mask(within, batch, None, length, length, device=str(documents_BT.device))


def attend(q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, mask: Any = None) -> Tensor:
    """Causal attention; with a document_mask within documents only."""
    if mask is None:
        return F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, is_causal=True)
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, attn_mask=mask)
    # rotary angles are float32 under autocast, and flex_attention wants one type
    return _flex_attention(q_BNTH.is_cuda)(q_BNTH.to(v_BNTH.dtype), k_BNTH.to(v_BNTH.dtype), v_BNTH, block_mask=mask)


@functools.cache
def _flex_attention(compiled: bool) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415

    # without a compiler it would hold all T² scores
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
