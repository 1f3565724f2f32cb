from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from robot_rl.errors import ConfigError, EvaluationError
from robot_rl.evaluation.parallel import evaluate
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary
from tests.evaluation.point_mass import Breaking, Noisy, PointMass, Straight, ThreadReporter, broken_factory

META = EvaluationMeta(task="reach", policy_id="straight", env={"max_steps": 3}, command="evaluate task=reach")
ENV = partial(PointMass, max_steps=3)


def test_one_and_two_workers_give_the_same_results_with_closed_form_answers(tmp_path):
    # Starts at seed / 10 m and goes 1 m a step: within 3 steps iff the start is at most 3 m away.
    seeds = [5, 31, 15, 42, 25]
    one = evaluate(ENV, Noisy, seeds, workers=1)
    two = evaluate(ENV, Noisy, seeds, workers=2)
    assert one.results == two.results
    straight = evaluate(ENV, Straight, seeds, workers=2, out_dir=tmp_path, meta=META)
    assert [r.seed for r in straight.results] == seeds
    assert [r.steps for r in straight.results] == [1, 3, 2, 3, 3]
    assert [r.success for r in straight.results] == [True, False, True, False, True]
    assert straight.success == clopper_pearson(3, 5)
    assert straight.return_.value == pytest.approx((0 - 3.3 - 0.5 - 6.6 - 2.0) / 5, rel=1e-6)
    assert EvaluationSummary.read(tmp_path / "summary.json") == straight


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path):
    evaluate(ENV, Straight, [5, 15], out_dir=tmp_path, meta=META)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text() + '{"seed": 25, "succ')  # a kill in the middle of a line
    before = path.read_text().splitlines()[:3]
    told = []
    summary = evaluate(ENV, Straight, [5, 15, 25], out_dir=tmp_path, meta=META, on_result=lambda r: told.append(r.seed))
    assert told == [5, 15, 25]
    lines = path.read_text().splitlines()
    assert lines[:3] == before
    assert [json.loads(line)["seed"] for line in lines[1:]] == [5, 15, 25]
    assert summary.successes == 3


def test_after_kill_9_workers_end_and_the_evaluation_goes_on(tmp_path):
    program = (
        "import sys; from functools import partial; from robot_rl.evaluation.parallel import evaluate;"
        "from tests.evaluation import point_mass as p;"
        "evaluate(p.PointMass, partial(p.Slow, sys.argv[1]), range(30, 60), workers=1, out_dir=sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[2])
    results = tmp_path / "results.jsonl"
    while not results.exists() or results.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = [json.loads(line)["seed"] for line in results.read_text().splitlines()[1:]]
    assert done[:2] == [30, 31]
    worker = int(next(tmp_path.glob("pid_*")).name[4:])
    while Path(f"/proc/{worker}").exists():
        time.sleep(0.01)
    summary = evaluate(PointMass, partial(Breaking, 30), [30, 31, 5], out_dir=tmp_path)
    assert [(r.seed, r.steps) for r in summary.results] == [(30, 3), (31, 4), (5, 1)]


def test_nothing_is_played_again_when_all_is_there(tmp_path):
    first = evaluate(ENV, Straight, [5, 15], out_dir=tmp_path, meta=META)
    again = evaluate(ENV, partial(Breaking, 5), [15, 5], out_dir=tmp_path, meta=META)
    assert again.results == first.results[::-1]


def test_results_of_another_evaluation_are_refused(tmp_path):
    evaluate(ENV, Straight, [5], out_dir=tmp_path, meta=META)
    other = EvaluationMeta(task="reach", policy_id="other", env={"max_steps": 3})
    with pytest.raises(ConfigError, match=r"`policy_id` is 'straight', expected 'other'; choose another output folder"):
        evaluate(ENV, Straight, [5], out_dir=tmp_path, meta=other)


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"seed": 1}\n')
    with pytest.raises(ConfigError, match=r"results.jsonl is not a results file of this version: 'evaluation'"):
        evaluate(ENV, Straight, [5], out_dir=tmp_path, meta=META)


def test_an_exception_names_its_seed_with_the_traceback_and_keeps_the_others(tmp_path):
    with pytest.raises(EvaluationError, match="1 of 3 seeds were not played") as caught:
        evaluate(ENV, partial(Breaking, 15), [5, 15, 25], out_dir=tmp_path, meta=META)
    assert "seed 15:\nTraceback" in str(caught.value)
    assert "ZeroDivisionError: the policy broke on 15" in str(caught.value)
    kept = [json.loads(line)["seed"] for line in (tmp_path / "results.jsonl").read_text().splitlines()[1:]]
    assert kept == [5, 25]
    assert not (tmp_path / "summary.json").exists()


def test_a_worker_that_dies_names_its_seed_and_exit_code():
    with pytest.raises(EvaluationError, match="1 of 2 seeds were not played") as caught:
        evaluate(ENV, partial(Breaking, 15, kill=True), [15, 5])
    assert "seed 15:\nthe worker process died without a traceback, exit code 7" in str(caught.value)


def test_a_factory_that_fails_is_reported_at_once():
    with pytest.raises(EvaluationError, match="2 of 2 seeds were not played") as caught:
        evaluate(broken_factory, Straight, [5, 15])
    assert "setting up a worker:\nTraceback" in str(caught.value)
    assert "no such scene: kitchen.xml" in str(caught.value)


def test_workers_have_one_thread_and_evaluation_brings_no_torch():
    with pytest.raises(EvaluationError) as caught:
        evaluate(ENV, ThreadReporter, [5])
    assert "threads {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'} torch False" in str(caught.value)


def test_the_first_episodes_are_filmed(tmp_path):
    summary = evaluate(ENV, Straight, [15, 5, 25], out_dir=tmp_path, video_episodes=1, meta=META)
    assert summary.videos == ("videos/seed_000015.mp4",)
    assert (tmp_path / summary.videos[0]).stat().st_size > 0
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["seed_000015.mp4"]


@pytest.mark.parametrize(
    ("seeds", "options", "message"),
    [
        ([], {}, "`seeds` must be distinct and not empty, got 0 with 0 distinct"),
        ([1, 1], {}, "`seeds` must be distinct and not empty, got 2 with 1 distinct"),
        ([1], {"workers": 0}, "`workers` must be at least 1, got 0"),
        ([1], {"video_episodes": 1}, "`video_episodes` needs `out_dir`"),
    ],
)
def test_contradicting_arguments_are_refused(seeds, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(ENV, Straight, seeds, **options)


def test_a_factory_that_cannot_be_pickled_is_refused():
    with pytest.raises(ConfigError, match="must be picklable, for they are called in another process"):
        evaluate(lambda: PointMass(), Straight, [1])
