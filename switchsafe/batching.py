"""Rows of ids of different lengths as one left-padded batch, and a trap on a batch's way through the head."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


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


@contextmanager
def gapless_head(model: "PreTrainedModel") -> Iterator[list[Any]]:
    """Give the unembedding rows without gaps; yields a list that holds what it got last, shape (rows, positions, d).

    The last position of a batch is a slice with gaps, and torch multiplies such a slice with a frozen weight by copying the weight once for every
    row: 3.3 GB for 60 rows of the starter under an adapter.
    """
    seen: list[Any] = []
    thread = threading.get_ident()  # others may use the model meanwhile

    def close(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = args[0].contiguous()
        if threading.get_ident() == thread:
            seen[:] = [rows]
        return (rows, *args[1:])

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(close) if head is not None else None
    try:
        yield seen
    finally:
        if handle:
            handle.remove()
