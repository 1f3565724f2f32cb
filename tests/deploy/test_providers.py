"""Which execution providers are asked for, with what; and graphs in buffers that are made once."""

import logging

import numpy as np
import onnxruntime as ort
import pytest

from robot_rl.deploy.bound_graph import BoundGraph
from robot_rl.deploy.onnx_policy import OnnxPolicy, open_session, plain_obs
from robot_rl.deploy.providers import CPU, CUDA, PREFERRED, TENSORRT, Providers
from robot_rl.errors import ConfigError
from robot_rl.values import PolicyInput

ALL = [TENSORRT, CUDA, CPU]


def test_the_fastest_there_is_is_taken_quietly(caplog):
    with caplog.at_level(logging.WARNING):
        assert [name for name, _ in Providers().choose([CUDA, CPU])] == [CUDA, CPU]
        assert Providers().choose([CPU]) == [(CPU, {})]
    assert not caplog.records
    assert Providers.of(PREFERRED) == Providers()


def test_a_named_provider_that_lacks_is_told_and_one_that_is_all_there_is_is_an_error(caplog):
    wanted = Providers(names=["cuda", "cpu"])
    with caplog.at_level(logging.WARNING):
        assert wanted.choose([CPU]) == [(CPU, {})]
    assert caplog.messages == ["ONNX Runtime here lacks CUDAExecutionProvider; taking CPUExecutionProvider"]
    with pytest.raises(
        ConfigError, match=r"none of the providers \['CUDAExecutionProvider'\] is available here.*extra"
    ):
        Providers(names=["cuda"]).choose([CPU])


def test_options_reach_the_providers_they_belong_to(tmp_path):
    folder = tmp_path / "engines"
    chosen = dict(Providers(cuda_graph=True, engine_cache=str(folder), fp16=True).choose(ALL))
    assert chosen[CUDA] == {"enable_cuda_graph": "1"}
    assert chosen[TENSORRT] == {
        "trt_fp16_enable": "1", "trt_cuda_graph_enable": "1", "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
    }  # fmt: skip
    assert chosen[CPU] == {}
    assert folder.is_dir()
    assert dict(Providers().choose(ALL)) == {name: {} for name in ALL}


def test_settings_of_a_provider_that_is_not_asked_for_are_refused():
    with pytest.raises(ConfigError, match="at least one provider"):
        Providers(names=[])
    with pytest.raises(ConfigError, match=r"`providers\.fp16` needs tensorrt among the names, got \['CPUExec"):
        Providers(names=["cpu"], fp16=True)
    with pytest.raises(ConfigError, match=r"`providers\.cuda_graph` needs cuda or tensorrt among the names"):
        Providers(names=["cpu"], cuda_graph=True)
    with pytest.raises(ConfigError, match="needs CUDA or TensorRT, but there are"):
        Providers(cuda_graph=True).choose([CPU])


def test_a_silent_fall_back_to_the_processor_is_refused_unless_it_was_named(caplog):
    with pytest.raises(ConfigError, match="could not start it and took `CPUExecutionProvider`; mend the driver"):
        Providers(names=["cuda"]).check([CPU], [CUDA])
    with caplog.at_level(logging.WARNING):
        Providers(names=["cuda", "cpu"]).check([CPU], [CUDA, CPU])
    assert "could not start it" in caplog.text


def test_a_policy_asked_for_a_provider_this_machine_lacks_says_what_there_is(make_bundle):
    if CUDA in ort.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=r"there are .*CPUExecutionProvider"):
        OnnxPolicy(make_bundle(), providers=Providers(names=["cuda"]))


def test_bound_buffers_give_the_same_numbers_again_and_again(make_bundle):
    bundle, rng = make_bundle(), np.random.default_rng(0)
    session = open_session(bundle, "sample")
    bound = BoundGraph(session, bundle.manifest.graphs["sample"])
    for _ in range(5):
        feed = {
            "obs.q": rng.normal(size=(1, 2, 2)).astype(np.float32),
            "noise": rng.normal(size=(1, 6, 2)).astype(np.float32),
        }
        (expected,) = session.run(["action"], feed)
        np.testing.assert_array_equal(bound.run(feed)["action"], expected)


def test_bound_outputs_are_always_the_same_array(make_bundle):
    bundle = make_bundle()
    bound = BoundGraph(open_session(bundle, "sample"), bundle.manifest.graphs["sample"])
    feed = {"obs.q": np.ones((1, 2, 2), np.float32), "noise": np.zeros((1, 6, 2), np.float32)}
    first = bound.run(feed)["action"]
    kept = first.copy()
    second = bound.run({**feed, "noise": feed["noise"] + 1})["action"]
    assert np.shares_memory(first, second)
    np.testing.assert_allclose(second, kept + 1)


def test_a_chunk_does_not_change_when_the_policy_is_asked_again(make_bundle):
    policy, bundle = OnnxPolicy(make_bundle()), make_bundle("other")
    obs = plain_obs(bundle)
    first = policy.act(PolicyInput(obs=obs, stamp_ns=0, noise=np.zeros((6, 2))))
    kept = first.action.copy()
    policy.act(PolicyInput(obs=obs, stamp_ns=1, noise=np.ones((6, 2))))
    np.testing.assert_array_equal(first.action, kept)
