"""Batches on their way through a model."""

from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from switchsafe.batching import gapless_head, left_pad


def test_rows_are_padded_on_the_left():
    tokenizer = SimpleNamespace(pad_token_id=None, eos_token_id=7)
    batch = left_pad([[1, 2, 3], [4]], tokenizer)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [7, 7, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


class Products(TorchDispatchMode):
    """The operations that make logits."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.names = vocabulary, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-1] == self.vocabulary:
            self.names.add(function.overloadpacket.__name__)
        return result


def test_a_frozen_head_is_multiplied_once_and_not_row_by_row(tiny_folder):
    from switchsafe import load_model

    model, ids = load_model(str(tiny_folder)).requires_grad_(False), torch.randint(0, 300, (40, 9))
    with torch.no_grad(), Products(model.config.vocab_size) as without:
        plain = model(ids, logits_to_keep=1).logits
    with torch.no_grad(), gapless_head(model) as seen, Products(model.config.vocab_size) as products:
        logits = model(ids, logits_to_keep=1).logits
    assert torch.allclose(logits, plain, atol=1e-4)
    assert seen[0].shape == (40, 1, 32)
    assert "bmm" not in products.names
    assert "bmm" in without.names, "torch has mended it: gapless_head is of no use any more"
    assert not model.lm_head._forward_pre_hooks
