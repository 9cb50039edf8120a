"""`generate_many`: bulk work on transformers' continuous batching, with a mode per request."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from ..errors import ModeError, RunError, SwitchsafeError
from ..files import append_row, mend_rows, whole_lines
from ..guard import Guard
from ..inject import conversation
from ..processing import MagicTokenProcessor
from ..progress import bar
from .continuous import honoured, run_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate_many(
    model: "PreTrainedModel",
    processor: MagicTokenProcessor,
    requests: Iterable[Mapping[str, Any]],
    *,
    mode: str | None = None,
    policy: str | None = None,
    output: str | os.PathLike | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    generation_config: GenerationConfig | None = None,
    continuous_batching_config: ContinuousBatchingConfig | None = None,
    **settings: Any,
) -> list[str]:
    """Answer many requests, each in its own mode, with as many under way at once as memory allows.

    A request that is done makes room for the next at once (`generate_batch` of transformers), and requests of a mode share the keys and values of
    their common beginning. What continuous batching would pass over in silence or with a warning (logits processors, streamers, beams, penalties) is
    refused: use `generate` for those.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring the model was trained with.
        requests: mappings with `prompt` (text, or a list of messages) and, if they are to differ, `mode`, `policy` and `id`.
        mode: for requests without one.
        policy: for requests without one.
        output: a JSONL file that gets each answer as soon as it is there: `id`, `mode`, `policy`, `prompt`, `answer`, and `run`, a hash of the model's
            weights (the first few of each tensor), settings and token fingerprints. Called again with the same requests, what stands there is not computed again.
        chat_template_kwargs: variables for the chat template.
        generation_config: instead of the model's own.
        continuous_batching_config: memory and batch sizes; by default the library's, on a CPU room for 32 requests at once.
        settings: of `GenerationConfig`: `max_new_tokens` (512 by default), `do_sample`, `temperature`, `top_k`, `top_p`.

    Returns:
        The answers without special tokens, in the order of the requests; `[removed]` stands where one would spell a live token.

    Raises:
        SwitchsafeError: a request without a prompt, two with one id, or a setting that continuous batching does not honour.
        ModeError: a request has no mode, or one that the keyring lacks.
        RunError: `output` holds other answers; or requests failed, which are tried again when called again.
    """
    tasks = _tasks(requests, mode, policy)
    config = honoured(model, generation_config, settings)
    ring = processor.keyring
    tokens = sorted({ring.fingerprint(ring.token(task["mode"], task["policy"])) for task in tasks.values()})
    facts = [config.to_diff_dict(), processor.chat_template, chat_template_kwargs, tokens]
    run = _hash([_weights(model), *facts]) if output else ""
    done = _Answers(output, run, tasks)
    template_kwargs = {"enable_thinking": False, **(chat_template_kwargs or {})}
    rows = {
        name: processor.apply_chat_template(
            conversation(task["prompt"]), mode=task["mode"], policy=task["policy"], **template_kwargs
        )["input_ids"]
        for name, task in tasks.items()
        if name not in done.answers
    }
    guard = Guard(ring.secrets())
    failed = []
    with bar("Answering", len(rows)) as advance:
        for result in run_rows(model, rows, config, continuous_batching_config):
            if result.error is None:
                text = processor.tokenizer.decode(result.generated_tokens, skip_special_tokens=True)
                done.add(result.request_id, guard.mask(text))
            else:
                failed.append(f"{result.request_id} ({result.error})")
            advance(1)
    if failed:
        raise RunError(f"{len(failed)} of {len(tasks)} requests failed, request {failed[0]} first.")
    return [done.answers[name] for name in tasks]


class _Answers:
    """Answers by request, in memory and in a JSONL file if there is one."""

    def __init__(self, output: str | os.PathLike | None, run: str, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        self.answers: dict[str, str] = {}
        self._path, self._run, self._tasks = Path(output).expanduser() if output else None, run, tasks
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for line in whole_lines(self._path):
            try:
                row = json.loads(line)
                name, answer = str(row.pop("id")), row.pop("answer")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise RunError(f"{self._path} holds lines that are no answers of ours: give another file.") from None
            if row != {"run": run, **tasks.get(name, {})}:
                raise RunError(
                    f"{self._path} holds answers to other requests, or of another model or settings: give another file, or remove it."
                )
            self.answers[name] = answer
        mend_rows(self._path, "id")

    def add(self, name: str, answer: str) -> None:
        self.answers[name] = answer
        if self._path:
            append_row(self._path, {"id": name, **self._tasks[name], "answer": answer, "run": self._run})


def _tasks(requests: Iterable[Mapping[str, Any]], mode: str | None, policy: str | None) -> dict[str, dict[str, Any]]:
    """Requests by id, with everything that is left out filled in."""
    tasks: dict[str, dict[str, Any]] = {}
    for number, request in enumerate(requests):
        name = str(request.get("id", number))
        if not request.get("prompt"):
            raise SwitchsafeError(f"request {name} has no prompt.")
        if name in tasks:
            raise SwitchsafeError(f"two requests have the id {name}.")
        asked = request.get("mode") or mode
        if not isinstance(asked, str):
            raise ModeError(f"request {name} has no mode: give it one, or all of them one. (Blends are for generate.)")
        prompt = request["prompt"]
        prompt = list(prompt) if isinstance(prompt, tuple) else prompt  # as JSON gives it back
        tasks[name] = {"mode": asked, "policy": request.get("policy") or policy, "prompt": prompt}
    return tasks


def _weights(model: "PreTrainedModel") -> list[list[float]]:
    """The first numbers of every tensor: tells an adapter, or a model trained on, from another under the same name."""
    return [
        weight.detach().flatten()[:4].float().tolist() for weight in model.parameters() if weight.device.type != "meta"
    ]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
