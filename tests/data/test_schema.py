from __future__ import annotations

import pytest

from robot_rl.data.schema import FORMAT_VERSION, StoreSchema, migrate
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec, RobotSpec
from tests.data.store_data import SPEC


def test_schema_survives_json_and_knows_every_stream():
    schema = StoreSchema(spec=SPEC, extra={"base": ArraySpec(name="base", shape=(2,))}, codecs={"camera": "png"})
    again = StoreSchema.from_dict(schema.to_dict())
    assert again.streams == schema.streams
    assert list(schema.streams) == ["q", "camera", "action", "action_executed", "reward", "by_human", "base"]
    assert {name: s.codec for name, s in schema.streams.items() if s.codec != "raw"} == {"camera": "png"}
    assert [name for name, s in schema.streams.items() if s.required] == ["q", "camera", "action"]
    assert [name for name, s in schema.streams.items() if not s.finite] == ["base"]


def obs(name: str, **fields: object) -> RobotSpec:
    spec = ArraySpec(name=name, **{"shape": (2,), **fields})  # type: ignore[arg-type]
    return RobotSpec(name="r", obs={name: spec}, action=SPEC.action, control_hz=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spec": obs("reward")}, "stream `reward` is declared twice"),
        ({"spec": obs("a/b")}, "stream name 'a/b' must be letters"),
        ({"spec": obs("zarr.json")}, "not end in .json"),
        ({"spec": obs("word", dtype="S4")}, "stream `word`: dtype bytes32 cannot be stored"),
        ({"spec": SPEC, "codecs": {"camera": "gif"}}, "stream `camera`: codec must be one of"),
        ({"spec": SPEC, "codecs": {"q": "jpeg"}}, "stream `q`: codec 'jpeg' is for uint8 images"),
        ({"spec": SPEC, "codecs": {"cam": "png"}}, r"a codec is given for \['cam'\]"),
        ({"spec": SPEC, "extra": {"a": ArraySpec(name="b", shape=())}}, "carries a spec named `b`"),
    ],
)
def test_what_cannot_be_a_schema_is_named(fields, message):
    with pytest.raises(SpecError, match=message):
        StoreSchema(**fields)


def test_migrations_lead_up_one_version_at_a_time():
    def from_zero(document):
        return {"format_version": document["format_version"], "meta": document["about"]}

    old = {"format_version": FORMAT_VERSION - 1, "about": 5}
    assert migrate(old, "episode e", {FORMAT_VERSION - 1: from_zero}) == {"format_version": FORMAT_VERSION, "meta": 5}
    with pytest.raises(StoreError, match="episode e: format_version 0 has no migration to 1"):
        migrate({"format_version": 0}, "episode e")
    with pytest.raises(StoreError, match="`format_version` must be a number, got None"):
        migrate({}, "episode e")
