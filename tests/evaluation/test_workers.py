"""Workers end without a word when their parent does, and hear no Ctrl-C from the moment they are born."""

import signal
from collections.abc import Mapping
from functools import partial
from multiprocessing import resource_tracker

import pytest

from robot_rl.errors import EvaluationError
from robot_rl.evaluation.parallel import evaluate
from robot_rl.evaluation.workers import Job, Worker
from tests.evaluation.point_mass import PointMass, Straight


def masked(mask: Mapping[str, bool] | None = None) -> PointMass:
    raise RuntimeError(f"SIGINT blocked: {signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])}")


def test_a_worker_is_born_with_ctrl_c_blocked_and_its_parent_is_not() -> None:
    resource_tracker._resource_tracker._stop()  # as in a fresh program: starting it unblocks signals
    with pytest.raises(EvaluationError, match="SIGINT blocked: True"):
        evaluate(masked, Straight, [5])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("playing", [False, True])
def test_a_worker_whose_parent_goes_away_ends_quietly(playing: bool, capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker(partial(PointMass, 3), Straight)
    assert worker.connection.poll(60)  # it is ready, which is never read: closing the pipe then resets it
    if playing:
        worker.send(Job(seed=5))
    worker.stop()
    assert worker.process.exitcode == 0
    assert capfd.readouterr().err == ""
