"""`robot-rl distill` and `package` of a head, on a small trained teacher: compared, certified, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import zarr

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.certificate import read_certificates
from robot_rl.cli.distill_play import paired_difference
from robot_rl.cli.distill_teacher import open_teacher
from robot_rl.cli.main import main
from robot_rl.cli.model_card import trained_model
from robot_rl.deploy.onnx_policy import OnnxPolicy, smoke_run
from robot_rl.errors import ConfigError

SMALL = ["task=pusht", "denoiser.width=16", "denoiser.n_blocks=1", "encoder=state"]
TINY = [
    *SMALL, "+task.env.max_steps=6", "distill.steps=4", "distill.batch_size=8", "distill.warmup_steps=1",
    "distill.threads=1", "distill.observations=8", "distill.draws=2", "distill.calls=3", "distill.episodes=3",
    "distill.teacher_steps=[1]",
]  # fmt: skip
LAX = ["distill.limits.episodes=3", "distill.limits.distance=10", "distill.limits.latency_ratio=100"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of random actions, a flow of four steps trained on it, and a same-noise head of that."""
    out = tmp_path_factory.mktemp("distill")
    group = zarr.open_group(str(out / "in.zarr"), mode="w", zarr_format=2)
    n, rng = 60, np.random.default_rng(0)
    arrays = {
        "state": 512 * rng.random((n, 5), dtype=np.float32),
        "action": 512 * rng.random((n, 2), dtype=np.float32),
        "keypoint": rng.random((n, 9, 2), dtype=np.float32),
        "n_contacts": rng.random((n, 1), dtype=np.float32),
        "img": np.ones((n, 96, 96, 3), np.float32),
    }
    for name, values in arrays.items():
        group.create_array(f"data/{name}", data=values, chunks=(30, *values.shape[1:]))
    group.create_array("meta/episode_ends", data=np.array([20, 40, 60], dtype=np.int64))
    assert main(["import", "task=pusht", f"out={out}", f"source={out}/in.zarr"]) == 0
    train = ["train.steps=3", "train.batch_size=8", "train.threads=1", "train.warmup_steps=1", "train.precision=fp32"]
    assert main(["train", f"out={out}", *SMALL, "policy=flow", "policy.n_steps=4", *train]) == 0
    assert main(["distill", f"out={out}", *TINY]) == 0
    return out


def test_a_head_is_a_run_beside_a_report_on_its_teacher(out: Path) -> None:
    from policies.one_step import OneStepModel

    card, head = trained_model(out / "head")
    teacher = open_teacher(out / "train")
    assert isinstance(head, OneStepModel)
    assert (card.task, card.n_execute) == ("pusht", teacher.card.n_execute)
    for name, value in teacher.model.normalizer.state_dict().items():
        assert np.array_equal(value.numpy(), head.normalizer.state_dict()[name].numpy())
    report = json.loads((out / "head" / "report.json").read_text())
    assert list(report["variants"]) == ["teacher, 4 steps", "teacher, 1 step", "head"]
    rows = report["variants"]
    assert rows["teacher, 4 steps"]["error"] == 0
    assert rows["head"]["error"] > 0
    assert rows["teacher, 1 step"]["error"] > 0
    assert rows["teacher, 4 steps"]["difference"]["value"] == 0
    assert (report["head"], report["teacher"]) == ("OneStepModel", teacher.id)


def test_distilling_again_trains_and_plays_nothing_new(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = {path: path.read_bytes() for path in (out / "distill_episodes").iterdir()}
    assert len(episodes) == 3
    assert main(["distill", f"out={out}", *TINY]) == 0
    assert "distilled 4 steps" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (out / "distill_episodes").iterdir()} == episodes


def test_a_head_of_another_teacher_is_refused_and_the_first_one_is_left_as_it_is(out: Path, tmp_path: Path) -> None:
    head, other = tmp_path / "head", tmp_path / "train"
    shutil.copytree(out / "head", head, symlinks=True)
    small = ["train.batch_size=8", "train.threads=1", "train.warmup_steps=1", "train.precision=fp32"]
    made = ["train", f"out={out}", f"run={other}", *SMALL, "policy=flow", "policy.n_steps=4", *small]
    assert main([*made, "train.steps=2"]) == 0
    before = {name: (head / name).read_text() for name in ("distillation.json", "model.json")}
    assert main(["distill", f"out={out}", f"run={other}", f"distill.out={head}", *TINY]) == 2
    assert {name: (head / name).read_text() for name in before} == before


