"""Rows of ids of different lengths as one left-padded batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def left_pad(rows: Sequence[Sequence[int]], tokenizer: Any, device: Any = None) -> "dict[str, torch.Tensor]":
    """`input_ids` and `attention_mask` of shape (rows, longest), int64. Left, so that the last column is each row's last id."""
    import torch

    width = max(map(len, rows))
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.full((len(rows), width), 0 if filler is None else filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row)
        mask[index, width - len(row) :] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
