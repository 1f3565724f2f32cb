"""The learning curve is drawn from whatever a run wrote."""

import pytest

from robot_rl.imitation.plots import plot_learning_curve
from robot_rl.metrics import MetricWriter


@pytest.mark.parametrize("records", [[], [(1, {"train/loss": 0.0, "train/lr": 0.0})],
                                     [(1, {"train/loss": 1.0}), (2, {"val/loss": float("nan")})]])  # fmt: skip
def test_few_zero_and_missing_values_are_drawn(tmp_path, records):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        for step, values in records:
            writer.write(step, values)
    plot_learning_curve(writer.path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
