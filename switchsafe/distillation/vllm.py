"""Engine: vLLM in this process."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from .engine import Engine, Job, Outcome, Sampling

_AT_A_TIME = 1024  # jobs handed to vLLM at once; it schedules among them, and a kill loses no more


def vllm(
    model: str, sampling: Sampling, *, chat_template_kwargs: dict[str, Any] | None = None, **llm_arguments: Any
) -> Engine:
    """An engine on `vllm.LLM.chat`. Needs `switchsafe[vllm]` and a GPU.

    Args:
        model: a Hub id or folder.
        sampling: how to draw; every job has its own seed.
        chat_template_kwargs: variables for the chat template; thinking is off unless they turn it on.
        llm_arguments: for `vllm.LLM`, `tensor_parallel_size` for instance.
    """
    from vllm import LLM, SamplingParams

    llm = LLM(model, **{"enable_prefix_caching": True, **llm_arguments})
    template_kwargs = {"enable_thinking": False, **(chat_template_kwargs or {})}

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        waiting = iter(jobs)
        while part := list(itertools.islice(waiting, _AT_A_TIME)):
            draws = [
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=job.seed,
                )
                for job in part
            ]
            outputs = llm.chat(
                [job.messages for job in part], draws, chat_template_kwargs=template_kwargs, use_tqdm=False
            )
            for job, output in zip(part, outputs, strict=True):
                answer = output.outputs[0]
                yield Outcome(job.key, answer.text, answer.finish_reason == "length", tokens=len(answer.token_ids))

    return run
