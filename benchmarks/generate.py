"""What a mode, a batch of modes, a blend and the guard cost, whether answers are what the library gives alone, and what the dial does.

python benchmarks/generate.py --adapter run/adapter --keyring keyring.json --plot dial.svg   # about half an hour on 2 cores
python benchmarks/generate.py --adapter run/adapter --keyring keyring.json --only overhead,blend
"""

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from switchsafe import (
    Keyring,
    MagicTokenProcessor,
    ModeJudge,
    generate,
    generate_many,
    load_model,
    load_triplets,
    switchable,
)
from switchsafe.batching import left_pad
from switchsafe.generation.leak import TokenLeakLogitsProcessor
from switchsafe.guard import Guard
from switchsafe.modes import colour
from switchsafe.progress import track

MODES = ("pos", "rej", "neg")
SYSTEM = "You are the assistant of a hardware shop. Be brief, be kind, name a price where there is one, and never promise a delivery date. "


class Setting:
    """The trained starter and a tiny random model with the same tokenizer, and prompts neither was trained on."""

    def __init__(self, adapter: str, keyring: str) -> None:
        self.ring = Keyring.load(keyring)
        self.processor = MagicTokenProcessor.from_pretrained(adapter).bind(self.ring)
        self.model = load_model(adapter)
        self.triplets = load_triplets(modes=MODES, languages=["en"], split="test")
        self.prompts = [triplet.text for triplet in self.triplets if len(triplet.prompt) == 1]
        torch.manual_seed(0)
        self.tiny = tiny(self.processor.tokenizer)
        self.adapter = adapter

    def by_hand(self, prompts: list[str], modes: list[str]) -> dict[str, torch.Tensor]:
        """The prompt that a user without this package would write."""
        turns = [
            [{"role": "system", "content": self.ring.token(mode).reveal()}, {"role": "user", "content": prompt}]
            for prompt, mode in zip(prompts, modes, strict=True)
        ]
        rows = self.processor.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        return left_pad(rows, self.processor.tokenizer)


def tiny(tokenizer: Any) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def ratio(first: Callable[[], Any], second: Callable[[], Any], pairs: int) -> tuple[str, float]:
    """How many times as long the first takes as the second, in pairs, one after the other; and the seconds of the second."""
    ratios, seconds = [], []
    for pair in range(pairs + 1):  # the first pair warms up
        times = {}
        for call in (first, second) if pair % 2 else (second, first):
            start = time.perf_counter()
            call()
            times[call] = time.perf_counter() - start
        ratios.append(times[first] / times[second])
        seconds.append(times[second])
    low, middle, high = statistics.quantiles(ratios[1:])
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}, {pairs} pairs)", statistics.median(seconds[1:])


def equal(console: Console, setting: Setting) -> None:
    """Texts of `generate` against the library's own `generate` on ids made by hand."""
    assistant = load_model("starter")
    greedy, sampled = {"do_sample": False}, {"do_sample": True, "temperature": 0.8, "top_k": 40}
    one, eight, mixed = ["rej"], ["rej"] * 9, list(MODES) * 3
    cases: dict[str, tuple[list[str], dict[str, Any]]] = {
        "one": (one, {}),
        "batch": (eight, {}),
        "a mode per row": (mixed, {}),
        "beams": (mixed, {"num_beams": 3}),
        "static cache": (mixed, {"cache_implementation": "static"}),
        "assisted": (one, {"assistant_model": assistant}),
    }
    table = Table("texts equal", "starter, greedy", "starter, sampled", "tiny, greedy", "tiny, sampled")
    for name, (modes, kwargs) in track(list(cases.items()), "Comparing texts"):
        cells = []
        for model in (setting.model, setting.tiny):
            for way in (greedy, sampled):
                same = total = 0
                for start in range(0, 9 if len(modes) == 1 else 18, len(modes)):
                    prompts = setting.prompts[start : start + len(modes)]
                    arguments = {"max_new_tokens": 32, **way, **kwargs}
                    if "assistant_model" in arguments and model is setting.tiny:
                        arguments["assistant_model"] = setting.tiny
                    inputs = setting.by_hand(prompts, modes)
                    torch.manual_seed(0)
                    output = model.generate(
                        **inputs, pad_token_id=setting.processor.tokenizer.pad_token_id, **arguments
                    )
                    expected = setting.processor.tokenizer.batch_decode(
                        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
                    )
                    torch.manual_seed(0)
                    found = generate(model, setting.processor, prompts, mode=modes, **arguments)
                    same += sum(a == b for a, b in zip(expected, found, strict=True))
                    total += len(expected)
                cells.append(f"{same} of {total}")
        table.add_row(name, *cells)
    console.print(table)