def package(out: Path, bundle: Path, *more: str) -> int:
    return main(["package", f"out={out}", f"run={out}/head", f"bundle={bundle}", *TINY, *LAX, *more])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_head_that_keeps_its_limits_is_packaged_with_a_certificate(out: Path, tmp_path: Path) -> None:
    assert package(out, tmp_path / "bundle") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    bundle = PolicyBundle.open(tmp_path / "bundle")
    (certificate,) = read_certificates(bundle)
    assert (certificate.bundle_id, certificate.teacher_steps) == (bundle.id, 4)
    assert certificate.teacher == bundle.manifest.parent == open_teacher(out / "train").id
    assert certificate.success is not None
    assert certificate.success.episodes == 3
    assert certificate.parity <= 1e-4
    for times in (certificate.latency, certificate.teacher_latency):
        assert set(times) == {"encode", "denoise", "end_to_end"}
        assert all(0 < one.p50_ms <= one.p99_ms for one in times.values())
    assert bundle.manifest.family == "onestep"
    smoke_run(bundle)
    assert OnnxPolicy(bundle).noise_shape == (16, 2)
    assert package(out, tmp_path / "bundle") == 0  # the same bundle again
    assert PolicyBundle.open(tmp_path / "bundle").id == bundle.id
    assert package(out, tmp_path / "bundle", "distill.limits.distance=0") == 2  # these figures do not keep that limit
    assert package(out, tmp_path / "bundle", "package.graphs=[sample,encode]") == 2  # nor has it that graph
    check_one_network_call(bundle, out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_a_head_that_does_not_keep_its_limits_nothing_is_packaged(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert package(out, tmp_path / "bundle", "distill.limits.distance=0", "distill.limits.episodes=4") == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing was packaged: (1) the energy distance to the teacher is" in printed
    assert "(2) 3 seeds were played, at least 4 are asked for" in printed
    assert list(tmp_path.iterdir()) == []


def check_one_network_call(bundle: PolicyBundle, out: Path) -> None:
    """Raise unless the only graph multiplies by each of the network's matrices once."""
    assert list(bundle.manifest.graphs) == ["sample"]
    nodes = onnx.load(str(bundle.file("sample.onnx"))).graph.node
    products = sum(node.op_type in ("Gemm", "MatMul") for node in nodes)
    _, head = trained_model(out / "head")
    linear = [name for name, part in head.denoiser.named_modules() if type(part).__name__ == "Linear"]
    assert products == len(linear)


def test_a_head_whose_teacher_is_gone_or_was_trained_on_says_so(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(out / "head", tmp_path / "head")
    origin = json.loads((tmp_path / "head" / "distillation.json").read_text())
    arguments = ["package", f"run={tmp_path}/head", f"bundle={tmp_path}/bundle", *TINY]
    for change, message in (
        ({"teacher": str(tmp_path / "nowhere")}, "which is not there; name its present place: distill.teacher="),
        ({"id": "run-0"}, "was distilled from run-0, and"),
    ):
        (tmp_path / "head" / "distillation.json").write_text(json.dumps({**origin, **change}))
        assert main(arguments) == 2
        assert message in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_distilled_is_refused_by_name(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([f"distill.out={out}/train"], "must be another folder than the teacher's"),
        (["head=lcm", f"distill.out={out}/lcm"], "needs a diffusion teacher (path vp), got a flow path"),
        ([f"run={out}/head", f"distill.out={out}/again"], "distilled from a model that denoises"),
    ):
        assert main(["distill", f"out={out}", *TINY, *arguments]) == 2
        assert message in " ".join(capsys.readouterr().out.split())
    assert main(["distill", "task=lift", f"out={out}"]) == 2
    assert "was trained on task `pusht`, got task=lift" in " ".join(capsys.readouterr().out.split())


def test_the_teacher_at_fewer_steps_has_the_same_weights_and_another_grid(out: Path) -> None:
    teacher = open_teacher(out / "train")
    one = teacher.at_steps(1)
    assert (len(one.times), len(teacher.model.times)) == (2, 5)
    for name, value in teacher.model.state_dict().items():
        assert np.array_equal(value.numpy(), one.state_dict()[name].numpy())


def test_the_paired_interval_covers_the_true_difference_and_has_a_width_where_nobody_differs() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        shared = rng.random(60) < 0.5  # seeds on which both do alike
        coin, alone = rng.random((2, 60))
        first, second = coin < 0.9, np.where(shared, coin < 0.8, alone < 0.8)
        found = paired_difference(first.tolist(), second.tolist())
        covered += found.low <= 0.1 <= found.high
        assert found.value == pytest.approx(first.mean() - second.mean())
    assert 0.93 <= covered / 400 <= 0.99
    same = paired_difference([True] * 50, [True] * 50)
    assert (same.low, same.value, same.high) == (pytest.approx(-0.0714, abs=1e-3), 0.0, pytest.approx(0.0714, abs=1e-3))


def test_no_head_is_made_of_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model\.json"):
        open_teacher(tmp_path)
