import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from robot_rl.bundle.accepted import HISTORY, POINTER, Accepted, find_bundle, read_accepted, write_accepted
from robot_rl.errors import BundleError
from robot_rl.evaluation.decline import Decline
from robot_rl.evaluation.rollback import OUTCOMES, Rollback, promote
from robot_rl.evaluation.statistics import clopper_pearson
from tests.ros.formula_bundle import formula_bundle


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("bundles")
    old = formula_bundle(folder / "old", per_step=0.01, created="2026-01-01T00:00:00+00:00")
    new = formula_bundle(folder / "new", per_step=0.02, created="2026-02-01T00:00:00+00:00")
    return folder, old.id, new.id


@pytest.fixture
def folder(ids, request) -> Path:
    for name in (POINTER, HISTORY, OUTCOMES):
        (ids[0] / name).unlink(missing_ok=True)
    return ids[0]


def promoted(folder: Path, old: str, new: str) -> Accepted:
    return promote(folder, new, incumbent=old, successes=47, trials=50, reason="validated")


def test_a_promotion_names_the_way_back_and_its_bound(folder, ids):
    accepted = promoted(folder, *ids[1:])
    assert accepted.bound == pytest.approx(0.852163, abs=1e-6)
    assert accepted.bound == clopper_pearson(47, 50, level=0.9).low
    assert read_accepted(folder) == accepted
    assert find_bundle(folder, ids[1]).path.name == "old"


def test_a_bad_bundle_goes_once_the_evidence_is_as_strong_as_asked(folder, ids):
    _, old, new = ids
    bound = promoted(folder, old, new).bound
    watch = Rollback(folder, patience=100)
    failures = next(n for n in range(1, 20) if Decline(bound, patience=100).add([False] * n).alarm)
    assert failures == 4
    assert [watch.note(new, success=False) for _ in range(failures - 1)] == [None] * (failures - 1)
    back = watch.note(new, success=False)
    assert back is not None
    assert (back.bundle, back.incumbent, back.refused) == (old, "", (new,))
    assert "succeeded in 0 of 4 episodes, in 0 of the last 4: evidence beyond 100" in back.reason
    assert read_accepted(folder) == back
    assert watch.note(old, success=False) is None  # there is nothing to go back to from here
    assert len((folder / HISTORY).read_text().splitlines()) == 2


def test_a_restart_forgets_no_failure(folder, ids):
    _, old, new = ids
    promoted(folder, old, new)
    for _ in range(3):
        assert Rollback(folder).note(new, success=False) is None
    assert Rollback(folder).note(new, success=False) is not None


def test_a_bundle_that_is_promoted_again_begins_anew(folder, ids):
    _, old, new = ids
    promoted(folder, old, new)
    watch = Rollback(folder)
    while watch.note(new, success=False) is None:
        pass
    promoted(folder, old, new)
    for rollback in (watch, Rollback(folder)):
        assert rollback.note(new, success=False) is None
    assert read_accepted(folder).bundle == new


def test_another_bundles_failures_are_not_held_against_the_one_that_drives(folder, ids):
    _, old, new = ids
    promoted(folder, old, new)
    watch = Rollback(folder)
    assert all(watch.note(old, success=False) is None for _ in range(30))
    assert read_accepted(folder).bundle == new


def test_where_nobody_is_named_nothing_is_written(folder, ids):
    assert Rollback(folder).note(ids[2], success=False) is None
    assert not (folder / OUTCOMES).exists()


def test_a_pointer_to_what_is_not_there_is_refused(folder, ids):
    with pytest.raises(BundleError, match="holds no bundle 'gone'; it has"):
        write_accepted(folder, Accepted(bundle="gone"))
    assert read_accepted(folder) is None
    for damaged in ("{}", "null", "{"):
        (folder / POINTER).write_text(damaged)
        with pytest.raises(BundleError, match="does not say which bundle drives"):
            read_accepted(folder)
    with pytest.raises(BundleError, match=r"a bound in \[0, 1\]"):
        replace(Accepted(bundle="x"), bound=1.5)


def test_blind_trials_and_earlier_promotions_are_not_held_against_a_bundle(folder, ids):
    _, old, new = ids
    watch = Rollback(folder)
    for n in range(24):
        write_accepted(folder, Accepted(bundle=new, trial=f"ab/{n}", reason="blind comparison"))
        watch.note(new, success=n % 2 == 0)
    promoted(folder, old, new)
    assert watch.note(new, success=False) is None
    assert watch.note(new, success=False) is None
    promoted(folder, old, new)  # once more, without having been taken back
    assert [watch.note(new, success=False) for _ in range(3)] == [None] * 3
    assert "succeeded in 0 of 4 episodes" in watch.note(new, success=False).reason


def test_a_bad_bundle_is_taken_back_even_if_its_incumbent_is_gone(tmp_path):
    old, new = (formula_bundle(tmp_path / name, per_step=step).id for name, step in (("old", 0.01), ("new", 0.02)))
    promoted(tmp_path, old, new)
    shutil.rmtree(tmp_path / "old")
    watch = Rollback(tmp_path)
    while (back := watch.note(new, success=False)) is None:
        pass
    assert (back.bundle, back.refused) == (old, (new,))
    assert read_accepted(tmp_path) == back
    with pytest.raises(BundleError, match="holds no bundle"):
        find_bundle(tmp_path, back.bundle)  # so that nothing drives