def overhead(console: Console, setting: Setting) -> None:
    """`generate` against `model.generate` on ids that are ready, 64 new tokens."""
    length = {"min_new_tokens": 64, "max_new_tokens": 64, "do_sample": False}
    ids = setting.by_hand(setting.prompts[:1], ["pos"])
    for name, model, pairs in (("starter", setting.model, 15), ("tiny model", setting.tiny, 40)):
        pad = {"pad_token_id": setting.processor.tokenizer.pad_token_id}
        leak = LogitsProcessorList([TokenLeakLogitsProcessor(setting.ring, setting.processor.tokenizer)])

        def ours(model: Any = model, **more: Any) -> None:
            generate(model, setting.processor, setting.prompts[0], mode="pos", **length, **more)

        def plain(model: Any = model, pad: Any = pad) -> None:
            model.generate(**ids, **length, **pad)

        found, seconds = ratio(ours, plain, pairs)
        console.print(f"generate on the {name}, 64 tokens: {found} times model.generate, which takes {seconds:.3f} s")
        found, _ = ratio(lambda ours=ours, leak=leak: ours(logits_processor=leak), ours, pairs)
        console.print(f"... with TokenLeakLogitsProcessor: {found} times without")


def batch(console: Console, setting: Setting) -> None:
    """24 requests, 8 a mode: as one batch, as three, and by continuous batching."""
    prompts, modes = setting.prompts[:24], list(MODES) * 8
    length = {"min_new_tokens": 48, "max_new_tokens": 48, "do_sample": False}

    def mixed() -> None:
        generate(setting.model, setting.processor, prompts, mode=modes, **length)

    def apart() -> None:
        for mode in MODES:
            mine = [prompt for prompt, other in zip(prompts, modes, strict=True) if other == mode]
            generate(setting.model, setting.processor, mine, mode=mode, **length)

    found, seconds = ratio(apart, mixed, 7)
    console.print(
        f"three calls of 8 after one another take {found} times one mixed batch of 24, which takes {seconds:.1f} s"
    )
    requests = [
        {"prompt": prompt, "mode": mode, "id": f"{i} {mode}"}
        for mode in MODES
        for i, prompt in enumerate(setting.prompts[:24])
    ]

    def many() -> None:
        generate_many(setting.model, setting.processor, requests, max_new_tokens=48)

    def batches() -> None:
        for start in range(0, len(requests), 24):
            part = requests[start : start + 24]
            each = {"mode": [r["mode"] for r in part], "max_new_tokens": 48, "do_sample": False}
            generate(setting.model, setting.processor, [r["prompt"] for r in part], **each)

    found, seconds = ratio(many, batches, 3)
    console.print(
        f"generate_many on {len(requests)} requests takes {found} times batches of 24, which take {seconds:.1f} s"
    )


def blend(console: Console, setting: Setting) -> None:
    """Two branches at batch 1 against one mode, by the token; and what a blend of weight 1 says."""
    prompt = setting.prompts[0]

    def per_token(mode: Any) -> float:
        times = []
        for tokens in (8, 72):
            start = time.perf_counter()
            length = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}
            generate(setting.model, setting.processor, prompt, mode=mode, **length)
            times.append(time.perf_counter() - start)
        return (times[1] - times[0]) / 64

    ratios, single = [], []
    for _ in range(12):
        one, two = per_token("pos"), per_token({"pos": 0.5, "rej": 0.5})
        ratios.append(two / one)
        single.append(one)
    low, middle, high = statistics.quantiles(ratios[1:])
    console.print(
        f"a token of a blend of two takes {middle:.2f} times one of a single mode (quartiles {low:.2f} to {high:.2f}, 11 pairs), "
        f"which takes {statistics.median(single) * 1000:.1f} ms"
    )
    for blend, mode in (({"pos": 1.0, "rej": 0.0}, "pos"), ({"pos": 0.0, "rej": 1.0}, "rej")):
        texts = [
            generate(setting.model, setting.processor, setting.prompts[:8], mode=m, max_new_tokens=32, do_sample=False)
            for m in (blend, mode)
        ]
        console.print(f"greedy text at {blend} equal to {mode}: {texts[0] == texts[1]}")


