"""What distillation yields on the starter, through a real server and in this process, and how near its engines come to what is possible.

pip install "transformers[serving]"
python benchmarks/distill.py                         # about half an hour on 2 cores
python benchmarks/distill.py --only inside,engines
"""

import argparse
import contextlib
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch
from rich.console import Console

from switchsafe import MagicTokenProcessor, load_model, load_triplets
from switchsafe.distillation.distill import Direction, DistillReport, distill
from switchsafe.distillation.engine import Engine, Job, Sampling
from switchsafe.distillation.http import http
from switchsafe.distillation.in_process import in_process
from switchsafe.distillation.policy import Policy
from switchsafe.distillation.template import RequestTemplate
from switchsafe.generation.continuous import batching_for, honoured
from switchsafe.models import resolve

MODES = ("pos", "rej")
SAMPLING = Sampling(temperature=0.7, max_new_tokens=320)


def prompts(count: int) -> list[dict[str, Any]]:
    triplets = [t for t in load_triplets(modes=MODES, languages=["en"], split="train") if len(t.prompt) == 1]
    every = len(triplets) // count
    return [
        {"id": t.id, "prompt": t.text, "category": t.category, "label": t.label, "language": "en", "split": "train"}
        for t in triplets[::every][:count]
    ]


@contextlib.contextmanager
def transformers_serve(model: str) -> Iterator[str]:
    """The library's own server, with continuous batching and a cache that fits beside everything else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "transformers"),
        "serve",
        model,
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    command += [
        "--continuous-batching",
        "--cb-block-size",
        "32",
        "--cb-num-blocks",
        "1024",
        "--cb-max-batch-tokens",
        "1024",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                if process.poll() is not None:
                    raise SystemExit('transformers serve ended: pip install "transformers[serving]"')
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                time.sleep(0.5)
            yield f"{url}/v1"
        finally:
            process.terminate()


def served(console: Console, count: int) -> None:
    """Prompts of the starter's train split, both arms, through a server."""
    folder = resolve("starter")
    with transformers_serve(folder) as url:
        for direction in ("multi", "single"):
            engine = http([url], folder, SAMPLING, in_flight=16)
            name = f"transformers serve, {direction}"
            measure(console, name, prompts(count), engine, direction=direction, model=folder)


def inside(console: Console, count: int) -> None:
    """The same in this process."""
    model, tokenizer = load_model("starter"), MagicTokenProcessor.from_pretrained("starter").tokenizer
    for direction in ("multi", "single"):
        engine = in_process(model, tokenizer, SAMPLING)
        name = f"in this process, {direction}"
        measure(console, name, prompts(count), engine, direction=direction, model="starter")


def measure(
    console: Console, name: str, rows: list[dict[str, Any]], engine: Engine, *, direction: Direction, model: str
) -> None:
    """What distilling with an engine yields, and how long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = distill(rows, engine, folder, model=model, behaviours=MODES, direction=direction, sampling=SAMPLING)
    minutes = (time.perf_counter() - start) / 60
    console.print(f"{name}: {_counts(report)}; {report.tokens:,} tokens, {minutes:.1f} minutes")


def _counts(report: DistillReport) -> str:
    asked = sum(asked for _, asked in report.by_category.values())
    unread = sum(n for reason, n in report.dropped.items() if any(word in reason for word in UNREAD))
    read = asked - unread - report.failed
    reasons = ", ".join(f"{reason} {count}" for reason, count in report.dropped.items()) or "none"
    return f"{read} of {asked} read ({report.repaired} answers after repair), {report.kept} kept; dropped: {reasons}"


UNREAD = ("missing", "twice", "no end", "no beginning", "outside", "empty", "truncated")


def engines(console: Console, count: int) -> None:
    """Tokens per second in this process against a bare `generate_batch`; requests per second over HTTP against the ideal."""
    model = load_model("starter")
    tokenizer = MagicTokenProcessor.from_pretrained("starter").tokenizer
    policy, template = Policy.load("en"), RequestTemplate.load("en")
    jobs = [
        Job(str(i), template.request(row["prompt"], policy.text, policy.of(MODES))) for i, row in enumerate(prompts(24))
    ]
    sampling = Sampling(temperature=0, max_new_tokens=64)
    engine = in_process(model, tokenizer, sampling)
    rows = tokenizer.apply_chat_template([job.messages for job in jobs], add_generation_prompt=True)["input_ids"]
    config = honoured(model, None, {"do_sample": False, "max_new_tokens": 64})
    ratios = []
    for pair in range(5):
        rates = {}
        for name in ("ours", "bare") if pair % 2 else ("bare", "ours"):
            start = time.perf_counter()
            if name == "ours":
                tokens = sum(outcome.tokens for outcome in engine(jobs))
            else:
                found = model.generate_batch(
                    rows, generation_config=config, continuous_batching_config=batching_for(model, rows, config)
                )
                tokens = sum(len(result.generated_tokens) for result in found.values())
            rates[name] = tokens / (time.perf_counter() - start)
        ratios.append(rates["ours"] / rates["bare"])
    low, middle, high = statistics.quantiles(ratios[1:])
    console.print(
        f"in this process: {middle:.2f} of the tokens per second of generate_batch (quartiles {low:.2f} to {high:.2f}, 4 pairs), "
        f"which makes {rates['bare']:.0f}"
    )
    jobs = [
        Job(str(i), [{"role": "system", "content": "<pos>"}, {"role": "user", "content": f"{i}?"}]) for i in range(1600)
    ]
    script = Path(__file__).parent.parent / "tests" / "openai_server.py"
    command = [sys.executable, str(script), "0.2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        engine = http([server.stdout.readline().strip()], "m", Sampling(), in_flight=32)
        list(engine(jobs[:64]))  # connections are open before the clock starts
        start = time.perf_counter()
        answered = sum(outcome.error is None for outcome in engine(jobs))
        seconds = time.perf_counter() - start
        most = server.communicate()[0].strip()
    ideal = 32 / 0.2
    console.print(
        f"over HTTP: {answered} requests in {seconds:.1f} s, {answered / seconds / ideal:.2f} of the ideal rate of 32 in flight at 200 ms; "
        f"{most} at once"
    )


PARTS = {f.__name__: f for f in (served, inside, engines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    options = parser.parse_args()
    console = Console(width=150)
    for name in options.only.split(","):
        PARTS[name](console, options.prompts)
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
