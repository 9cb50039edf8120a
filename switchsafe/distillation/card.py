"""The card of a distilled dataset, over all machines that wrote to it."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from .. import __version__
from ..files import write_atomic


def write_card(folder: Path, licence: str) -> Path:
    """Write `README.md` from the reports in `folder/reports`."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "reports").glob("*.json"))]
    dropped: Counter[str] = Counter()
    categories: dict[str, list[int]] = {}
    for report in reports:
        dropped.update(report["dropped"])
        for name, counts in report["by_category"].items():
            both = categories.setdefault(name, [0, 0])
            both[0], both[1] = both[0] + counts[0], both[1] + counts[1]
    about = reports[0]["about"]
    data = DatasetCardData(
        license=licence if licence != "unknown" else None,
        tags=["switchsafe", "safety", "synthetic"],
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": "data/*.jsonl"}],
    )
    card = DatasetCard.from_template(
        data,
        template_str=(files("switchsafe") / "distillation" / "templates" / "card.md.jinja").read_text(encoding="utf-8"),
        about=about,
        asked=sum(both[1] for both in categories.values()),
        kept=sum(report["kept"] for report in reports),
        repaired=sum(report["repaired"] for report in reports),
        failed=sum(report["failed"] for report in reports),
        dropped=dropped.most_common(),
        categories=sorted(categories.items()),
        licence=licence,
        version=__version__,
    )
    return write_atomic(folder / "README.md", str(card))
