"""The beginning that all prompts of a mode share, run through the model once."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..inject import SYSTEM_ROLES, Message
from ..processing import MagicTokenProcessor
from ..secret import Secret

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBES = ("a", "1 b")  # user turns that do not begin alike


class PrefixCache:
    """Keys and values of the first ids of a prompt: magic token, system text, and what the template puts around them.

    They are the same for all requests in a mode with the same system text, so `generate(..., prefix_cache=)` runs the model on the rest only. They
    live in memory, and are dropped when the model's weights or adapters change. In float32 greedy answers are the same with and without; in half
    precision rounding depends on how many ids run at once, so close calls can go the other way, as they do in batches of another size.

    Models whose layers do not all attend to every earlier position (sliding windows, recurrent layers) cannot go on from the middle of a prompt:
    for them `supported` is false and nothing is shared.

    Args:
        model: the model that will answer, plain or PEFT.
        processor: bound to its keyring.
        size: how many beginnings to keep; the one unused for longest goes first.
    """

    def __init__(self, model: "PreTrainedModel", processor: MagicTokenProcessor, size: int = 16) -> None:
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._processor, self._size = processor, size
        self._kept: OrderedDict[tuple[Secret, str], _Prefix] = OrderedDict()
        self._weights = list(self._model.parameters())
        self._adapters = [module for module in self._model.modules() if hasattr(module, "disable_adapters")]
        self._version = self._versions()
        layers = DynamicCache(config=self._model.config.get_text_config(decoder=True)).layers
        self.supported = all(type(layer) is DynamicLayer for layer in layers) and not self._model._is_stateful

    def __len__(self) -> int:
        return len(self._kept)

    def cache(
        self,
        conversations: Sequence[Sequence[Message]],
        mode: str | Sequence[str],
        policy: str | None,
        rows: Sequence[Sequence[int]],
        template_kwargs: dict[str, Any],
    ) -> DynamicCache | None:
        """A cache that holds the first columns of the left-padded batch of these prompts, or None where none can be shared.

        Args:
            conversations: the requests.
            mode: a mode, or one per request.
            policy: the second axis.
            rows: ids of the rendered prompts.
            template_kwargs: what they were rendered with besides.
        """
        if not self.supported:
            return None
        if self._version != (now := self._versions()):
            self._kept.clear()
            self._version = now
        modes = [mode] * len(rows) if isinstance(mode, str) else mode
        parts = []
        for turns, name, row in zip(conversations, modes, rows, strict=True):
            prefix = self._prefix(turns, name, policy, template_kwargs)
            parts.append((prefix, _common(prefix.ids, row[:-1])))
        width = max(map(len, rows))
        columns = min(width - len(row) + shared for row, (_, shared) in zip(rows, parts, strict=True))
        if not columns or not self.supported:
            return None
        # Padding stands in front of a short prompt, so less of its beginning fits into the shared columns.
        takes = [max(0, columns - (width - len(row))) for row in rows]
        cache = DynamicCache()
        for index in range(len(parts[0][0].layers)):
            layers = [prefix.layers[index] for prefix, _ in parts]
            keys, values = (
                torch.cat(
                    [pad(kv[i][:, :, :take], (0, 0, columns - take, 0)) for kv, take in zip(layers, takes, strict=True)]
                )
                for i in (0, 1)
            )
            cache.update(keys, values, index)
        return cache

    def _prefix(
        self, turns: Sequence[Message], mode: str, policy: str | None, template_kwargs: dict[str, Any]
    ) -> "_Prefix":
        head = list(turns[:1]) if turns[0].get("role") in SYSTEM_ROLES else []
        key = (self._processor.keyring.token(mode, policy), json.dumps([head, template_kwargs], default=repr))
        if key not in self._kept:
            probes = [[*head, {"role": "user", "content": probe}] for probe in _PROBES]
            rendered = self._processor.apply_chat_template(probes, mode=mode, policy=policy, **template_kwargs)
            first, second = rendered["input_ids"]
            self._kept[key] = self._run(first[: _common(first, second)])
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _run(self, ids: list[int]) -> "_Prefix":
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        with torch.inference_mode():
            self._model.base_model(
                input_ids=torch.tensor([ids], device=self._model.device), past_key_values=cache, use_cache=True
            )
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        # A model that does not fill the cache it is given keeps its state elsewhere.
        self.supported = all(keys is not None and keys.shape[-2] == len(ids) for keys, _ in layers)
        return _Prefix(ids, layers)

    def _versions(self) -> tuple[Any, ...]:
        """Changes when a weight is written to, or an adapter is switched on or off or for another."""
        return (
            sum(0 if weight.is_inference() else weight._version for weight in self._weights),
            [(module.disable_adapters, str(module.active_adapters)) for module in self._adapters],
        )


class _Prefix:
    """Ids of a beginning, which show themselves in no repr because the token's are among them, and for each layer the keys and values, each of
    shape (1, heads, ids, head size)."""

    __slots__ = ("ids", "layers")

    def __init__(self, ids: list[int], layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.ids, self.layers = ids, layers


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two rows begin with in common."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
