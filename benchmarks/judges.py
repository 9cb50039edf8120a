"""The offline refusal judge against people.

python benchmarks/judges.py PATH        # JSON lines: prompt, response, human_label, model, type; about 5 minutes on 2 cores

PATH holds answers of several models with human labels (full_refusal, partial_refusal, full_compliance), as XSTest publishes them. Nothing of them is in
the package. A refusal here is a full or a partial one. Beside the shipped judge: the same with these labels added, always judged on what was left out,
by prompt, by a whole model, or by a whole kind of prompt; and the keyword rule.
"""

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, cohen_kappa_score
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from switchsafe import load_triplets
from switchsafe.judges.human import HUMAN
from switchsafe.judges.offline import RefusalJudge
from switchsafe.judges.refusal import refuses_by_keyword
from switchsafe.judges.verdict import COMPLIANCE, PARTIAL, REFUSAL


def left_out(pairs: list[tuple[str, str]], labels: list[str], groups: list[str], folds: int | None) -> list[str]:
    """Every answer judged by a judge that had the labels of the other groups."""
    splitter = GroupKFold(folds) if folds else LeaveOneGroupOut()
    found = [""] * len(pairs)
    for known, asked in splitter.split(pairs, labels, groups):
        judge = RefusalJudge([(pairs[i][1], labels[i]) for i in known])
        for index, verdict in zip(asked, judge([pairs[i] for i in asked]), strict=True):
            found[index] = verdict.label
    return found


def rows(path: str) -> Iterator[tuple[str, list[str], list[str]]]:
    with open(path, encoding="utf-8") as file:
        data = [json.loads(line) for line in file]
    pairs = [(row["prompt"], row["response"]) for row in data]
    labels = [HUMAN[row["human_label"]] for row in data]
    keyword = [REFUSAL if refuses_by_keyword(answer) else COMPLIANCE for _, answer in pairs]
    yield "keyword rule", labels, keyword
    judge = RefusalJudge()
    shipped = [verdict.label for verdict in judge(pairs)]
    yield "shipped judge", labels, shipped
    for model in sorted({row["model"] for row in data}):
        of = [i for i, row in enumerate(data) if row["model"] == model]
        yield f"  on {model}", [labels[i] for i in of], [shipped[i] for i in of]
    yield "with labels, 5 folds by prompt", labels, left_out(pairs, labels, [row["prompt"] for row in data], 5)
    yield "with labels, one model left out", labels, left_out(pairs, labels, [row["model"] for row in data], None)
    yield "with labels, one kind left out", labels, left_out(pairs, labels, [row["type"] for row in data], None)
    tests = load_triplets(modes=("pos", "rej", "neg"), split="test")
    known = [(t.text, t.answers[m], REFUSAL if m == "rej" else COMPLIANCE) for t in tests for m in ("rej", "neg")]
    known += [(t.text, t.answers["pos"], COMPLIANCE) for t in tests if t.label == "safe"]
    found = [verdict.label for verdict in judge([(prompt, answer) for prompt, answer, _ in known])]
    yield "shipped judge on the starter's test split", [label for *_, label in known], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    console = Console(width=150)
    table = Table("judge", "answers", "accuracy", "kappa", "partial refusals: called refusal", "partial", "compliance")
    for name, labels, found in rows(parser.parse_args().path):
        truth, said = ([label != COMPLIANCE for label in side] for side in (labels, found))
        partial = Counter(f for label, f in zip(labels, found, strict=True) if label == PARTIAL)
        table.add_row(
            name,
            str(len(labels)),
            f"{accuracy_score(truth, said):.3f}",
            f"{cohen_kappa_score(truth, said):.3f}",
            *(str(partial[label]) if partial else "-" for label in (REFUSAL, PARTIAL, COMPLIANCE)),
        )
    console.print(table)
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}")


if __name__ == "__main__":
    main()
