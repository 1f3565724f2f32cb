"""A value of another kind than the default's is refused by name; what the file or a constructor allows is taken."""

import pytest

from robot_rl.cli.config import load_config
from robot_rl.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["collect.episodes=ten"], r"^`collect\.episodes` must be a whole number \(its default is 100\), got 'ten'$"),
        (["evaluate.episodes=x"], r"`evaluate\.episodes` must be a whole number"),
        (["loop.seconds=x"], r"`loop\.seconds` must be a number \(its default is 20\), got 'x'"),
        (["train.batch_size=x"], r"`train\.batch_size` must be a whole number \(its default is 256\)"),
        (["mend.trim.tail=abc"], r"`mend\.trim\.tail` must be a number"),
        (["finetune.steps=abc"], r"`finetune\.steps` must be a whole number"),
        (["algo=dppo", "algo.lanes=two"], r"`algo\.lanes` must be a whole number \(its default is 10\), got 'two'"),
        (["algo=rl100_offline", "algo.critic.steps=ten"], r"`algo\.critic\.steps` must be a whole number"),
        (["train.weight_decay=much"], r"`train\.weight_decay` must be a number \(its default is 0\.01\), got 'much'"),
        (["collect.episodes=1.5"], r"whole number \(its default is 100\), got 1\.5"),
        (["collect.episodes=null"], r"whole number \(its default is 100\), got null"),
        (["collect.episodes=true"], r"whole number \(its default is 100\), got true"),
        (["collect.episodes=[1,2]"], r"whole number \(its default is 100\), got \[1, 2\]"),
        (["mend.apply=no"], r"`mend\.apply` must be true or false \(its default is false\), got 'no'"),
        (["mend.apply=1"], r"true or false \(its default is false\), got 1"),
        (["check.thresholds.frames=2.5"], r"`check\.thresholds\.frames` must be a whole number"),
        (["mend.trim={head: 1, tail: abc}"], r"`mend\.trim\.tail` must be a number"),
        (["++train.steps=abc"], r"`train\.steps` must be a whole number"),
        (["train.steps=${task.name}"], r"`train\.steps` must be a whole number \(its default is 6000\), got 'lift'"),
        (["train.steps=a", "seed=b"], r"`train\.steps` must .*; `seed` must be a whole number"),
        (["distill.calls=0"], r"`distill\.calls` must be at least 1, got 0"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["train.weight_decay=1"], "train.weight_decay", 1),
        (["loop.seconds=0.5"], "loop.seconds", 0.5),
        (["mend.trim.head=0.5"], "mend.trim.head", 0.5),
        (["check.thresholds.lag_ms=2.5"], "check.thresholds.lag_ms", 2.5),  # its constructor takes a float
        (["validate.replay.outside=null"], "validate.replay.outside", None),  # or None
        (["finetune.max_ahead=null"], "finetune.max_ahead", None),
        (["task.safety.start_jump=unlimited"], "task.safety.start_jump", "unlimited"),
        (["search.episodes=${evaluate.episodes}"], "search.episodes", 100),
        (["train.max_minutes=2.5"], "train.max_minutes", 2.5),
        (["train.max_minutes=soon"], "train.max_minutes", "soon"),  # a default of null says nothing
        (["collect=null"], "collect", None),
        (["task.description=7"], "task.description", 7),
        (["+train.fresh=ten"], "train.fresh", "ten"),
        (["++train.fresh=ten"], "train.fresh", "ten"),
        (["task.safety._target_=other.Limits", "task.safety.width=wide"], "task.safety.width", "wide"),
        (["~task.env", "+task.env={_target_: other.Env, max_steps: few}"], "task.env.max_steps", "few"),
        (["algo=rl100", "algo.online=null"], "algo.online", None),
    ],
)
def test_what_the_file_or_a_constructor_allows_is_taken(overrides: list[str], key: str, value: object) -> None:
    node = load_config(overrides)
    for part in key.split("."):
        node = node[part]
    assert node == value


def test_a_whole_float_becomes_an_integer_for_all_that_refers_to_it() -> None:
    config = load_config(["task.train.steps=1e4"])
    assert config.task.train.steps == config.train.steps == 10000
    assert isinstance(config.train.steps, int)
    with pytest.raises(ConfigError, match=r"got inf"):
        load_config(["train.steps=inf"])
