from __future__ import annotations

import subprocess
import sys
import threading

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError, SimulationError
from sim import rendering
from sim.env import ArmEnv

# A red wall left of the camera's axis and a blue one right of it, a green floor: which way is up and which is left.
WALLS = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <camera name="eye" pos="0 0 0" xyaxes="1 0 0 0 0 1" fovy="90"/>
    <geom type="box" pos="-5 5 0" size="5 0.1 9" rgba="1 0 0 1"/>
    <geom type="box" pos="5 5 0" size="5 0.1 9" rgba="0 0 1 1"/>
    <geom type="box" pos="0 4 -9" size="20 0.1 7" rgba="0 1 0 1"/>
  </worldbody>
</mujoco>
"""


def test_rows_go_down_and_columns_right():
    model = mujoco.MjModel.from_xml_string(WALLS)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = rendering.Renderer(model, 40, 60)
    picture = renderer.render(data, "eye")
    renderer.close()
    renderer.close()
    assert picture.shape == (40, 60, 3)
    assert picture.dtype == np.uint8
    assert picture[5, 5].argmax() == 0
    assert picture[5, 54].argmax() == 2
    assert picture[38, 30].argmax() == 1


def test_cameras_see_the_cube_and_a_person_sees_more():
    env = ArmEnv(cameras=("front", "wrist"), image_size=(64, 64))
    tick = env.reset(0)
    for camera in ("front", "wrist"):
        red = tick.obs[camera].astype(int)
        is_red = (red[..., 0] > 1.8 * red[..., 1]) & (red[..., 0] > 80)
        assert 5 < is_red.sum() < 800, camera
    assert env.render().shape == (360, 480, 3)
    again = env.reset(0)
    np.testing.assert_array_equal(tick.obs["front"], again.obs["front"])
    env.close()


def test_average_down_is_the_mean_of_each_square():
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    small = rendering.average_down(picture, 2)
    expected = picture[2:4, 4:6, 1].astype(float).mean().round()
    assert small.shape == (2, 3, 3)
    assert small[1, 2, 1] == expected


def test_a_back_end_that_fails_gives_way_to_the_next(monkeypatch):
    monkeypatch.setattr(rendering, "backend_candidates", lambda: ("broken", "egl", "osmesa"))
    real = rendering._context_class

    def context_class(backend):
        if backend == "broken":
            raise ImportError("libBroken.so.1: cannot open shared object file")
        return real(backend)

    monkeypatch.setattr(rendering, "_context_class", context_class)
    monkeypatch.setattr(rendering, "_forget_opengl", lambda: None)
    name, context = rendering.make_context(8, 8)
    context.free()
    assert name in ("egl", "osmesa")


def test_without_any_back_end_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_LIBRARIES", {"egl": "libNoEGL.so.1", "osmesa": "libNoMesa.so.8"})
    monkeypatch.setattr(rendering, "_forget_opengl", lambda: None)
    env = ArmEnv(cameras=("front",))
    with pytest.raises(SimulationError) as caught:
        env.reset(0)
    message = str(caught.value)
    assert "egl: libNoEGL.so.1: cannot open shared object file" in message
    assert "osmesa: libNoMesa.so.8" in message
    assert "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6" in message
    ArmEnv().reset(0)  # without pictures nothing is missing


def test_mujoco_gl_decides_alone(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.backend_candidates() == ("osmesa",)
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(ConfigError, match=r"MUJOCO_GL must be one of .* got 'vulkan'"):
        rendering.backend_candidates()
    monkeypatch.delenv("MUJOCO_GL")
    if sys.platform == "linux":
        assert rendering.backend_candidates() == ("egl", "osmesa")


def test_an_open_renderer_makes_no_noise_at_exit():
    code = "from sim.env import ArmEnv; env = ArmEnv(); env.reset(0); env.render()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Error" not in done.stderr, done.stderr


THREADS = """
import sys, threading, time
import mujoco
from sim.rendering import Renderer

model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><camera name="eye"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
made, first = [], threading.Event()

def work(further):
    made.append(Renderer(model, 40, 60))
    made[-1].render(data, "eye")
    first.set()
    while further:
        made[-1].render(data, "eye")
        time.sleep(further)

further = float(sys.argv[1])
thread = threading.Thread(target=work, args=(further,), daemon=True)
thread.start()
first.wait()
if not further:
    thread.join()
    made[0].close()  # it is closed already, so this is allowed
    work(0.0)
"""


@pytest.mark.parametrize(("further", "meaning"), [(0.0, "it has ended"), (1e-6, "it draws"), (60.0, "it sleeps")])
def test_a_process_that_rendered_on_another_thread_ends_without_a_word(further, meaning):
    command = [sys.executable, "-c", THREADS, str(further)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), meaning


def test_a_renderer_of_another_thread_cannot_be_closed_here():
    model, made, done = mujoco.MjModel.from_xml_string(WALLS), [], threading.Event()

    def work():
        made.append(rendering.Renderer(model, 40, 60))
        done.wait(timeout=30)

    thread = threading.Thread(target=work)
    thread.start()
    while not made:
        thread.join(timeout=0.01)
    with pytest.raises(SimulationError, match="must be closed by the thread that made it"):
        made[0].close()
    done.set()
    thread.join()
    made[0].close()
