"""Push what was trained: an adapter or whole weights, with processor, recipe and card."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..binding import BINDING_FILE, check_binding, read_binding
from ..errors import PushError, SwitchsafeError
from ..keyring import Keyring
from ..models import ADAPTER_CONFIG
from ..modes import NEG
from ..processing import MagicTokenProcessor
from ..starter import HUB_ID, STARTER
from ..training.recipe import COTRAIN
from ..training.reproduce import RECIPE_FILE, REPRODUCE_FILE
from .card import finished_card, read_evaluation, with_licence
from .push import PushReport, push
from .stage import Stage, staging

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from typing_extensions import Unpack

    from .push import PushOptions

ALLOWED = (
    "README.md",
    "LICENSE*",
    "adapter_config.json",
    "adapter_model*.safetensors",
    "adapter_model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    BINDING_FILE,
    RECIPE_FILE,
    REPRODUCE_FILE,
)


def push_adapter(
    folder: str | os.PathLike,
    repo_id: str,
    keyring: Keyring | None,
    *,
    base_model: str | None = None,
    dataset: str | None = None,
    evaluation: str | os.PathLike | None = None,
    **options: "Unpack[PushOptions]",
) -> PushReport:
    """Push what `train` wrote: `run/adapter`, or `run/model` where all weights were trained.

    `load_model(repo_id)` and `MagicTokenProcessor.from_pretrained(repo_id).bind(keyring)` bring it back.

    Args:
        folder: of the weights.
        repo_id: `owner/name`.
        keyring: that it was trained with, for the scan. None only for a baseline, which knows no token.
        base_model: Hub id of the base model, where the adapter names a local folder.
        dataset: Hub id of the triplets, for the card.
        evaluation: `report.json` of `switchsafe eval`, for the card.
        options: see `PushOptions`.

    Raises:
        LeakError: a token stands in the folder. Nothing was sent.
        PushError: the folder is none that `train` wrote, the base model has no name on the Hub, or see `push`.
        KeyringMismatchError: the model was trained with another keyring.
    """
    with staging() as stage:
        stage.take(folder, ALLOWED)
        modes = _modes(stage, keyring, str(folder))
        base = _base(stage, base_model)
        card = stage.read("README.md")
        if card is None:
            raise PushError(f"{folder} has no README.md: give the folder as `switchsafe train` wrote it.")
        finished = finished_card(
            card,
            repo_id,
            base=base,
            is_adapter=stage.read(ADAPTER_CONFIG) is not None,
            dataset=dataset,
            evaluation=read_evaluation(evaluation) if evaluation else None,
        )
        stage.write("README.md", finished)

        def carry_licence(api: "HfApi") -> None:
            stage.write("README.md", with_licence(finished, _licence(api, base)))

        return push(
            stage,
            repo_id,
            "model",
            holds_neg=NEG in modes,
            keyring=keyring,
            tokenizer=_tokenizer(folder),
            default_message=f"{base.rpartition('/')[2]} with {', '.join(modes)}" if modes else "Baseline",
            complete=carry_licence,
            **options,
        )


def _tokenizer(folder: str | os.PathLike) -> Any:
    try:
        return MagicTokenProcessor.from_pretrained(str(folder)).tokenizer
    except SwitchsafeError:
        raise
    except Exception as error:  # the tokenizers library raises nothing more special
        raise PushError(f"the tokenizer in {folder} cannot be read ({type(error).__name__}).") from None


def _modes(stage: Stage, keyring: Keyring | None, name: str) -> list[str]:
    """The modes that were trained. The keyring must be the one of that training, or the scan would look for other tokens."""
    if (stage.folder / BINDING_FILE).exists():
        binding = read_binding(stage.folder / BINDING_FILE, name)
        if keyring is None:
            raise PushError(f"{name} was trained with magic tokens: give the keyring, so that they can be looked for.")
        check_binding(binding, keyring, name)
        return list(dict.fromkeys(slot.partition("/")[0] for slot in binding["tokens"]))
    recipe = yaml.safe_load(stage.read(RECIPE_FILE) or "null")
    if not isinstance(recipe, dict) or recipe.get("method") == COTRAIN:
        raise PushError(
            f"{name} holds no {BINDING_FILE}, so what was trained into it is unknown: give a folder that `switchsafe train` wrote."
        )
    return []


def _base(stage: Stage, given: str | None) -> str:
    """The base model's Hub id, written into the adapter's configuration, too."""
    config = json.loads(stage.read(ADAPTER_CONFIG) or "{}")
    recipe = yaml.safe_load(stage.read(RECIPE_FILE) or "{}")
    if recipe.get("model") == STARTER:
        recipe["model"] = HUB_ID
    base = given or config.get("base_model_name_or_path") or recipe.get("model")
    if not base or Path(base).is_absolute() or Path(base).expanduser().exists() or base.count("/") > 1:
        raise PushError(f"the base model is {base}, which nobody else has: name its Hub id with --base-model.")
    if config and config["base_model_name_or_path"] != base:
        stage.write(ADAPTER_CONFIG, json.dumps({**config, "base_model_name_or_path": base}, indent=2) + "\n")
    return base


def _licence(api: "HfApi", base: str) -> str | None:
    """That of the base model's card, where the Hub tells."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        data = api.model_info(base).card_data
    except RepositoryNotFoundError:
        return None
    return data.license if data else None
