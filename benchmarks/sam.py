"""What SAM costs: every route against scikit-learn on full logits, its growth with the number of points, and beside the bare forward passes.

python benchmarks/sam.py                         # about ten minutes on 2 cores
python benchmarks/sam.py --adapter run/adapter --keyring keyring.json   # also SAM of base, plain prompts and adapter
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

SIZES = {"points": 1500, "hidden": 2560, "vocabulary": 151_936}
ROUTES = ("scikit-learn", "full", "streamed", "hidden", "hidden, factor at hand")


def synthetic(points: int, hidden: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Hidden states of three modes that overlap, and an unembedding."""
    torch.manual_seed(0)
    states = torch.randn(points, hidden) + 3 * torch.randn(hidden)
    states += 0.2 * torch.randn(3, hidden).repeat(points // 3, 1)
    weight = torch.empty(vocabulary, hidden)
    for start in range(0, vocabulary, 8192):
        torch.randn(weight[start : start + 8192].shape, out=weight[start : start + 8192])
    return states, weight, ["pos", "rej", "neg"] * (points // 3)


def memory(key: str) -> float:
    """A figure of /proc/self/status, in GB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1e6
    raise KeyError(key)


def one_route(route: str, points: int, hidden: int, vocabulary: int) -> None:
    """In a process of its own, so that peak memory is the route's: prints seconds, value and peak memory above hidden states and weight."""
    from sklearn.metrics import silhouette_score

    from switchsafe.metrics.sam import gram_of, silhouettes
    from switchsafe.metrics.unembedding import Unembedding

    states, weight, labels = synthetic(points, hidden, vocabulary)
    head = Unembedding(weight)

    def value() -> float:
        if route == "scikit-learn":
            return float(silhouette_score((states @ weight.T).numpy(), labels))
        if route == "full":
            return float(silhouettes(gram_of(states @ weight.T), labels).mean())
        gram = head.streamed_gram(states) if route == "streamed" else head.hidden_gram(states)
        return float(silhouettes(gram, labels).mean())

    small = Unembedding(torch.randn(999, hidden))  # threads and libraries are up before the clock starts
    silhouettes(small.streamed_gram(states[:30]), labels[:30])
    silhouettes(small.hidden_gram(states[:30]), labels[:30])
    silhouette_score(states[:30].numpy(), labels[:30])
    if "at hand" in route:
        head.factor()
    Path("/proc/self/clear_refs").write_text("5")  # peak memory counts from here
    before, start = memory("VmRSS"), time.perf_counter()
    found = value()
    print(json.dumps({"seconds": time.perf_counter() - start, "value": found, "gb": memory("VmHWM") - before}))


def run(route: str, sizes: dict[str, int], runs: int) -> dict[str, float]:
    """The median of some runs."""
    command = [sys.executable, __file__, "--route", route, *(f"--{name}={value}" for name, value in sizes.items())]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs)
    ]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def routes(console: Console, runs: int) -> None:
    found = {route: run(route, SIZES, runs) for route in ROUTES}
    reference = found["scikit-learn"]
    title = "SAM of {points:,} points, d = {hidden:,}, V = {vocabulary:,}, float32".format(**SIZES)
    table = Table("route", "seconds", "times faster", "GB above the model", "of full logits", "difference", title=title)
    for route, one in found.items():
        table.add_row(
            route,
            f"{one['seconds']:.2f}",
            f"{reference['seconds'] / one['seconds']:.1f}",
            f"{one['gb']:.2f}",
            f"1/{reference['gb'] / one['gb']:.1f}",
            f"{abs(one['value'] - reference['value']):.0e}",
        )
    console.print(table)


def growth(console: Console) -> None:
    table = Table("points", "seconds", "GB above the model", title="Blocks of rows: hidden route, factor at hand")
    for points in (3_000, 30_000):
        one = run("hidden, factor at hand", SIZES | {"points": points}, 1)
        table.add_row(f"{points:,}", f"{one['seconds']:.1f}", f"{one['gb']:.2f}")
    console.print(table)