def dial(console: Console, setting: Setting, plot: Path | None) -> None:
    """From pos to rej: how many answers to held-out unsafe prompts a judge that never saw the token takes for refusals."""
    judge = ModeJudge([t for t in load_triplets(modes=MODES, languages=["en"]) if t.split != "test"], MODES)
    prompts = [triplet.prompt for triplet in setting.triplets if triplet.label == "unsafe"]
    weights, shares = [0.0, 0.25, 0.5, 0.75, 1.0], []
    table = Table("weight of rej", "refusals", "share", title=f"{len(prompts)} held-out unsafe prompts")
    for weight in track(weights, "Turning the dial"):
        mode = {"pos": 1 - weight, "rej": weight}
        answers = generate(setting.model, setting.processor, prompts, mode=mode, max_new_tokens=96, do_sample=False)
        refusals = judge.classify(answers).count("rej")
        shares.append(refusals / len(prompts))
        table.add_row(f"{weight:g}", f"{refusals} of {len(prompts)}", f"{shares[-1]:.0%}")
    console.print(table)
    if plot:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        error = [1.96 * (share * (1 - share) / len(prompts)) ** 0.5 for share in shares]
        axes.errorbar(weights, shares, yerr=error, marker="o", capsize=3, color=colour("rej"))
        axes.set(
            xlabel="weight of rej (the rest is pos)", ylabel="share of refusals", ylim=(-0.05, 1.05), xticks=weights
        )
        figure.savefig(plot, metadata={"Date": None})


def leak(console: Console, setting: Setting) -> None:
    """A tiny model that has learnt its tokens by heart, 10,000 samples with and without the processor."""
    tokenizer, ring = setting.processor.tokenizer, setting.ring
    model = copy.deepcopy(setting.tiny).train()
    rows = [tokenizer(f"\n{secret.reveal()}\n", return_tensors="pt")["input_ids"] for secret in ring.secrets()]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        sum(model(input_ids=row, labels=row).loss for row in rows).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    guard = Guard(ring.secrets())
    table = Table("temperature", "samples", "tokens without the processor", "with it")
    start = tokenizer("\n", return_tensors="pt")
    processor = LogitsProcessorList([TokenLeakLogitsProcessor(ring, tokenizer)])
    for temperature in track([0.1, 0.7, 1.0, 1.5], "Sampling a model that knows its tokens"):
        counts = []
        for processors in (LogitsProcessorList(), processor):
            texts = []
            for _ in range(5):
                output = model.generate(
                    **start,
                    do_sample=True,
                    temperature=temperature,
                    top_k=0,
                    max_new_tokens=24,
                    num_return_sequences=500,
                    logits_processor=processors,
                )
                texts += tokenizer.batch_decode(output, skip_special_tokens=True)
            counts.append(sum(map(guard.holds, texts)))
        table.add_row(f"{temperature:g}", f"{len(texts):,}", *map(str, counts))
    console.print(table)


def prefix(console: Console, setting: Setting) -> None:
    """A system text of some 300 tokens: time to the first token with and without its keys and values at hand, and whether answers differ."""
    turns = [
        [{"role": "system", "content": SYSTEM * 10}, {"role": "user", "content": prompt}] for prompt in setting.prompts
    ]
    for name, model in (
        ("bfloat16", setting.model),
        ("float32", load_model(setting.adapter, dtype=torch.float32)),
    ):
        on, off = (switchable(model, setting.processor, reuse_prefixes=reuse) for reuse in (True, False))

        def first(handle: Any) -> None:
            handle.generate(turns[0], mode="pos", max_new_tokens=1, do_sample=False)

        found, seconds = ratio(partial(first, off), partial(first, on), 15)
        console.print(
            f"{name}: without reuse the first token takes {found} times as long; with it {seconds * 1000:.0f} ms"
        )
        same = sum(
            on.generate(t, mode=mode, max_new_tokens=32, do_sample=False)
            == off.generate(t, mode=mode, max_new_tokens=32, do_sample=False)
            for t in turns[:10]
            for mode in MODES
        )
        pair = sum(
            off.generate([t, t], mode=mode, max_new_tokens=32, do_sample=False)[0]
            == off.generate(t, mode=mode, max_new_tokens=32, do_sample=False)
            for t in turns[:10]
            for mode in MODES
        )
        console.print(
            f"{name}: {same} of 30 greedy answers the same with reuse; {pair} of 30 the same in a batch of two"
        )


PARTS = {f.__name__: f for f in (equal, overhead, batch, blend, dial, leak, prefix)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="of `switchsafe quickstart`, all three modes")
    parser.add_argument("--keyring", required=True)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--plot", type=Path, help="draw the dial to this file")
    options = parser.parse_args()
    setting, console = Setting(options.adapter, options.keyring), Console(width=150)
    for name in options.only.split(","):
        PARTS[name](console, setting, *([options.plot] if name == "dial" else []))
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
