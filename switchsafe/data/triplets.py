"""Triplets: one prompt with an answer per mode."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TripletError
from ..inject import Message, conversation

if TYPE_CHECKING:
    from datasets import Dataset

STARTER = "starter"
HUB = "hub:"
SPLITS = ("train", "validation", "test")
LABELS = ("safe", "unsafe")
REQUIRED = ("id", "prompt", "category", "label", "language")


@dataclass(frozen=True)
class Triplet:
    """One prompt with its answers by mode; a mode without an answer is absent."""

    id: str
    prompt: tuple[Message, ...] = field(repr=False)
    category: str
    label: str
    language: str
    answers: Mapping[str, str] = field(repr=False)
    policy: str | None = None
    split: str = "train"

    @property
    def text(self) -> str:
        """The last user turn, for tables and judges."""
        return str(self.prompt[-1]["content"])


def load_triplets(
    source: "str | Path | Dataset" = STARTER,
    *,
    modes: Sequence[str],
    also: Sequence[str] = (),
    split: str | None = None,
    languages: Sequence[str] | None = None,
) -> list[Triplet]:
    """Read triplets from a JSONL file, a `datasets.Dataset`, or the set that ships with the package.

    Columns (DESIGN section 6): `id`, `prompt` (text, or a list of messages), `category`, `label` (`safe` or `unsafe`), `language`, and one
    column per mode, null where the mode has no answer; optional `policy`, and `split`. Rows without `split` are assigned 70/10/20 by a hash of
    the prompt, so that no prompt stands in two splits.

    Args:
        source: a JSONL file, a folder of them as `distill` writes it (`data/*.jsonl`), a dataset, `"starter"`, or `"hub:OWNER/NAME"`, what
            `push_dataset` pushed; with `neg` elsewhere, `"hub:OWNER/NAME,OWNER/OTHER"`.
        modes: the mode columns to read. Other columns are ignored.
        also: mode columns to read where there are any.
        split: keep only `"train"`, `"validation"` or `"test"`.
        languages: keep only these.

    Raises:
        TripletError: the source is missing or a row is not usable; the message names the line and what is wrong.
    """
    if split is not None and split not in SPLITS:
        raise TripletError(f"split {split!r} is none of {', '.join(SPLITS)}.")
    every = tuple(dict.fromkeys((*modes, *also)))
    name, rows = _from_hub(str(source), every) if str(source).startswith(HUB) else _open(source)
    triplets: list[Triplet] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        missing = {mode: None for mode in every if mode not in modes and isinstance(row, Mapping) and mode not in row}
        triplet = _parse({**row, **missing} if missing else row, every, f"{name}, {where}")
        if triplet.id in seen:
            raise TripletError(
                f"{name}, {where}: id {triplet.id!r} is already used in {seen[triplet.id]}; ids must differ."
            )
        seen[triplet.id] = where
        triplets.append(triplet)
    if not triplets:
        raise TripletError(f"{name} holds no triplets.")
    kept = [t for t in triplets if split in (None, t.split) and (languages is None or t.language in languages)]
    if not kept:
        found = ", ".join(sorted({t.language for t in triplets}))
        raise TripletError(
            f"{name} holds no triplet with split={split} and language in {languages}; its languages are: {found}."
        )
    return kept


def most_common_policy(rows: Iterable[Any]) -> str | None:
    """The `policy` of most triplets or prompts, the first where several are equally common; None for none."""
    counts = Counter(row.policy for row in rows)
    return max(counts, key=counts.__getitem__, default=None)


def starter_rows() -> list[dict[str, Any]]:
    """The triplets that ship with the package, as they stand in their file."""
    text = files(__package__).joinpath("starter.jsonl").read_text(encoding="utf-8")
    return [row for _, row in _lines(text, STARTER)]


def _open(source: Any) -> tuple[str, Iterable[tuple[str, Any]]]:
    if not isinstance(source, (str, Path)):
        return "the dataset", ((f"row {number}", row) for number, row in enumerate(source))
    if str(source) == STARTER:
        return STARTER, ((f"line {number}", row) for number, row in enumerate(starter_rows(), 1))
    path = Path(source).expanduser()
    if path.is_dir():
        parts = sorted(path.glob("data/*.jsonl"))
        if not parts:
            raise TripletError(f"the folder {source} holds no data/*.jsonl.")
        return str(source), itertools.chain.from_iterable(_open(part)[1] for part in parts)
    try:
        return str(source), _lines(path.read_text(encoding="utf-8"), str(source))
    except FileNotFoundError:
        raise TripletError(
            f"no triplet file at {source}: give a JSONL file, or {STARTER} for the set that ships here."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TripletError(f"cannot read {source} as UTF-8 text: {type(error).__name__}.") from None


def _from_hub(source: str, modes: Sequence[str]) -> tuple[str, Iterable[tuple[str, Any]]]:
    """The configurations of one or several datasets, one per mode, joined by id."""
    import datasets

    joined: dict[str, dict[str, Any]] = {}
    for name in source.removeprefix(HUB).split(","):
        try:
            found = {mode for mode in datasets.get_dataset_config_names(name) if mode in modes}
            splits = [(mode, datasets.load_dataset(name, mode)) for mode in modes if mode in found]
        except Exception as error:  # of many kinds, from the network to the file format
            reason = str(error).strip().splitlines()[0][:200]
            raise TripletError(f"cannot load the dataset {name}: {reason}") from None
        for mode, parts in splits:
            for split, rows in parts.items():
                for row in rows:
                    known = {key: row[key] for key in (*REQUIRED, "policy")}
                    triplet = joined.setdefault(row["id"], {**dict.fromkeys(modes), **known, "split": split})
                    triplet[mode] = row["completion"][0]["content"]
    return source, ((f"id {number!r}", row) for number, row in joined.items())


def _lines(text: str, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines(): U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise TripletError(f"{name}, line {number}: not JSON ({error.msg} at column {error.colno}).") from None


def _parse(row: Any, modes: Sequence[str], where: str) -> Triplet:
    if not isinstance(row, Mapping):
        raise TripletError(f"{where}: expected an object with columns {', '.join([*REQUIRED, *modes])}.")
    if missing := [column for column in (*REQUIRED, *modes) if column not in row]:
        raise TripletError(
            f"{where}: column {', '.join(missing)} missing. A triplet has {', '.join(REQUIRED)} and one column per mode "
            f"({', '.join(modes)}; null where a mode has no answer)."
        )
    for column in (*REQUIRED, *modes):
        value = row[column]
        if column == "prompt" and isinstance(value, list) and value:
            continue
        if value is None and column in modes:
            continue
        if not isinstance(value, str) or not value.strip():
            shown = "empty" if value in ("", None, []) or isinstance(value, str) else f"a {type(value).__name__}"
            hint = "; use null for a mode without an answer" if column in modes else ""
            raise TripletError(f"{where}: column {column} is {shown}, text is needed{hint}.")
    if row["label"] not in LABELS:
        raise TripletError(f"{where}: label is {row['label']!r}, must be safe or unsafe.")
    answers = {mode: row[mode] for mode in modes if row[mode] is not None}
    if not answers:
        raise TripletError(f"{where}: every mode ({', '.join(modes)}) is null, so the row teaches nothing.")
    prompt = tuple(conversation(row["prompt"]))
    if any(not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn for turn in prompt):
        raise TripletError(f"{where}: prompt is a list, whose items must be messages with role and content.")
    if prompt[-1]["role"] == "assistant":
        raise TripletError(f"{where}: prompt ends with an assistant turn; the answers stand in the mode columns.")
    split = row.get("split") or _split_of(json.dumps(prompt, sort_keys=True))
    if split not in SPLITS:
        raise TripletError(f"{where}: split is {split!r}, must be one of {', '.join(SPLITS)}.")
    return Triplet(
        id=row["id"],
        prompt=prompt,
        category=row["category"],
        label=row["label"],
        language=row["language"],
        answers=answers,
        policy=row.get("policy"),
        split=split,
    )


def _split_of(prompt: str) -> str:
    share = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.7 else "validation" if share < 0.8 else "test"
