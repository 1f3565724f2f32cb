"""The whole line on a few episodes: collect, train, package, evaluate, loop, one report. Real parts, tiny numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import BundleError

TINY = [
    "collect.episodes=4", "train.steps=12", "train.batch_size=32", "train.threads=1", "train.warmup_steps=2",
    "evaluate.episodes=2",
    "evaluate.workers=1", "evaluate.video_episodes=1", "loop.seconds=1", "+denoiser.width=32",
    "+task.env.max_steps=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("line")
    # A short episode limit would fail the expert, so the demonstrations are collected without it.
    assert main(["collect", f"out={out}", *TINY[:-1]]) == 0
    assert main(["demo", f"out={out}", *TINY]) == 0
    return out


def test_the_demo_leaves_one_report_with_every_part(line: Path) -> None:
    html = (line / "report.html").read_text()
    for part in ("Success", "Learning", "Control loop", "Configuration", "video/mp4", "ONNX against torch"):
        assert part in html, part


def test_every_stage_left_its_artefact(line: Path) -> None:
    store = EpisodeStore.open(line / "store")
    assert len(store) == 4
    assert {store.read(id).meta.seed for id in store.ids()} == {0, 1, 2, 3}
    bundle = PolicyBundle.open(line / "bundle")
    assert bundle.manifest.data_digest == store.digest()
    assert bundle.manifest.parity.max_abs_normalised <= 1e-4
    records = list((line / "bundle" / "attestations").glob("validation-lift-*.json"))
    assert json.loads(records[0].read_text())["bundle_id"] == bundle.id
    loop = json.loads((line / "loop" / "loop.json").read_text())
    assert loop["ticks"] >= 18
    summary = json.loads((line / "evaluate" / "summary.json").read_text())
    assert summary["meta"]["policy_id"] == bundle.id


def test_running_the_demo_again_collects_and_trains_nothing_new(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = EpisodeStore.open(line / "store").digest()
    assert main(["train", f"out={line}", *TINY]) == 0
    assert EpisodeStore.open(line / "store").digest() == before
    assert "trained 12 steps" in capsys.readouterr().out
    id = PolicyBundle.open(line / "bundle").id
    assert main(["package", f"out={line}", *TINY]) == 0
    assert PolicyBundle.open(line / "bundle").id == id


def test_the_torch_run_and_the_bundle_act_alike(line: Path) -> None:
    from robot_rl.cli.model_card import torch_policy
    from robot_rl.deploy.onnx_policy import OnnxPolicy
    from robot_rl.values import PolicyInput

    torch_side, onnx_side = torch_policy(str(line / "train")), OnnxPolicy(PolicyBundle.open(line / "bundle"))
    store = EpisodeStore.open(line / "store")
    episode = store.episode(store.ids()[0])
    names = PolicyBundle.open(line / "bundle").manifest.robot.obs
    obs = {name: np.asarray(episode.obs[name][3:5]) for name in names}
    noise = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    given = PolicyInput(obs=obs, stamp_ns=int(episode.stamp_ns[4]), noise=noise)
    a, b = torch_side.act(given), onnx_side.act(given)
    assert a.start_ns == b.start_ns == episode.stamp_ns[4]
    np.testing.assert_allclose(a.action, b.action, atol=1e-5)


def test_an_altered_bundle_is_refused_by_every_command(
    line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(line / "bundle", copy)
    graph = copy / "sample.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match=r"sample\.onnx"):
        PolicyBundle.open(copy)
    for command in ("evaluate", "loop"):
        assert main([command, f"out={line}", f"bundle={copy}", *TINY]) == 2
        assert "BundleError" in capsys.readouterr().out


def test_a_replay_buffer_comes_in_and_goes_out_by_command(tmp_path: Path) -> None:
    source, target = tmp_path / "in.zarr", tmp_path / "out.zarr"
    group = zarr.open_group(str(source), mode="w", zarr_format=2)
    n = 30
    rng = np.random.default_rng(0)
    arrays = {
        "state": rng.random((n, 5), dtype=np.float32),
        "action": 512 * rng.random((n, 2), dtype=np.float32),
        "keypoint": rng.random((n, 9, 2), dtype=np.float32),
        "n_contacts": rng.random((n, 1), dtype=np.float32),
        "img": rng.integers(0, 256, (n, 96, 96, 3)).astype(np.float32),
    }
    for name, values in arrays.items():
        group.create_array(f"data/{name}", data=values, chunks=(8, *values.shape[1:]))
    group.create_array("meta/episode_ends", data=np.array([10, 30], dtype=np.int64))
    assert main(["import", "task=pusht", f"out={tmp_path}", f"source={source}"]) == 0
    assert main(["export", "task=pusht", f"out={tmp_path}", f"target={target}"]) == 0
    back = zarr.open_group(str(target), mode="r")
    for name, values in arrays.items():
        got = np.asarray(back[f"data/{name}"][:])
        assert got.dtype == values.dtype
        assert got.tobytes() == values.tobytes(), name


def test_an_episode_goes_to_a_bag_and_back(line: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcap_ros2", reason="needs the extra `bags`")
    bag, again = tmp_path / "episode.mcap", tmp_path / "again"
    assert main(["export-bag", f"out={line}", f"bag={bag}"]) == 0
    assert main(["import-bag", f"store={again}", f"bag={bag}"]) == 0
    source, copy = EpisodeStore.open(line / "store"), EpisodeStore.open(again)
    one, other = source.read(source.ids()[-1]), copy.read(copy.ids()[0])
    assert set(one.streams) == set(other.streams)
    for name, stream in one.streams.items():
        np.testing.assert_array_equal(stream.stamp_ns, other.streams[name].stamp_ns)
        np.testing.assert_array_equal(stream.data[:], other.streams[name].data[:])


def test_commands_say_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={tmp_path}"
    for arguments, message in (
        (["import", "task=pusht", out], "`source` is missing"),
        (["export", out], "`target` is missing"),
        (["import-bag", out], "`bag` is missing"),
        (["export-bag", out], "`bag` is missing"),
        (["train", out], "store"),
        (["package", out], "model.json"),
        (["evaluate", out], "bundle"),
        (["evaluate", out, "evaluate.what=luck"], "must be bundle or run"),
        (["collect", "task=pusht", out], "no scripted expert"),
    ):
        assert main(arguments) == 2, arguments
        assert message in " ".join(capsys.readouterr().out.split()), arguments


def test_the_robot_side_starts_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import robot_rl.deploy.onnx_policy, robot_rl.deploy.loop, robot_rl.bundle, sim.env, sim.pusht\n"
        "assert not any(name.split('.')[0] in ('diffusers', 'policies') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
