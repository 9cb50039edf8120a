"""Loading a model with its processor from what a harness passes on: text."""

import os
from typing import TYPE_CHECKING

from ..errors import KeyringError
from ..keyring import Keyring
from ..models import default_device, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..processing import MagicTokenProcessor


def load_processor(name: str, keyring: str | None, revision: str | None = None) -> "MagicTokenProcessor":
    """The processor of a model or an adapter, bound to its keyring.

    Args:
        name: as for `load_model`.
        keyring: the file; by default the text in $SWITCHSAFE_KEYRING.
        revision: branch, tag or commit of `name` on the Hub.

    Raises:
        KeyringError: there is no keyring, or the model was trained with another.
        TemplateError: there is no chat template, or it cannot carry a token.
    """
    from ..processing import MagicTokenProcessor

    if not keyring and not os.environ.get("SWITCHSAFE_KEYRING"):
        raise KeyringError("no keyring was given: add keyring=FILE, or put its text into $SWITCHSAFE_KEYRING.")
    at = {"revision": revision} if revision else {}
    ring = Keyring.load(keyring) if keyring else Keyring.from_env()
    processor = MagicTokenProcessor.from_pretrained(name, **at).bind(ring)
    processor.placement()
    return processor


def load_on(
    name: str, device: str | None = None, dtype: str | None = None, revision: str | None = None
) -> "PreTrainedModel":
    """A model or an adapter on a device.

    Args:
        name: as for `load_model`.
        device: such as `"cuda:1"`; by default the one there is, also when a `cuda` device is asked for on a machine without.
        dtype: such as `"bfloat16"`; by default that of `load_model`.
        revision: branch, tag or commit of `name` on the Hub.
    """
    import torch

    if not device or (device.startswith("cuda") and not torch.cuda.is_available()):
        device = default_device()
    return load_model(name, revision=revision, **({"dtype": dtype} if dtype else {})).to(device)
