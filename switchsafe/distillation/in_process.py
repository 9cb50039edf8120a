"""Engine: a model in this process, on transformers' continuous batching."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from transformers import ContinuousBatchingConfig

from ..generation.continuous import honoured, run_rows
from .engine import Engine, Job, Outcome, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_AT_A_TIME = 1024  # jobs handed to the library at once; the device idles only where the last of them end


def in_process(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    sampling: Sampling,
    *,
    batching: ContinuousBatchingConfig | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Engine:
    """An engine that runs a model here. Answers are drawn from one stream of random numbers, so seeds of jobs do not matter to it.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        sampling: how to draw.
        batching: memory and batch sizes.
        chat_template_kwargs: variables for the chat template; thinking is off unless they turn it on.

    Raises:
        SwitchsafeError: the model's own configuration sets something that continuous batching does not honour.
    """
    draw: dict[str, Any] = {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_new_tokens}
    if sampling.temperature > 0:
        draw |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    config = honoured(model, None, draw)
    template_kwargs = {"enable_thinking": False, **(chat_template_kwargs or {})}

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        waiting = iter(jobs)
        while part := list(itertools.islice(waiting, _AT_A_TIME)):
            rendered = tokenizer.apply_chat_template(
                [job.messages for job in part], add_generation_prompt=True, return_dict=True, **template_kwargs
            )
            rows = {job.key: ids for job, ids in zip(part, rendered["input_ids"], strict=True)}
            for result in run_rows(model, rows, config, batching):
                ids = result.generated_tokens
                yield Outcome(
                    key=result.request_id,
                    text=tokenizer.decode(ids, skip_special_tokens=True),
                    truncated=len(ids) >= sampling.max_new_tokens,
                    error=result.error,
                    tokens=len(ids),
                )

    return run
