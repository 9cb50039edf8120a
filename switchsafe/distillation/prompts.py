"""Which prompts are asked: without repetitions, and for one machine of several its share."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.triplets import LABELS, SPLITS
from ..errors import DistillError

ALIKE = 0.85  # Jaccard similarity of the shingles of two prompts, estimated
_PERMUTATIONS = 128
_CJK = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Prompt:
    """A prompt and what a triplet says about it."""

    id: str
    text: str = field(repr=False)
    category: str
    label: str
    language: str
    split: str | None = None

    @property
    def digest(self) -> int:
        """Of the text; decides which of several machines asks it."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:8], "big")


def read_prompts(
    rows: Sequence[Mapping[str, Any]], *, label: str | None = None, category: str = "unknown"
) -> list[Prompt]:
    """Prompts from rows with `prompt` and, where there are any, `id`, `category`, `label`, `language` and `split`.

    Args:
        rows: see `switchsafe.data.prompts.load_requests`.
        label: for rows without one, `safe` or `unsafe`.
        category: for rows without one.

    Raises:
        DistillError: a row is empty or a dialogue of several turns, has no label and none is given, an unknown split, or shares its id with another.
    """
    prompts, seen = [], set()
    for number, row in enumerate(rows):
        name = str(row.get("id") or f"p{number:06d}")
        text = row["prompt"]
        if isinstance(text, list):
            if len(text) != 1 or text[0].get("role") != "user" or not isinstance(text[0].get("content"), str):
                raise DistillError(f"prompt {name} has several turns: distillation takes prompts of one user turn.")
            text = text[0]["content"]
        if not text.strip():
            raise DistillError(f"prompt {name} is empty.")
        if row.get("split") not in (None, "", *SPLITS):
            raise DistillError(f"prompt {name} has the split {row['split']!r}, which is none of {', '.join(SPLITS)}.")
        said = row.get("label") or label
        if said not in LABELS:
            raise DistillError(
                f"prompt {name} has no label (safe or unsafe): add a label column, or give one label for all."
            )
        if name in seen:
            raise DistillError(f"two prompts have the id {name}.")
        seen.add(name)
        language = str(row.get("language") or "") or ("zh" if len(_CJK.findall(text)) > 0.3 * len(text) else "en")
        prompts.append(
            Prompt(name, text.strip(), str(row.get("category") or category), said, language, row.get("split") or None)
        )
    return prompts


def without_repetitions(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of any prompts that are (nearly) alike, by MinHash over character shingles (Broder 1997; the library is datasketch)."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=ALIKE, num_perm=_PERMUTATIONS)
    sketches: dict[str, Any] = {}
    kept = []
    for prompt in prompts:
        text = " ".join(re.findall(r"\w+", prompt.text.lower()))
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update_batch([text[start : start + 5].encode() for start in range(max(1, len(text) - 4))])
        if not any(sketch.jaccard(sketches[other]) >= ALIKE for other in index.query(sketch)):
            index.insert(prompt.id, sketch)
            sketches[prompt.id] = sketch
            kept.append(prompt)
    return kept
