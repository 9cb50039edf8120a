"""The Space: the page of the package, over the model that its settings name."""

import os

from switchsafe.space.engine import Engine
from switchsafe.space.page import build, launch
from switchsafe.space.settings import Settings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
engine = Engine(Settings.from_env()).start()
demo = build(engine)

if __name__ == "__main__":
    launch(demo, engine)
