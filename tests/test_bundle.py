"""A bundle proves its own contents; every way of not being whole is a clear error."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from robot_rl.bundle import Graph, Manifest, Parity, PolicyBundle, SolverInfo, TensorInfo, newest_accepted
from robot_rl.bundle.manifest import content_id
from robot_rl.errors import BundleError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

ROBOT = RobotSpec(
    name="toy",
    obs={"q": ArraySpec(name="q", shape=(2,), unit="rad")},
    action=ActionSpec(name="action", shape=(2,), unit="rad", low=-1.0, high=1.0),
    control_hz=10,
)
MANIFEST = Manifest(
    robot=ROBOT, n_obs=2, horizon=8, n_execute=4, action_offset=-1, action_low=(-1.0, -0.5), action_high=(1.0, 0.5),
    normaliser={"q": {"min": [0.1, 0.2]}}, data_digest="d", family="flow",
    graphs={"sample": Graph("sample.onnx", (TensorInfo("obs.q", "float32", ("B", 2, 2)),), ())},
    parity=Parity(1e-6, 12, 1e-4), created="2026-01-01T00:00:00",
)  # fmt: skip
FILES = {
    "sample.onnx": b"graph",
    "config.yaml": b"{}",
    "weights.safetensors": save({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}),
}


@pytest.fixture
def bundle(tmp_path: Path) -> PolicyBundle:
    return PolicyBundle.publish(tmp_path / "bundles" / "a", MANIFEST, FILES)


def test_open_returns_what_was_published(bundle):
    again = PolicyBundle.open(bundle.path)
    assert again.id == bundle.id
    assert len(again.id) == 32
    assert again.manifest.to_dict() == bundle.manifest.to_dict()
    assert again.manifest.graphs == MANIFEST.graphs
    assert again.manifest.robot.to_dict() == ROBOT.to_dict()
    assert again.manifest.control_hz == 10
    np.testing.assert_array_equal(again.weights()["w"], [[0, 1, 2], [3, 4, 5]])
    assert sorted(again.manifest.files) == sorted(FILES)


def test_id_is_the_content(bundle, tmp_path):
    same = PolicyBundle.publish(tmp_path / "same", MANIFEST, FILES)
    other_file = PolicyBundle.publish(tmp_path / "file", MANIFEST, {**FILES, "sample.onnx": b"graph2"})
    other_field = PolicyBundle.publish(tmp_path / "field", replace(MANIFEST, n_execute=5), FILES)
    assert same.id == bundle.id
    assert len({bundle.id, other_file.id, other_field.id}) == 3


def test_published_bundles_are_never_overwritten(bundle):
    with pytest.raises(BundleError, match="exists already; a bundle is immutable"):
        PolicyBundle.publish(bundle.path, MANIFEST, FILES)


def test_altered_file_is_named_with_both_hashes(bundle):
    path = bundle.path / "sample.onnx"
    path.write_bytes(b"Graph")
    with pytest.raises(
        BundleError, match=r"sample\.onnx: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}; it was altered"
    ):
        PolicyBundle.open(bundle.path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: expected sha256 [0-9a-f]+, got no such file; copy or export"):
        PolicyBundle.open(bundle.path)


def test_unlisted_file_is_refused(bundle):
    (bundle.path / "sample.onnx.data").write_bytes(b"weights from elsewhere")
    with pytest.raises(BundleError, match=r"does not list: \['sample.onnx.data'\]"):
        PolicyBundle.open(bundle.path)


def edit(bundle: PolicyBundle, **changes) -> None:
    path = bundle.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_altered_manifest_is_found(bundle):
    edit(bundle, action_high=[9.0, 9.0])
    with pytest.raises(
        BundleError, match=r"manifest\.json: expected id [0-9a-f]{32}, got [0-9a-f]{32}; it was altered"
    ):
        PolicyBundle.open(bundle.path)


@pytest.mark.parametrize("version", [0, 3, None, "1"])
def test_unknown_format_version(bundle, version):
    edit(bundle, format_version=version)
    with pytest.raises(BundleError, match=f"`format_version` must be 1 to 2, got {version!r}; export the policy again"):
        PolicyBundle.open(bundle.path)


def test_manifest_that_is_none(bundle):
    edit(bundle, surprise=1)
    with pytest.raises(BundleError, match=r"not a bundle's manifest .*surprise"):
        PolicyBundle.open(bundle.path)
    (bundle.path / "manifest.json").write_text("[1]")
    with pytest.raises(BundleError, match="must hold a JSON object, got list"):
        PolicyBundle.open(bundle.path)
    (bundle.path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        PolicyBundle.open(bundle.path)
    (bundle.path / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"is not a policy bundle: manifest\.json is missing"):
        PolicyBundle.open(bundle.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_execute": 8}, r"`n_execute` must be in 1..7 \(horizon \+ action_offset\), got 8"),
        ({"action_offset": 1}, r"`action_offset` in -7..0 for horizon 8, got n_obs 2, action_offset 1"),
        ({"action_low": (0.0,)}, r"`action_low` must be 2 finite numbers, got \[0.0\]"),
        ({"action_high": (float("nan"), 1.0)}, "`action_high` must be 2 finite numbers"),
        ({"action_low": (2.0, -0.5)}, "element 0 is empty: low 2 > high 1"),
        ({"parity": Parity(2e-4, 12, 1e-4)}, "differ by 0.0002 in normalised actions, expected at most 0.0001"),
        ({"parity": Parity(float("nan"), 12, 1e-4)}, "differ by nan"),
        ({"graphs": {}}, r"needs a graph named `sample`, got \[\]"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(BundleError, match=message):
        replace(MANIFEST, **changes)


def test_fits_its_own_robot_and_one_with_other_bounds_and_more_sensors(bundle):
    bundle.check_fits(ROBOT)
    wider = replace(
        ROBOT,
        obs={**ROBOT.obs, "extra": ArraySpec(name="extra", shape=(1,))},
        action=replace(ROBOT.action, low=-2.0, high=2.0),
    )
    bundle.check_fits(wider)


def test_misfit_names_every_disagreement(bundle):
    other = RobotSpec(
        name="other",
        obs={"q": ArraySpec(name="q", shape=(3,), unit="rad")},
        action=replace(ROBOT.action, kind="position"),
        control_hz=20,
    )
    with pytest.raises(BundleError) as caught:
        bundle.check_fits(other)
    text = str(caught.value)
    assert "observation `q`: expected float32(2,) [rad], got float32(3,) [rad]" in text
    assert "'kind': 'joint_position'" in text
    assert "'kind': 'position'" in text
    assert "control_hz: expected 10, got 20" in text
    with pytest.raises(BundleError, match=r"observation `q`: expected float32\(2,\) \[rad\], got none"):
        bundle.check_fits(replace(ROBOT, obs={}))


def test_attestations_leave_the_id_alone_and_are_keyed_by_it(bundle, tmp_path):
    bundle.attest("validation", {"task": "lift", "successes": 9})
    assert PolicyBundle.open(bundle.path).id == bundle.id
    assert [r["successes"] for r in bundle.attestations("validation")] == [9]
    assert bundle.attestations("latency") == []
    other = PolicyBundle.publish(tmp_path / "other", replace(MANIFEST, n_execute=1), FILES)
    borrowed = next((bundle.path / "attestations").iterdir())
    (other.path / "attestations" / borrowed.name).write_bytes(borrowed.read_bytes())
    assert other.attestations("validation") == []


def test_newest_accepted(tmp_path):
    for day in (1, 3, 2):
        manifest = replace(MANIFEST, created=f"2026-01-0{day}T00:00:00")
        PolicyBundle.publish(tmp_path / f"b{day}", manifest, FILES)
    assert newest_accepted(tmp_path).path.name == "b3"
    (tmp_path / "b3" / "sample.onnx").write_bytes(b"broken copy")
    assert newest_accepted(tmp_path, robot=ROBOT).path.name == "b2"
    assert newest_accepted(tmp_path, robot=replace(ROBOT, control_hz=1)) is None

    def refuse_newer(candidate: PolicyBundle) -> None:
        if candidate.path.name != "b1":
            raise BundleError("not this one")

    assert newest_accepted(tmp_path, accept=refuse_newer).path.name == "b1"
    assert newest_accepted(tmp_path / "empty") is None


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a word for a number": lambda b: change(b, lambda m: m["robot"].update(control_hz="20 Hz")),
    "infinity for a count": lambda b: change(b, lambda m: m["robot"]["action"].update(shape=[float("inf")])),
    "a word for a path": lambda b: change(b, lambda m: m.update(files=7)),
    "a folder for the manifest": lambda b: ((b / "manifest.json").unlink(), (b / "manifest.json").mkdir()),
    "a link to nothing": lambda b: ((b / "manifest.json").unlink(), (b / "manifest.json").symlink_to(b / "gone")),
    "a torn finding": lambda b: (b / "attestations" / "latency-0.json").write_text('{"bundle'),
}


def change(bundle: Path, how: Callable[[dict], object]) -> None:
    data = json.loads((bundle / "manifest.json").read_text())
    how(data)
    (bundle / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_one_damaged_bundle_never_takes_the_others_down(tmp_path, damage):
    for day in (1, 2):
        PolicyBundle.publish(tmp_path / f"b{day}", replace(MANIFEST, created=f"2026-01-0{day}T00:00:00"), FILES)
    damage(tmp_path / "b2")
    found = newest_accepted(tmp_path, accept=lambda bundle: bundle.attestations("latency"))
    assert found.path.name == "b1"


def test_a_file_altered_after_the_bundle_was_opened_is_not_read(bundle):
    (bundle.path / "sample.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"sample\.onnx: expected sha256 .* it was altered"):
        bundle.content("sample.onnx")


def test_a_reader_never_sees_half_a_bundle(tmp_path):
    """A folder that is listed while bundles are being published opens every time."""
    done = threading.Event()

    def publish() -> None:
        for i in range(20):
            files = {**FILES, "sample.onnx": os.urandom(200_000)}
            PolicyBundle.publish(tmp_path / f"b{i:02}", replace(MANIFEST, created=f"{i:02}"), files)
        done.set()

    writer = threading.Thread(target=publish)
    writer.start()
    seen = 0
    while not done.is_set():
        for path in tmp_path.glob("b*"):
            PolicyBundle.open(path)
            seen += 1
    writer.join()
    assert newest_accepted(tmp_path).path.name == "b19"
    assert seen > 0


def test_failed_publication_leaves_nothing_behind(tmp_path):
    with pytest.raises(BundleError, match=r"\['sample.onnx'\] not among the files given"):
        PolicyBundle.publish(tmp_path / "x", MANIFEST, {k: v for k, v in FILES.items() if k != "sample.onnx"})
    with pytest.raises(BundleError, match=r"cannot publish .*nothing was left behind"):
        PolicyBundle.publish(tmp_path / "x", MANIFEST, {**FILES, "no/such/folder": b""})
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_not_part_of_the_bundle(bundle):
    with pytest.raises(BundleError, match=r"has no file 'denoise.onnx'"):
        bundle.file("denoise.onnx")


SOLVER = SolverInfo(
    kind="vp", prediction="epsilon", alpha_bar=(0.9, 0.5, 0.1), times=(2.0, 1.0, -1.0), clip=1.0, relative_to=("q",),
    scale=((2.0, 4.0),) * 8, offset=((0.0, 0.5),) * 8,
)  # fmt: skip


def test_how_to_step_the_denoiser_survives_the_disk(tmp_path):
    published = PolicyBundle.publish(tmp_path / "a", replace(MANIFEST, solver=SOLVER), FILES)
    again = PolicyBundle.open(published.path).manifest
    assert again.solver == SOLVER
    assert again.format_version == 2
    assert PolicyBundle.publish(tmp_path / "b", MANIFEST, FILES).manifest.solver is None


def test_a_bundle_of_version_1_opens_and_keeps_its_id(bundle):
    """As version 1 wrote it: no `solver`, and an id over what it had."""
    path = bundle.path / "manifest.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("solver", "id")}
    old["format_version"] = 1
    old["id"] = content_id(old)
    path.write_text(json.dumps(old))
    manifest = PolicyBundle.open(bundle.path).manifest
    assert (manifest.format_version, manifest.solver, manifest.id) == (1, None, old["id"])
    assert manifest.to_dict() == old


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": (1.0, 1.0)}, r"`solver\.times` must fall"),
        ({"alpha_bar": ()}, r"`solver\.alpha_bar` belongs to a vp path"),
        ({"scale": (1.0, 0.0), "offset": (0.0, 0.0)}, "must be finite and not zero"),
        ({"scale": (1.0, 1.0)}, r"must be \[A\] or \[H, A\] alike"),
        ({"noise_scale": -1.0}, r"`solver\.noise_scale` must be 0 or more"),
    ],
)
def test_a_solver_that_cannot_be_stepped_is_refused(change, message):
    with pytest.raises(BundleError, match=message):
        replace(SOLVER, **change)


def test_a_solver_must_fit_the_policy():
    with pytest.raises(BundleError, match=r"`solver.scale` must be of shape \(2,\) or \(8, 2\), got \(3,\)"):
        replace(MANIFEST, solver=replace(SOLVER, scale=(1.0,) * 3, offset=(0.0,) * 3))
    with pytest.raises(BundleError, match=r"`solver.relative_to` names \['x'\], the policy reads \['q'\]"):
        replace(MANIFEST, solver=replace(SOLVER, relative_to=("x",)))
