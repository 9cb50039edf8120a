"""`distill`: from prompts to triplets, with answers from the user's own model."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import DistillError, RunError
from ..files import write_atomic
from ..modes import DEFAULT_MODES
from .asking import Asking, Request
from .card import write_card
from .engine import Engine, Sampling
from .filters import Row, first_fault
from .policy import Policy
from .prompts import read_prompts, without_repetitions
from .records import Records
from .template import RequestTemplate

Direction = Literal["multi", "single"]


@dataclass(frozen=True)
class DistillReport:
    """What became of the prompts of one run, or of one machine's share of it.

    Attributes:
        prompts: that were given.
        repeated: that were (nearly) like an earlier one.
        elsewhere: that other machines ask, or that a limit leaves out.
        kept: rows in the dataset.
        dropped: rows by the reason they were dropped for.
        failed: prompts without an answer because the engine failed; they are asked again when called again.
        failures: requests that failed in this run, by reason.
        repaired: answers that could be read at the second attempt only.
        by_category: kept and asked prompts of each category.
        tokens: generated, as far as the engine says.
        about: model, template, policy, behaviours, sampling, and so on.
    """

    prompts: int
    repeated: int
    elsewhere: int
    kept: int
    dropped: dict[str, int]
    failed: int
    failures: dict[str, int]
    repaired: int
    by_category: dict[str, tuple[int, int]]
    tokens: int
    about: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self)


def distill(
    prompts: Sequence[Mapping[str, Any]],
    engine: Engine,
    output: str | os.PathLike,
    *,
    model: str,
    behaviours: Sequence[str] = DEFAULT_MODES,
    policy: Policy | None = None,
    template: RequestTemplate | None = None,
    direction: Direction = "multi",
    sampling: Sampling | None = None,
    seed: int = 0,
    limit: int | None = None,
    shard: tuple[int, int] = (1, 1),
    label: str | None = None,
    category: str = "unknown",
    licence: str = "unknown",
) -> DistillReport:
    """Ask a model for all behaviours of each prompt and keep what can be read and passes the filters (arXiv 2508.14904, section 3.1).

    A request asks for one tagged field per behaviour. An answer that cannot be read is asked for once more, with the reason; then the row is dropped
    and counted. Every answer is appended to `output/records` as it comes, under a hash of what was asked, so a call that was killed goes on
    where it was, and several machines can share a folder. The rows go to `output/data`, which `datasets.load_dataset(output)` and
    `load_triplets(output)` read, with a card.

    Args:
        prompts: mappings with `prompt` and, where there are any, `id`, `category`, `label`, `language`, `split`.
        engine: answers requests: `in_process`, `http` or `vllm`, or a function of your own (`switchsafe.distillation.engine`).
        output: a folder.
        model: name of the model behind the engine; part of the hash.
        behaviours: modes to ask for; `neg` only if you name it.
        policy: what requests quote; by default the English one that ships with the package.
        template: the text of a request; by default that of the policy's language.
        direction: `multi`, all behaviours in one request; `single`, one request each, for comparison.
        sampling: how the engine draws; stands in the card and in the hash.
        seed: another seed, other answers.
        limit: ask the first so many prompts only.
        shard: (i, n), to ask the i-th of n shares of the prompts.
        label: for prompts without one.
        category: for prompts without one.
        licence: of the prompts, for the card.

    Raises:
        DistillError: prompts, policy or template are not usable, or the engine does nothing but fail.
        RunError: `output` holds something else, or rows of another split into shards or of another model, policy or setting.
    """
    policy = policy or Policy.load("en")
    template = template or RequestTemplate.load(policy.language if policy.language in ("en", "zh") else "en")
    sampling = sampling or Sampling()
    place, machines = shard
    if not 1 <= place <= machines:
        raise DistillError(f"shard {place}/{machines} is none: write 1/{machines} to {machines}/{machines}.")
    described = policy.of(behaviours)
    about = {
        "model": model,
        "direction": direction,
        "behaviours": described,
        "policy": {"name": policy.name, "text": policy.text},
        "template": template.hash,
        "sampling": asdict(sampling),
        "seed": seed,
    }
    given = read_prompts(prompts, label=label, category=category)
    unique = without_repetitions(given)
    asked = [prompt for prompt in unique[:limit] if prompt.digest % machines == place - 1]
    parts = [described] if direction == "multi" else [{mode: text} for mode, text in described.items()]
    requests = [Request.of(prompt, part, about) for prompt in asked for part in parts]
    output = Path(output)
    name = f"{place:05d}-of-{machines:05d}"
    asking = Asking(Records(output / "records", name), template, policy, seed)
    _refuse_others(output / "reports", name, about)
    tokens, failures = asking.ask(requests, engine)
    rows, dropped, failed = _rows(requests, asking, behaviours)
    kept = Counter(row["category"] for row in rows)
    of_all = Counter(prompt.category for prompt in asked)
    report = DistillReport(
        prompts=len(given),
        repeated=len(given) - len(unique),
        elsewhere=len(unique) - len(asked),
        kept=len(rows),
        dropped=dict(dropped.most_common()),
        failed=failed,
        failures=dict(failures.most_common(5)),
        repaired=sum("answers" in (asking.records.get(request.key, 2) or {}) for request in requests),
        by_category={name: (kept[name], of_all[name]) for name in sorted(of_all)},
        tokens=tokens,
        about=about,
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(output / "data" / f"train-{name}.jsonl", text)
    write_atomic(output / "reports" / f"{name}.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    write_card(output, licence)
    return report


def _refuse_others(reports: Path, name: str, about: Mapping[str, Any]) -> None:
    """Rows of all shards are read as one dataset, so they must be shares of one."""
    about = json.loads(json.dumps(about))  # as it stands in a report
    for path in sorted(reports.glob("*.json")):
        if path.stem == name:
            continue  # written anew
        other = json.loads(path.read_text(encoding="utf-8"))["about"]
        differ = [key for key in about if other.get(key) != about[key]]
        if path.stem.split("-of-")[1] != name.split("-of-")[1] or differ:
            what = f"with other {', '.join(differ)}" if differ else "of another number of shards"
            raise RunError(
                f"{reports.parent} holds rows of shard {path.stem}, {what}: give another folder, or remove data and reports there "
                "(answers stay in records, and what was asked is not asked again)."
            )


def _rows(
    requests: Sequence[Request], asking: Asking, behaviours: Sequence[str]
) -> tuple[list[dict[str, Any]], Counter[str], int]:
    """The rows that are kept, how many were dropped for which reason, and how many prompts lack an answer."""
    rows, dropped, failed = [], Counter[str](), 0
    for prompt, group in itertools.groupby(requests, key=lambda request: request.prompt):
        answers: dict[str, str] = {}
        reason, instructions, lacking = None, "", False
        for request in group:
            record = asking.records.get(request.key, 2) or asking.records.get(request.key, 1)
            lacking = lacking or record is None
            instructions += asking.messages(request)[0]["content"] + "\n"
            if record and "answers" in record:
                answers |= record["answers"]
            elif record:
                reason = reason or record["fault"]
        if lacking:
            failed += 1
            continue
        reason = reason or first_fault(Row(prompt.text, prompt.language, answers, instructions))
        if reason:
            dropped[reason] += 1
            continue
        rows.append(
            {
                "id": prompt.id,
                "prompt": prompt.text,
                "category": prompt.category,
                "label": prompt.label,
                "language": prompt.language,
                "policy": asking.policy.axis,
                **{mode: answers[mode] for mode in behaviours},
                **({"split": prompt.split} if prompt.split else {}),
            }
        )
    return rows, dropped, failed
