import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback

import pytest
import rich
import yaml
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from switchsafe import Secret
from switchsafe.secret import hide_frames

TOKEN = "k3v9q2m8x7c1z5b4"


@dataclasses.dataclass
class Holder:
    secret: Secret


def printed_by_rich(show):
    console = Console(file=io.StringIO(), width=200)
    show(console)
    return console.file.getvalue()


def fail_with_locals():
    mine = Secret(TOKEN)
    holder = Holder(mine)
    return 1 / 0, holder


def locals_shown():
    try:
        fail_with_locals()
    except ZeroDivisionError as error:
        plain = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        coloured = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
        return "".join(plain) + printed_by_rich(lambda console: console.print(coloured))


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{:>30}".format, lambda s: f"{s}", lambda s: f"{s!r}"])
def test_no_way_of_printing_shows_the_token(show):
    assert TOKEN not in show(Secret(TOKEN))


SHOWN = {
    "list": lambda s: str([s, {s: s}]),
    "percent": lambda s: "%s %r %a" % (s, s, s),  # noqa: UP031
    "json default": lambda s: json.dumps({"a": s}, default=str),
    "pprint": pprint.pformat,
    "dataclass": lambda s: repr(Holder(s)),
    "asdict": lambda s: repr(dataclasses.asdict(Holder(s))),
    "vars": lambda s: repr(vars(Holder(s))),
    "copy": lambda s: repr([copy.copy(s), copy.deepcopy(Holder(s))]),
    "exception": lambda s: repr(ValueError(s)) + str(ValueError(s)),
    "rich.print": lambda s: printed_by_rich(lambda console: console.print(s, [s], Holder(s))),
    "rich.log": lambda s: printed_by_rich(lambda console: console.log(s, log_locals=True)),
    "rich.pretty": lambda s: pretty_repr({"a": [s, Holder(s)]}),
    "traceback with locals": lambda s: locals_shown(),
}


@pytest.mark.parametrize("name", SHOWN)
def test_containers_and_printers_stay_silent(name):
    shown = SHOWN[name](Secret(TOKEN))
    assert TOKEN not in shown
    assert "Secret(***)" in shown


def test_its_attributes_stay_silent():
    secret = Secret(TOKEN)
    listed = printed_by_rich(lambda console: rich.inspect(secret, console=console, all=True, value=True))
    assert "reveal" in listed, "rich.inspect looked"
    assert TOKEN not in listed
    attributes = [getattr(secret, name, None) for name in dir(secret)]
    assert TOKEN not in repr(attributes)
    with pytest.raises(TypeError):
        vars(secret)


def test_a_notebook_prints_its_repr():
    # IPython asks for these before it falls back to repr
    names = ["_repr_pretty_", "_repr_html_", "_repr_mimebundle_", "_ipython_display_", "__rich__", "__rich_repr__"]
    assert not any(hasattr(Secret(TOKEN), name) for name in names)


def test_logs_stay_silent(caplog):
    with caplog.at_level(logging.INFO):
        logging.info("%s %r %s", Secret(TOKEN), [Secret(TOKEN)], {"a": Secret(TOKEN)}, extra={"who": Secret(TOKEN)})
    assert TOKEN not in caplog.text + repr([vars(record) for record in caplog.records])
    assert "***" in caplog.text


def test_it_cannot_be_pickled_or_dumped():
    for dump in (pickle.dumps, copy_reduce, json.dumps, yaml.dump, bytes, "".join):
        with pytest.raises(TypeError) as raised:
            dump([Secret(TOKEN)])
        assert TOKEN not in str(raised.value)


def copy_reduce(secrets):
    return secrets[0].__reduce_ex__(2)


def test_equal_by_value_and_immutable():
    secret = Secret(TOKEN)
    assert secret == Secret(TOKEN) != Secret(TOKEN[::-1])
    assert secret != TOKEN
    assert len({secret, Secret(TOKEN)}) == 1
    assert secret.reveal() == TOKEN
    for name in Secret.__slots__:
        with pytest.raises(AttributeError):
            setattr(secret, name, "other")
        with pytest.raises(AttributeError):
            delattr(secret, name)
    with pytest.raises(TypeError):
        Secret("")


def test_what_is_refused_is_not_shown():
    with pytest.raises(TypeError) as raised:
        Secret(TOKEN.encode())
    inner = raised.traceback[-1].frame.f_locals
    assert TOKEN not in str(raised.value) + repr(inner)


def test_hidden_frames_keep_the_error_and_drop_what_led_to_it():
    @hide_frames
    def work(token):
        doubled = token * 2
        try:
            return int(doubled)
        except ValueError as error:
            raise KeyError("no number") from error

    def caught():
        try:
            work(TOKEN)
        except KeyError as error:
            return error

    error = caught()
    assert error.args == ("no number",)
    assert error.__cause__ is error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "in caught" in shown, "where it was called stays"
    assert "doubled" not in shown
    # The last frame is ours; that of `caught` names a module constant only.
    assert TOKEN not in shown
    assert hide_frames(len)("abc") == 3
