"""The torch-free policy: slicing, clamping, noise, refusals. The graph is a formula, so answers are exact."""

import subprocess
import sys

import numpy as np
import pytest

from robot_rl.deploy.onnx_policy import OnnxPolicy, load_graph, open_session, plain_obs, smoke_run
from robot_rl.errors import BundleError, ConfigError, SafetyStop, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import PolicyInput
from tests.contracts.policy import check_policy

OBS = {"q": np.array([[9.0, 9.0], [1.0, 2.0]], dtype=np.float32)}
QUIET = np.zeros((6, 2), dtype=np.float32)


def ask(policy: OnnxPolicy, *, obs=None, noise=QUIET, stamp_ns: int = 700):
    return policy.act(PolicyInput(obs=OBS if obs is None else obs, stamp_ns=stamp_ns, noise=noise))


def test_contract(make_bundle):
    bundle = make_bundle()
    check_policy(lambda: OnnxPolicy(bundle, seed=0), bundle.manifest.robot, noise_shape=(6, 2))


def test_slices_by_action_offset_and_clamps_to_the_frozen_range(make_bundle):
    policy = OnnxPolicy(make_bundle(action_high=(3.0, 2.25)))
    chunk = ask(policy)
    assert isinstance(policy, Policy)
    assert (policy.n_obs, policy.n_execute) == (2, 3)
    assert (chunk.start_ns, chunk.step_ns) == (700, 50_000_000)
    # The graph's rows are 0.0, 0.1, ... from the oldest observation on; row 1 is due at the newest.
    np.testing.assert_allclose(chunk.action[:, 0], [1.1, 1.2, 1.3, 1.4, 1.5], rtol=1e-6)
    np.testing.assert_allclose(chunk.action[:, 1], [2.1, 2.2, 2.25, 2.25, 2.25], rtol=1e-6)
    assert chunk.action.dtype == np.float32


def test_offset_zero_keeps_every_row(make_bundle):
    chunk = ask(OnnxPolicy(make_bundle(action_offset=0)))
    np.testing.assert_allclose(chunk.action[:, 0], 1.0 + 0.1 * np.arange(6), rtol=1e-6)


def test_noise_is_an_argument_or_seeded(make_bundle):
    bundle = make_bundle(action_offset=0)
    noise = np.linspace(-0.5, 0.5, 12, dtype=np.float32).reshape(6, 2)
    policy = OnnxPolicy(bundle, seed=3)
    np.testing.assert_allclose(ask(policy, noise=noise).action - ask(policy).action, noise, atol=1e-6)
    drawn = [ask(policy, noise=None).action for _ in range(2)]
    again = OnnxPolicy(bundle, seed=3)
    np.testing.assert_array_equal(drawn[0], ask(again, noise=None).action)
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], ask(OnnxPolicy(bundle, seed=4), noise=None).action)


def test_seeding_again_starts_the_noise_over(make_bundle):
    policy = OnnxPolicy(make_bundle(), seed=3)
    first = ask(policy, noise=None).action
    policy.seed(3)
    np.testing.assert_array_equal(ask(policy, noise=None).action, first)


def test_warm_up_does_not_disturb_the_noise(make_bundle):
    bundle = make_bundle()
    warm = OnnxPolicy(bundle, seed=1)
    warm.warm_up()
    np.testing.assert_array_equal(ask(warm, noise=None).action, ask(OnnxPolicy(bundle, seed=1), noise=None).action)


def test_more_observations_than_needed_are_fine(make_bundle):
    assert len(ask(OnnxPolicy(make_bundle()), obs={**OBS, "image": np.zeros((2, 4, 4, 3), np.uint8)})) == 5


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({}, r"observation lacks \['q'\]; got \[\], the bundle reads \['q'\]"),
        ({"q": np.zeros((2, 3), np.float32)}, r"`q` must be float32\(\*, 2\) \[rad\], got float32\(2, 3\)"),
        ({"q": np.zeros((2, 2))}, r"`q` must be float32\(\*, 2\) \[rad\], got float64\(2, 2\)"),
        ({"q": np.zeros((3, 2), np.float32)}, "`q` must hold 2 observation steps, got 3"),
        ({"q": np.full((2, 2), np.nan, np.float32)}, r"`q` must be finite, got nan at index \[0, 0\]"),
    ],
)
def test_refuses_observations_that_do_not_fit(make_bundle, obs, message):
    with pytest.raises(SpecError, match=message):
        ask(OnnxPolicy(make_bundle()), obs=obs)


def test_refuses_noise_that_does_not_fit(make_bundle):
    with pytest.raises(SpecError, match=r"`noise` must be finite float\(6, 2\), got float64\(5, 2\)"):
        ask(OnnxPolicy(make_bundle()), noise=np.zeros((5, 2)))


def test_nan_from_the_network_is_a_safety_stop(make_bundle, nan_graph):
    bundle = make_bundle(graph=nan_graph)
    with pytest.raises(SafetyStop, match=f"policy {bundle.id} answered NaN or infinity; its action was not used"):
        ask(OnnxPolicy(bundle))
    with pytest.raises(BundleError, match=r"failed its smoke run: policy .* answered NaN"):
        smoke_run(bundle)


def test_smoke_run_passes_a_good_bundle(make_bundle):
    bundle = make_bundle()
    smoke_run(bundle)
    assert plain_obs(bundle)["q"].tolist() == [[1.0, 1.0]] * 2  # the middle of -2..4


def test_graph_that_is_none_or_speaks_of_other_names(make_bundle):
    with pytest.raises(BundleError, match=r"sample.onnx: ONNX Runtime cannot load it"):
        OnnxPolicy(make_bundle("garbage", graph=b"not onnx"))
    bundle = make_bundle()
    described = bundle.manifest.graphs["sample"]
    renamed = type(described)("sample.onnx", described.inputs[:1], described.outputs)
    with pytest.raises(BundleError, match=r"expected inputs \['obs.q'\], got \['noise', 'obs.q'\]"):
        load_graph(bundle.file("sample.onnx").read_bytes(), renamed)
    with pytest.raises(BundleError, match=r"has no graph `denoise`; it has \['sample'\]"):
        open_session(bundle, "denoise")


def test_settings(make_bundle):
    bundle = make_bundle()
    with pytest.raises(ConfigError, match="`threads` must be at least 1, got 0"):
        OnnxPolicy(bundle, threads=0)
    with pytest.raises(ConfigError, match=r"none of the providers \['NoSuchProvider'\] is available here"):
        OnnxPolicy(bundle, providers=("NoSuchProvider",))
    policy = OnnxPolicy(bundle, providers=("NoSuchProvider", "CPUExecutionProvider"))
    assert policy.provider == "CPUExecutionProvider"


def test_the_robot_side_starts_without_torch():
    code = (
        "import sys, robot_rl.deploy.loop, robot_rl.deploy.onnx_policy, robot_rl.bundle;"
        "print(sorted({'torch', 'diffusers', 'mujoco', 'zarr', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
