"""The settings of a queue as JSON: nothing is lost on the way, and what is wrong is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.errors import DeclarationError
from crossbus.filters import exact, prefix
from crossbus_local.queue import QueueSettings
from crossbus_local.settings_json import canonical, settings_from_json, settings_to_json

SECONDS = st.floats(min_value=0.001, max_value=1e9)
SETTINGS = st.builds(
    QueueSettings,
    filter=st.sampled_from([None, exact(type="a"), prefix(type="com.") & ~exact(tenant=["x", "y"])]),
    ordered=st.booleans(),
    backstop=st.integers(1, 2**63 - 1),
    retention=st.none() | SECONDS,
    dead_letter=st.text(),
    lease=SECONDS,
    eventgrid_filter=st.none()
    | st.dictionaries(st.text(), st.integers() | st.lists(st.text())).map(canonical),
)


@given(SETTINGS)
def test_settings_survive_json(settings: QueueSettings) -> None:
    assert settings_from_json(json.loads(json.dumps(settings_to_json(settings)))) == settings


def test_every_setting_is_written() -> None:
    paused = QueueSettings(paused=True)
    assert settings_to_json(paused).keys() == set(QueueSettings.__slots__)
    assert settings_from_json(settings_to_json(paused)).paused
    assert settings_from_json({}) == QueueSettings()


def test_that_it_is_not_paused_is_not_written() -> None:
    """An earlier release reads the settings of a later one."""
    assert "paused" not in settings_to_json(QueueSettings())
    assert not settings_from_json(settings_to_json(QueueSettings())).paused


def test_equal_eventgrid_filters_are_equal_settings() -> None:
    one = settings_from_json({"eventgrid_filter": {"a": 1, "b": [2]}})
    assert one == settings_from_json({"eventgrid_filter": {"b": [2], "a": 1}})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "settings: must be a JSON object, not an array"),
        ({"orderd": True}, r"settings: unknown key 'orderd'; did you mean 'ordered'\?"),
        ({"ordered": 1}, "settings: ordered must be true or false, not 1"),
        ({"backstop": True}, "settings: backstop must be a whole number from 1, not True"),
        ({"backstop": 0}, "settings: backstop must be a whole number from 1, not 0"),
        ({"backstop": 1.5}, "settings: backstop must be a whole number from 1, not 1.5"),
        ({"retention": -1}, "settings: retention must be a number of seconds above 0, not -1"),
        ({"lease": None}, "settings: lease must be a number of seconds above 0, not null"),
        ({"lease": float("nan")}, "settings: lease must be a number of seconds above 0, not nan"),
        ({"dead_letter": None}, "settings: dead_letter must be text, not null"),
        (
            {"eventgrid_filter": "x"},
            "settings: eventgrid_filter must be an object, as Azure writes it, or null",
        ),
        ({"filter": {"exakt": {}}}, "settings: filter: unknown dialect 'exakt'; did you mean 'exact'"),
    ],
)
def test_what_is_wrong_is_named(value: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=f"^{message}"):
        settings_from_json(value)
