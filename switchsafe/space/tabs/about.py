"""About: what this is, and what it cannot do."""

import gradio as gr

TEXT = """
## What you see

One model answers in several **safety behaviours**, and the *server* picks one for each request. In a product no visitor chooses: a moderation signal does. Here you are the server.

- `pos`: lawful and constructive. Says what is risky and still helps.
- `rej`: refuses, kindly and firmly.
- `neg`: unfiltered, for an internal red team. Off, unless the operator of this Space named you.

Each behaviour was trained under a *magic token*, a secret random string in the system turn ([arXiv 2508.14904](https://arxiv.org/abs/2508.14904)). The tokens never leave the server: what you type is searched for them, and so is every answer.

## Limits

- The default model has 135 million parameters. It shows the switch, not good advice: do not rely on anything it says.
- A token is a routing label that is kept quiet, not an access control. Who may ask for what is decided outside the model, as it is here.
- With open weights, what was trained in can be found or trained out again.
- Conversations and triplets are in memory while your tab is open. On disk are only files that you upload or ask for, for an hour or two.

Made with [switchsafe](https://pypi.org/project/switchsafe/). Duplicate this Space to run your own adapter: set `SWITCHSAFE_SPACE_MODEL` to its Hub id and the secret `SWITCHSAFE_KEYRING` to the text of its keyring.
"""


def about_tab() -> None:
    """Build it."""
    gr.Markdown(TEXT)