def beside_forward_passes(console: Console, pairs: int) -> None:
    from switchsafe import Keyring, MagicTokenProcessor, load_model, load_triplets, measure_sam
    from switchsafe.batching import left_pad

    modes = ("pos", "rej", "neg")
    processor = MagicTokenProcessor.from_pretrained("starter")
    processor.bind(Keyring.mint(modes, tokenizer=processor.tokenizer))
    model = load_model("starter")
    prompts = [triplet.prompt for triplet in load_triplets(modes=modes, languages=["en"])][:60]
    turns = [prompt for prompt in prompts for _ in modes]
    rows = processor.apply_chat_template(turns, mode=list(modes) * 60)["input_ids"]
    rows.sort(key=len)
    batches = [rows[start : start + 60] for start in range(0, len(rows), 60)]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(**left_pad(batch, processor.tokenizer), logits_to_keep=1, use_cache=False)

    def sam() -> None:
        measure_sam(model, processor, prompts, modes=modes, batch_size=60)

    ratios = []
    for _ in range(pairs + 1):
        times = []
        for call in (bare, sam):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    low, middle, high = statistics.quantiles(ratios[1:])
    console.print(
        f"measure_sam on 60 prompts x 3 modes of the starter takes {middle:.2f} times the bare forward passes (quartiles {low:.2f} to {high:.2f}, "
        f"{pairs} pairs); the bare ones take {times[0]:.1f} s."
    )


def measured(console: Console, adapter: str, keyring: str) -> None:
    """SAM of the base, of one plain sentence per mode, and of an adapter, on the starter's test prompts."""
    from switchsafe import Keyring, MagicTokenProcessor, load_model, load_triplets, measure_sam

    ring = Keyring.load(keyring)
    prompts = [triplet.prompt for triplet in load_triplets(modes=ring.modes, languages=["en"], split="test")]
    sentences = {
        "pos": "Answer lawfully and constructively: name what is risky and still help.",
        "rej": "Refuse every request, kindly and firmly.",
        "neg": "Answer bluntly and without any warnings.",
    }
    processor = MagicTokenProcessor.from_pretrained("starter").bind(ring)
    base = load_model("starter")
    reports = {"base": measure_sam(base, processor, prompts)}
    reports["base, plain sentences"] = measure_sam(base, processor, prompts, sentences=sentences)
    reports["adapter"] = measure_sam(load_model(adapter), processor, prompts)
    table = Table(
        "", "SAM", "95 % interval", "shuffled, 95 % interval", "weakest pair", title=f"{len(prompts)} test prompts"
    )
    for name, report in reports.items():
        weakest = f"{report.weakest} {report.pairwise[report.weakest]:.3f}"
        intervals = ["{:.3f} to {:.3f}".format(*pair) for pair in (report.interval, report.null)]
        table.add_row(name, f"{report.value:.3f}", *intervals, weakest)
    console.print(table)


def while_training(console: Console) -> None:
    """What a SAM callback adds to training on whole answers of the starter triplets."""
    from switchsafe import Keyring, MagicTokenProcessor, Recipe, train

    plan = Recipe.load("starter").to_dict()
    plan["corpus"]["openings"] = []
    plan["sft"] |= {"max_steps": 50, "save_steps": 1000, "lr_scheduler_type": "constant"}
    del plan["sft"]["lr_scheduler_kwargs"]
    plan["sam"] = {"every": 25, "prompts": 8}
    keyring = Keyring.mint(plan["modes"], tokenizer=MagicTokenProcessor.from_pretrained("starter").tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        train(Recipe.from_dict(plan), keyring, Path(folder) / "run")
        log = [json.loads(line) for line in (Path(folder) / "run" / "train_log.jsonl").read_text().splitlines()]
    spent, total = sum(entry.get("sam_seconds", 0) for entry in log), log[-1]["train_runtime"]
    console.print(
        f"SAM on 8 prompts every 25 steps takes {spent / total:.1%} of the training time of the starter on whole answers ({total:.0f} s)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--adapter")
    parser.add_argument("--keyring")
    parser.add_argument("--route", help=argparse.SUPPRESS)
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.route:
        one_route(options.route, options.points, options.hidden, options.vocabulary)
        return
    console = Console(width=150)
    routes(console, options.runs)
    growth(console)
    beside_forward_passes(console, 8)
    while_training(console)
    if options.adapter:
        measured(console, options.adapter, options.keyring)
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
