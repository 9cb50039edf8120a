"""A judge's verdicts kept in a file, so that no answer is judged twice."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..files import append_row, mend_rows, whole_lines
from .verdict import Judge, Verdict

_AT_ONCE = 256


class CachedJudge:
    """Another judge, asked only about what it has not judged before: verdicts are found by the hash of judge, prompt and answer."""

    def __init__(self, judge: Judge, file: Path) -> None:
        """
        Args:
            judge: asked once for each prompt and answer. Its `name` must tell its version and settings.
            file: JSON lines of hashes and verdicts; it holds neither prompts nor answers.
        """
        self.name, self.labels = judge.name, judge.labels
        self._judge, self._file = judge, file
        file.touch(mode=0o600)
        rows = map(json.loads, whole_lines(file))
        self._kept = {row["key"]: Verdict(row["label"], row["score"]) for row in rows}
        mend_rows(file, "key")

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """See `Judge`."""
        keys = [hashlib.sha256(json.dumps([self.name, *pair]).encode()).hexdigest()[:32] for pair in pairs]
        new = [(key, pair) for key, pair in dict(zip(keys, pairs, strict=True)).items() if key not in self._kept]
        for start in range(0, len(new), _AT_ONCE):  # a judge that fails loses no more than these
            some = new[start : start + _AT_ONCE]
            for (key, _), verdict in zip(some, self._judge([pair for _, pair in some]), strict=True):
                self._kept[key] = verdict
                append_row(self._file, {"key": key, "label": verdict.label, "score": round(verdict.score, 4)})
        return [self._kept[key] for key in keys]
