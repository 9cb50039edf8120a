import copy
import dataclasses
import json
import logging
import pickle

import pytest

from switchsafe import Secret

TOKEN = "k3v9q2m8x7c1z5b4"


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{:>30}".format, lambda s: f"{s}", lambda s: f"{s!r}"])
def test_no_way_of_printing_shows_the_token(show):
    assert TOKEN not in show(Secret(TOKEN))


def test_containers_and_logs_stay_silent(caplog):
    @dataclasses.dataclass
    class Holder:
        secret: Secret

    holder = Holder(Secret(TOKEN))
    with caplog.at_level(logging.INFO):
        logging.info("%s %r %s", holder.secret, [holder.secret], vars(holder))
    shown = caplog.text + repr(holder) + repr(dataclasses.asdict(holder)) + str(copy.deepcopy(holder))
    assert TOKEN not in shown
    assert "***" in shown


def test_it_cannot_be_pickled_or_dumped():
    for dump in (pickle.dumps, copy_reduce, json.dumps):
        with pytest.raises(TypeError) as raised:
            dump(Secret(TOKEN))
        assert TOKEN not in str(raised.value)


def copy_reduce(secret):
    return secret.__reduce_ex__(2)


def test_equal_by_value_and_immutable():
    secret = Secret(TOKEN)
    assert secret == Secret(TOKEN) != Secret(TOKEN[::-1])
    assert len({secret, Secret(TOKEN)}) == 1
    assert secret.reveal() == TOKEN
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(TypeError):
        Secret("")
