"""The card of a distilled dataset, over all machines that wrote to it."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import DatasetCard, DatasetCardData

from .. import __version__
from ..files import write_atomic


def write_card(folder: Path, licence: str) -> Path:
    """Write `README.md` from the reports in `folder/reports`."""
    reports = _reports(folder)
    data = DatasetCardData(
        license=licence if licence != "unknown" else None,
        tags=["switchsafe", "safety", "synthetic"],
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": "data/*.jsonl"}],
    )
    card = DatasetCard.from_template(
        data,
        template_str=_template("card"),
        about=reports[0]["about"],
        kept=sum(report["kept"] for report in reports),
        made=how_it_was_made(folder, licence),
        version=__version__,
    )
    return write_atomic(folder / "README.md", str(card))


def how_it_was_made(folder: Path, licence: str) -> str:
    """The part of the card on requests, sampling, yields and drops, over all machines that wrote to the folder."""
    reports = _reports(folder)
    dropped: Counter[str] = Counter()
    categories: dict[str, list[int]] = {}
    for report in reports:
        dropped.update(report["dropped"])
        for name, counts in report["by_category"].items():
            both = categories.setdefault(name, [0, 0])
            both[0], both[1] = both[0] + counts[0], both[1] + counts[1]
    return jinja2.Template(_template("made")).render(
        about=reports[0]["about"],
        asked=sum(both[1] for both in categories.values()),
        kept=sum(report["kept"] for report in reports),
        repaired=sum(report["repaired"] for report in reports),
        failed=sum(report["failed"] for report in reports),
        dropped=dropped.most_common(),
        categories=sorted(categories.items()),
        licence=licence,
    )


def _reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "reports").glob("*.json"))]


def _template(name: str) -> str:
    return (files("switchsafe") / "distillation" / "templates" / f"{name}.md.jinja").read_text(encoding="utf-8")
