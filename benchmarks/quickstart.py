"""How much a quickstart depends on its keyring: run it several times with fresh ones and print what each reached.

python benchmarks/quickstart.py --runs 3
python benchmarks/quickstart.py --runs 3 --fast
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table


def one_run(folder: Path, fast: bool) -> dict:
    command = [
        sys.executable,
        "-m",
        "switchsafe",
        "quickstart",
        "-o",
        str(folder / "out"),
        "-k",
        str(folder / "ring.json"),
    ]
    process = subprocess.run([*command, *(["--fast"] if fast else []), "--json"], stdout=subprocess.PIPE, check=False)
    if process.returncode not in (0, 1):
        sys.exit(process.returncode)
    return json.loads(process.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    columns = ("run", "SAM before", "SAM after", "weakest pair", "pos", "rej", "neg", "minutes", "GB", "signs")
    table = Table(*columns, title="Quickstart over fresh keyrings: SAM and mode accuracy", title_justify="left")
    for run in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            report = one_run(Path(folder), options.fast)
        after, accuracy = report["after"], report["confusion"]["accuracy"]
        table.add_row(
            str(run),
            f"{report['before']['value']:.3f}",
            f"{after['value']:.3f}",
            f"{after['weakest']} {after['pairwise'][after['weakest']]:.3f}",
            *(f"{accuracy[mode]:.0%}" for mode in ("pos", "rej", "neg")),
            f"{sum(report['seconds'].values()) / 60:.1f}",
            str(report["peak_memory_gb"]),
            str(len(report["signs"])),
        )
    Console().print(table)
    Console().print(f"{report['test_prompts']} held-out prompts; {report['machine']}")


if __name__ == "__main__":
    main()
