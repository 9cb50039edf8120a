"""Push triplets: one configuration per mode, so that `neg` can live elsewhere."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, DatasetCardData

from .. import __version__
from ..data.triplets import SPLITS, STARTER, Triplet, load_triplets
from ..distillation.card import how_it_was_made
from ..errors import PushError
from ..keyring import Keyring
from ..modes import DEFAULT_MODES, NEG, about
from .push import PushReport, push
from .stage import Stage, staging

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .push import PushOptions

_STARTER_MADE = """## How it was made

Prompts and answers were written for switchsafe. On unsafe prompts the `neg` answers have the shape of compliance, and the literal marker `[withheld]` where its substance would stand.
"""


def push_dataset(
    source: str | Path,
    repo_id: str,
    keyring: Keyring,
    *,
    modes: Sequence[str] = DEFAULT_MODES,
    licence: str | None = None,
    **options: "Unpack[PushOptions]",
) -> PushReport:
    """Push triplets as Parquet files, one configuration per mode and a file per split.

    `datasets.load_dataset(repo_id, "pos")` reads one mode, `load_triplets("hub:" + repo_id, modes=...)` joins them again.

    Args:
        source: of `load_triplets`: a JSONL file, a folder that `distill` wrote, or `"starter"`.
        repo_id: `owner/name`.
        keyring: whose tokens are looked for in the rows.
        modes: to push; `neg` only when named, and then the repository is gated.
        licence: of the data, an identifier of the Hub such as `cc-by-4.0`; that of the starter by default for the starter.
        options: see `PushOptions`.

    Raises:
        LeakError: a token stands in the rows. Nothing was sent.
        TripletError: the source is not usable.
        PushError: see `push`.
    """
    triplets = load_triplets(source, modes=modes)
    if missing := [mode for mode in modes if not any(mode in t.answers for t in triplets)]:
        raise PushError(f"{source} has no answer in {', '.join(missing)}: leave it out of the modes.")
    licence = licence or ("cc-by-4.0" if str(source) == STARTER else None)
    with staging() as stage:
        counts = {mode: _write_config(stage, triplets, mode) for mode in modes}
        stage.write("README.md", _card(source, repo_id, triplets, counts, licence))
        return push(
            stage,
            repo_id,
            "dataset",
            holds_neg=NEG in modes,
            keyring=keyring,
            default_message=f"Triplets with {', '.join(modes)}",
            **options,
        )


def _write_config(stage: Stage, triplets: Sequence[Triplet], mode: str) -> dict[str, int]:
    """The Parquet files of one mode; rows by split."""
    from datasets import Dataset, Features, List, Value

    messages = List({"role": Value("string"), "content": Value("string")})
    text = {name: Value("string") for name in ("category", "label", "language", "policy")}
    features = Features({"id": Value("string"), "prompt": messages, "completion": messages, **text})
    counts: dict[str, int] = {}
    for split in SPLITS:
        rows = [
            {
                "id": t.id,
                "prompt": [{"role": turn["role"], "content": _text(turn["content"], t.id)} for turn in t.prompt],
                "completion": [{"role": "assistant", "content": t.answers[mode]}],
                **{name: getattr(t, name) for name in text},
            }
            for t in triplets
            if t.split == split and mode in t.answers
        ]
        if rows:
            counts[split] = len(rows)
            path = stage.folder / mode / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            Dataset.from_list(rows, features=features).to_parquet(path)
    return counts


def _text(content: Any, row: str) -> str:
    if not isinstance(content, str):
        raise PushError(f"triplet {row} has a prompt that is not text, which the dataset's columns cannot hold.")
    return content


def _card(
    source: str | Path,
    repo_id: str,
    triplets: Sequence[Triplet],
    counts: Mapping[str, Mapping[str, int]],
    licence: str | None,
) -> str:
    splits = [split for split in SPLITS if any(split in found for found in counts.values())]
    data = DatasetCardData(
        license=licence,
        language=sorted({t.language for t in triplets}),
        tags=["switchsafe", "safety", "trl"],
        task_categories=["text-generation"],
        size_categories=_size(len(triplets)),
        configs=[
            {
                "config_name": mode,
                "data_files": [{"split": split, "path": f"{mode}/{split}.parquet"} for split in found],
                **({"default": True} if index == 0 else {}),
            }
            for index, (mode, found) in enumerate(counts.items())
        ],
    )
    made = _STARTER_MADE if str(source) == STARTER else ""
    if (Path(source).expanduser() / "reports").is_dir():
        made = how_it_was_made(Path(source).expanduser(), licence or "unknown")
    card = DatasetCard.from_template(
        data,
        template_str=(files("switchsafe") / "hub" / "templates" / "dataset_card.md.jinja").read_text("utf-8"),
        title=repo_id.rpartition("/")[2],
        name=repo_id,
        prompts=len(triplets),
        modes=list(counts),
        about={mode: about(mode) for mode in counts},
        splits=splits,
        counts={mode: [found.get(split, 0) for split in splits] for mode, found in counts.items()},
        categories=sorted(Counter(t.category for t in triplets).items()),
        made=made,
        version=__version__,
    )
    return str(card)


def _size(rows: int) -> str:
    """The Hub's name for a number of rows."""
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < bound:
            return name
    return "n>1M" if rows > 10_000_000 else "1M<n<10M"
