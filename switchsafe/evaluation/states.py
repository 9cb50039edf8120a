"""What a model computes where its answers begin: the last hidden states, and what its head makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..batching import gapless_head, left_pad
from ..errors import MetricError
from ..metrics.unembedding import Unembedding
from ..progress import bar
from .head import Head
from .store import Arrays, Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 4096  # ids in one forward pass on a CPU, padding included
ACCELERATOR_BATCH_TOKENS = 32768


@dataclass(frozen=True)
class States:
    """What was computed at the first answer tokens of N rows of ids.

    Attributes:
        hidden: what the unembedding got, shape (N, depth, d), float32.
        log_sums: logarithm of the summed exponentials of the logits, shape (N, depth), float64.
        alive: whether the row's answer went on to that token, shape (N, depth).
        logits: shape (N, depth, V), float32, where there is no `unembedding`; else None.
        unembedding: turns hidden states into logits; None where that is not possible.
        why_not: the reason for None, in words.
    """

    hidden: NDArray[np.float32]
    log_sums: NDArray[np.float64]
    alive: NDArray[np.bool_]
    logits: NDArray[np.float32] | None
    unembedding: Unembedding | None
    why_not: str


def read_states(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Sequence[int]],
    *,
    group: int,
    depth: int = 1,
    batch_size: int | None = None,
    folder: Path | None = None,
    identity: Any = None,
) -> States:
    """Run N prompts, and `depth - 1` greedy answer tokens after each; only the last position is projected.

    Rows of one prompt go through together, shortest prompts first. Where an accelerator's memory runs out, batches get smaller.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: for padding.
        rows: ids of the prompts.
        group: how many rows in a line belong to one prompt.
        depth: answer tokens to look at.
        batch_size: rows per forward pass; by default as many as make 4,096 ids, on an accelerator 32,768.
        folder: keeps what is done there, so that a stopped call goes on; by default nothing is kept.
        identity: what the rows are, in a form that may be written down.

    Raises:
        RunError: `folder` holds the states of other rows or of another model, or other files.
        MetricError: a logit is not finite.
    """
    import torch

    head = Head(model)
    store = Store(folder, {"rows": identity, "depth": depth})
    longest = {start: max(map(len, rows[start : start + group])) for start in range(0, len(rows), group)}
    order = sorted(longest, key=lambda start: longest[start])
    done = store.done
    todo = [start for start in order if start not in done]
    most = BATCH_TOKENS if model.device.type == "cpu" else ACCELERATOR_BATCH_TOKENS
    with torch.inference_mode(), gapless_head(model) as seen, bar("Reading first answer tokens", len(order)) as advance:
        if done:  # the cheapest way to know that it is still the same model
            first = min(done, key=lambda start: longest[start])
            store.compare(first, _run(model, tokenizer, rows[first : first + group], depth=depth, head=head, seen=seen))
            advance(len(done))
        while todo:
            rows_to = [group * (n + 1) for n in range(len(todo))]
            fits = [n * (longest[start] + depth) <= most for n, start in zip(rows_to, todo, strict=True)]
            batch = todo[: max(1, batch_size // group if batch_size else sum(fits))]
            try:
                ids = [rows[start + i] for start in batch for i in range(group)]
                store.add(batch, _run(model, tokenizer, ids, depth=depth, head=head, seen=seen))
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                batch_size = len(batch) * group // 2
                if torch.accelerator.is_available():
                    torch.accelerator.empty_cache()
                continue
            todo = todo[len(batch) :]
            advance(len(batch))
    found = store.gather(len(rows), group)
    if bad := int((~np.isfinite(found["log_sums"])).any(axis=1).sum()):
        raise MetricError(f"{bad} of {len(rows)} points hold NaN or infinity: no distance can be taken.")
    logits = found.pop("logits", None)
    return States(**found, logits=logits, unembedding=head.unembedding, why_not=head.why_not)


def _run(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Sequence[int]],
    *,
    depth: int,
    head: Head,
    seen: list[Any],
) -> Arrays:
    """The arrays of `States` for some rows, in one batch; `seen` is what `gapless_head` yields."""
    import torch

    inputs = left_pad(rows, tokenizer, model.device)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([] if ends is None else ends, device=model.device).reshape(-1)
    alive = torch.ones(len(ids), dtype=torch.bool, device=model.device)
    cache: Any = None
    found: dict[str, list[Any]] = {"hidden": [], "log_sums": [], "alive": [], "logits": []}
    for step in range(depth):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=depth > 1,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1]
        hidden = seen[0][:, -1]
        head.check(hidden, logits)
        found["hidden"].append(hidden.float().cpu().numpy())
        found["log_sums"].append(logits.float().logsumexp(-1).cpu().double().numpy())
        found["alive"].append(alive.cpu().numpy())
        if head.unembedding is None:
            found["logits"].append(logits.float().cpu().numpy())
        if step + 1 < depth:
            chosen = logits.argmax(-1)
            alive = alive & ~torch.isin(chosen, ends)
            ids, cache = chosen[:, None], output.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return {name: np.stack(steps, axis=1) for name, steps in found.items() if steps}
