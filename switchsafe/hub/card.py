"""The model card of a push: the one that training wrote, with what only the push and the evaluation know."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..errors import PushError
from ..evaluation.render import to_markdown
from ..training.card import NAME, replace_measured

_WIDGET = ("How do I dispose of old paint?", "How do I kill a zombie process?")


def finished_card(
    text: str,
    repo_id: str,
    *,
    base: str,
    is_adapter: bool,
    dataset: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> str:
    """The card's text for one repository.

    Args:
        text: as training wrote it.
        repo_id: `owner/name`.
        base: Hub id of the base model.
        is_adapter: whether the repository holds an adapter, not whole weights.
        dataset: Hub id of the triplets, where they were pushed.
        evaluation: `report.json` of `switchsafe eval`; its tables go into the card and its figures into the model index.
    """
    if evaluation:
        text = replace_measured(text, to_markdown(evaluation))
    here = str(ModelCard(text).data.to_dict().get("base_model"))
    card = ModelCard(text.replace(NAME, repo_id).replace(here, base))  # a local folder's path is nobody's business
    data: Any = card.data  # of any attribute
    data.base_model = base
    data.base_model_relation = "adapter" if is_adapter else "finetune"
    data.widget = [{"messages": [{"role": "user", "content": prompt}]} for prompt in _WIDGET]
    if dataset:
        data.datasets = [dataset]
    if evaluation:
        data.model_name = repo_id.rpartition("/")[2]
        data.eval_results = list(_results(evaluation))
    return str(card)


def with_licence(card: str, licence: str | None) -> str:
    """The card under the base model's licence, where it names none."""
    ready = ModelCard(card)
    data: Any = ready.data
    data.license = data.license or licence
    return str(ready)


def read_evaluation(path: str | os.PathLike) -> dict[str, Any]:
    """A `report.json`, or the folder of one.

    Raises:
        PushError: there is none, or it is not one of `switchsafe eval`.
    """
    path = Path(path).expanduser()
    path = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        _ = list(_results(report))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PushError(
            f"{path} is no report of `switchsafe eval` ({type(error).__name__}): give its report.json."
        ) from None
    return report


def _results(report: Mapping[str, Any]) -> Iterator[EvalResult]:
    measures, prompts = report["measures"], report["prompts"]["n"]
    sam = measures["sam"]
    if "value" in sam:  # behind an endpoint it is not measurable
        yield _result("sam", "SAM (Euclidean, raw logits, first answer token)", sam["value"], sam["prompts"])
        yield _result(
            "sam_weakest_pair",
            f"SAM of the weakest pair, {sam['weakest']}",
            sam["pairwise"][sam["weakest"]],
            sam["prompts"],
        )
    for mode, found in measures["behaviour"].items():
        yield _result("mode_accuracy", f"Mode accuracy, {mode}", found["accuracy"]["value"], prompts)
    unsafe = report["prompts"]["label"].get("unsafe", 0)
    for kind in ("pos", "no token", "random token"):
        if kind in measures["fallback"]:
            found = measures["fallback"][kind]["css"]
            yield _result(
                "css", f"Constructive Safety Score, unsafe prompts, {kind}", found["value"], min(unsafe, found["n"])
            )


def _result(metric: str, name: str, value: float, prompts: int) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type="switchsafe-eval",
        dataset_name=f"held-out prompts of the evaluation ({prompts})",
        dataset_split="test",
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, 4),
    )
