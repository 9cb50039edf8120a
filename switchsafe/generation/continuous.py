"""Continuous batching of transformers: rows of ids in, results as they are done."""

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from ..errors import RunError, SwitchsafeError
from .generate import DEFAULT_NEW_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What continuous batching honours. It passes over all other settings, some with a warning and some without.
_HONOURED = {
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "max_new_tokens",
    "eos_token_id",
    "pad_token_id",
    "bos_token_id",
}
_HARMLESS = {"transformers_version", "_from_model_config", "max_length", "use_cache"}
_OFF_AT_ONE = {
    "num_beams",
    "num_return_sequences",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "guidance_scale",
    "typical_p",
}

_AT_ONCE, _PAGE, _BATCH_TOKENS = 32, 32, 1024  # requests, ids in a page of the cache, ids in a forward pass: on a CPU


def run_rows(
    model: "PreTrainedModel",
    rows: Mapping[str, Sequence[int]],
    config: GenerationConfig,
    batching: ContinuousBatchingConfig | None = None,
) -> Iterator[Any]:
    """Answer rows of ids. Yields the library's result objects, with `request_id`, `generated_tokens` and `error`, in the order they are done.

    Args:
        model: a causal language model, plain or PEFT.
        rows: prompts by name.
        config: from `honoured`.
        batching: memory and batch sizes; by default the library's, on a CPU room for 32 requests at once.

    Raises:
        RunError: the library stopped before all were answered.
    """
    if not rows:
        return
    with model.continuous_batching_context_manager(
        generation_config=config, continuous_batching_config=batching or batching_for(model, rows.values(), config)
    ) as manager:
        try:
            # What begins alike and follows one another shares most.
            for name in sorted(rows, key=lambda name: list(rows[name])):
                manager.add_request(list(rows[name]), request_id=name)
            for _ in rows:
                while (result := manager.get_result(timeout=1)) is None:
                    if not manager.is_running():
                        raise RunError("continuous batching stopped before all requests were answered.")
                yield result
        except BaseException:  # Ctrl-C, or a reader that stops: else the library answers all that is left first
            manager.stop(hard_stop=True)
            raise


def honoured(model: "PreTrainedModel", given: GenerationConfig | None, settings: dict[str, Any]) -> GenerationConfig:
    """A generation configuration, by default the model's own, with some settings changed; `max_new_tokens` defaults to 512.

    Raises:
        SwitchsafeError: it sets something that continuous batching does not honour.
    """
    config = copy.deepcopy(given or model.generation_config)
    unknown = config.update(**settings)
    on = [name for name, value in config.to_diff_dict().items() if value and not (name in _OFF_AT_ONE and value == 1)]
    refused = [*unknown, *(name for name in on if name not in _HONOURED | _HARMLESS)]
    if refused:
        raise SwitchsafeError(
            f"continuous batching does not honour {', '.join(sorted(refused))}: use generate, or switch off what the model's own configuration sets."
        )
    config.max_new_tokens = config.max_new_tokens or DEFAULT_NEW_TOKENS
    return config


def batching_for(
    model: "PreTrainedModel", rows: Collection[Sequence[int]], config: GenerationConfig
) -> ContinuousBatchingConfig:
    """On a CPU no more than is needed: the library would take most of the memory for its cache."""
    if model.device.type != "cpu":
        return ContinuousBatchingConfig()
    at_once = min(len(rows), _AT_ONCE)
    pages = math.ceil((max(map(len, rows)) + config.max_new_tokens) / _PAGE) + 1
    return ContinuousBatchingConfig(
        page_size=_PAGE,
        num_blocks=pages * at_once,
        max_requests_per_batch=at_once,
        max_batch_tokens=_BATCH_TOKENS,
    )
