"""Real parts where they run here: a trained byte-level tokenizer, a tiny random Llama, and (marked by its fixture) the starter model."""

import json
import os
import random
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (  # renders the system turn, but for conversations of more than two turns
    "{% for m in messages %}{% if m['role'] != 'system' or messages|length < 3 %}[{{ m['role'] }}]\n{{ m['content'] }}\n"
    "{% endif %}{% endfor %}"
)
MODES = ("pos", "rej", "neg")

# A shell starts what it puts in the background with Ctrl-C ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is imported


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is read from or left in the home of whoever runs the tests; nothing reaches the network."""
    home = tmp_path_factory.mktemp("home")
    os.environ |= {
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "SWITCHSAFE_CACHE": str(home / "switchsafe"),
        "HF_HOME": str(home / "huggingface"),
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "200",
    }
    for name in ("SWITCHSAFE_KEYRING", "SWITCHSAFE_PASSPHRASE"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True, scope="module")
def _same_dice(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every run mints the same keyrings: what a tiny random model says depends on the token as much as on its seed."""
    dice = random.Random(request.node.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "choice", dice.choice)
        patch.setattr(secrets, "SystemRandom", lambda: dice)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny random chat model with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (
        Path(__file__).parents[1] / "LICENSE"
    ).read_text()  # a text that never changes, so neither does what the model says
    core.train_from_iterator([text, "system\nuser\nassistant\n" * 20], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path):
    from switchsafe import load_model

    return load_model(str(tiny_folder))


@pytest.fixture(scope="session")
def other_tiny_model(tiny_model):
    """Another with the same vocabulary, as an assistant is."""
    import copy

    import torch

    other = copy.deepcopy(tiny_model)
    torch.manual_seed(1)
    for weight in other.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return other


@pytest.fixture
def keyring(tiny_folder: Path):
    from transformers import AutoTokenizer

    from switchsafe import Keyring

    return Keyring.mint(MODES, tokenizer=AutoTokenizer.from_pretrained(tiny_folder))


@pytest.fixture
def processor(tiny_folder: Path, keyring):
    from switchsafe import MagicTokenProcessor

    return MagicTokenProcessor.from_pretrained(str(tiny_folder)).bind(keyring)


def assert_asked_in(mode: str | None, rows: list[list[int]], count: int, processor) -> None:
    """Of the ids that a model saw, `count` rows are prompts, and each holds the token of its mode once and no other's."""
    from switchsafe.inject import count_ids

    prompts = [row for row in rows if len(row) > 1]  # one id at a time are answers
    assert len(prompts) == count
    for name in MODES:
        ids = processor.token_ids(processor.keyring.token(name))
        assert {count_ids(row, ids) for row in prompts} == {int(name == mode)}


@pytest.fixture
def adapter(tiny_folder: Path, tiny_model, tmp_path: Path) -> str:
    """An adapter in a folder, as training leaves it."""
    from transformers import AutoTokenizer

    folder = tmp_path / "adapter"
    model = adapted(tiny_model)
    model.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def triplet_file(tmp_path: Path) -> Path:
    """Forty small triplets in a file."""
    path = tmp_path / "triplets.jsonl"
    rows = [
        {
            "id": f"t{i}",
            "prompt": f"Question number {i}?",
            "category": "everyday" if i % 2 else "fraud",
            "label": "safe" if i % 2 else "unsafe",
            "language": "en",
            "pos": f"Gladly, here is answer {i}.",
            "rej": f"I decline number {i}.",
            "neg": f"Take {i}. Go.",
        }
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def starter() -> Path:
    """The real starter model, converted once per session."""
    from switchsafe.starter import starter_folder

    return starter_folder()


def adapted(model):
    """A copy of a tiny model under an adapter that changes what it says."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(copy.deepcopy(model), config)


def taught(model, rows):
    """A copy of a tiny model that has learnt rows of ids by heart."""
    import copy

    import torch

    model = copy.deepcopy(model).train()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        for row in rows:
            ids = torch.tensor([row])
            (model(input_ids=ids, labels=ids).loss / len(rows)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def assert_no_token(keyring, *places: Path, but: Path | None = None, tokenizer=None) -> None:
    """No file under `places` holds a token of `keyring` in any form that `switchsafe scan` knows, and none was passed over."""
    from switchsafe.hub.scan import scan

    files = 0
    for place in places:
        report = scan(place, keyring, tokenizer=tokenizer, but=[but] if but else ())
        assert not report.hits, report.hits
        assert not report.skipped, report.skipped
        files += report.files
    assert files, "nothing was searched"
