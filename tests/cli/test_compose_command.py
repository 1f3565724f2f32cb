"""`robot-rl compose` on two small trained policies: searched, reported, packaged, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.compose_command import Composer, package
from robot_rl.cli.compose_parents import load_parents, weights_digest
from robot_rl.cli.config import load_config
from robot_rl.cli.main import main
from robot_rl.cli.progress import bar
from robot_rl.deploy.onnx_policy import OnnxPolicy, smoke_run
from robot_rl.errors import BundleError

SHORT = ["task=pusht", "+task.env.max_steps=6", "search.episodes=3", "report.episodes=4", "compose.n_steps=2"]


def train(out: Path, name: str, *overrides: str) -> str:
    run = f"{out}/{name}"
    common = [
        "task=pusht", f"store={out}/store", f"run={run}", "train.steps=3", "train.batch_size=8", "train.threads=1",
        "train.warmup_steps=1", "train.precision=fp32", "denoiser.width=16", "denoiser.n_blocks=1",
    ]  # fmt: skip
    assert main(["train", *common, *overrides]) == 0
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two policies of different families over one store, and one that normalises otherwise."""
    out = tmp_path_factory.mktemp("compose")
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
    return {
        "flow": train(out, "flow", "policy=flow", "policy.action_norm=min_max"),
        "diffusion": train(out, "diffusion", "policy=diffusion", "encoder=state"),
        "other_norm": train(out, "other_norm", "policy=flow"),
    }


def compose(out: Path, *parents: str, **overrides: object) -> int:
    settings = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return main(["compose", f"out={out}", f"parents=[{','.join(parents)}]", *SHORT, *settings])


@pytest.mark.slow
def test_a_search_ends_in_a_report_on_other_seeds(runs: dict[str, str], tmp_path: Path) -> None:
    assert compose(tmp_path, runs["flow"], runs["diffusion"], search__step=0.5, report__oracle=True) == 0
    summary = json.loads((tmp_path / "compose" / "convex.json").read_text())
    assert summary["parents"] == ["flow", "diffusion"]
    assert [row["weights"] for row in summary["search"]] == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    assert {row["episodes"] for row in summary["search"]} == {3}
    assert {row["episodes"] for row in summary["report"]} == {4}
    html = (tmp_path / "compose" / "convex.html").read_text()
    for part in ("On the report seeds", "The search", "its own solver", "what a perfect search could have found"):
        assert part in html, part
    files = sorted((tmp_path / "compose" / "episodes").iterdir())
    assert len(files) == 5  # three weightings and each parent's own solver
    before = [file.read_bytes() for file in files]
    assert compose(tmp_path, runs["flow"], runs["diffusion"], search__step=0.5, report__oracle=True) == 0
    assert [file.read_bytes() for file in files] == before  # nothing was played twice


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["and", "or"])
def test_and_and_or_become_bundles_that_name_their_parents(
    runs: dict[str, str], tmp_path: Path, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compose(tmp_path, runs["flow"], runs["diffusion"], operator=operator) == 0
    bundle = PolicyBundle.open(tmp_path / "compose" / f"bundle_{operator}")
    ids = [weights_digest(one.parent.model) for one in load_parents([runs["flow"], runs["diffusion"]])]
    assert bundle.manifest.parent == ",".join(ids)
    assert bundle.manifest.family == "superposed"
    assert sorted(bundle.manifest.robot.obs) == ["agent_pos", "block_pose"]
    smoke_run(bundle)
    assert bundle.id in capsys.readouterr().out


@pytest.mark.slow
def test_a_mixture_is_packaged_once_and_another_one_is_refused_its_place(runs: dict[str, str], tmp_path: Path) -> None:
    from rich.console import Console

    config = load_config([*SHORT, f"out={tmp_path}"])
    composer = Composer(load_parents([runs["flow"], runs["diffusion"]]), config, bar(Console()))
    bundle = package(composer, (0.5, 0.5))
    assert json.loads(bundle.file("config.yaml").read_text())["weights"] == [0.5, 0.5]
    assert bundle.manifest.parity.max_abs_normalised <= 1e-4
    assert OnnxPolicy(bundle).n_execute == 4
    assert package(composer, (0.5, 0.5)).id == bundle.id
    with pytest.raises(BundleError, match="holds another composition"):
        package(composer, (0.4, 0.6))


@pytest.mark.slow
def test_a_bundle_can_be_a_parent_and_is_named_by_its_id(runs: dict[str, str], tmp_path: Path) -> None:
    assert main(["package", *SHORT, f"run={runs['flow']}", f"bundle={tmp_path}/bundle"]) == 0
    from_bundle, from_run = load_parents([f"{tmp_path}/bundle", runs["flow"]])
    assert from_bundle.id == PolicyBundle.open(tmp_path / "bundle").id
    assert weights_digest(from_bundle.parent.model) == from_run.id
    assert [one.parent.name for one in (from_bundle, from_run)] == ["bundle", "flow"]


def test_parents_are_named_by_what_tells_their_paths_apart(runs: dict[str, str], tmp_path: Path) -> None:
    for side in ("a", "b"):
        shutil.copytree(runs["flow"], tmp_path / side / "train")
    paths = [f"{tmp_path}/a/train", f"{tmp_path}/b/train"]
    assert [one.parent.name for one in load_parents(paths)] == ["a/train", "b/train"]
    assert [one.parent.name for one in load_parents([paths[0], paths[0]])] == ["train 1", "train 2"]


def test_what_cannot_be_composed_is_refused_before_an_episode_is_played(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow, diffusion = runs["flow"], runs["diffusion"]
    for parents, settings, message in (
        ([flow], {}, "`parents` must name at least two training runs or bundles"),
        ([flow, diffusion], {"operator": "xor"}, "`operator` must be one of ('convex', 'and', 'or'), got 'xor'"),
        ([runs["other_norm"], diffusion], {}, "action normalisers disagree: scale of element 0 of step 0 is"),
        ([flow, diffusion], {"search__first_seed": 100003}, "`search` and `report` must use different seeds"),
        ([flow, str(tmp_path)], {}, "model.json"),
        ([flow, diffusion], {"search__step": 0.3}, "`step` that divides 1"),
    ):
        assert compose(tmp_path, *parents, **settings) == 2, message
        assert message in " ".join(capsys.readouterr().out.split()), message
    assert not (tmp_path / "compose").exists()
