"""Off-screen pictures of a MuJoCo model, by EGL, or by OSMesa where that does not work; neither needs a display.

mujoco.Renderer binds to the back end that `MUJOCO_GL` named when mujoco was imported; here it is chosen when the first
picture is asked for, so that a machine without OpenGL can still simulate, and a forked worker gets its own context.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from robot_rl.errors import ConfigError, SimulationError

BACKENDS = ("egl", "osmesa", "glfw")
APT_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6"
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
_open_renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()
_local = threading.local()


def backend_candidates() -> tuple[str, ...]:
    """Return the OpenGL back ends to try, in order: the one `MUJOCO_GL` names, else those that need no display.

    Raises:
        ConfigError: `MUJOCO_GL` names a back end that does not exist.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted:
        if wanted not in BACKENDS:
            raise ConfigError(f"MUJOCO_GL must be one of {BACKENDS} for pictures, got {wanted!r}; unset it to choose")
        return (wanted,)
    return ("egl", "osmesa") if sys.platform == "linux" else ("glfw",)


def make_context(width: int, height: int) -> tuple[str, Any]:
    """Return the name of the first OpenGL back end that works and a current off-screen context of it.

    Raises:
        SimulationError: None works; says which were tried, why each failed, and what to install.
    """
    reasons: dict[str, str] = {}
    for backend in backend_candidates():
        try:
            if backend in _LIBRARIES:
                ctypes.CDLL(_LIBRARIES[backend])
            context = _context_class(backend)(width, height)
            context.make_current()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reasons[backend] = str(error).strip().replace("\n", " ")
            _forget_opengl()
            continue
        return backend, context
    tried = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    raise SimulationError(
        f"no OpenGL back end for pictures works ({tried}); run: apt-get install {APT_PACKAGES}, "
        "or do without cameras and video"
    )


def _context_class(backend: str) -> Any:
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext


@contextmanager
def _chosen(backend: str) -> Iterator[None]:
    """Let MuJoCo's C library see the choice: it reads `MUJOCO_GL` to find OpenGL's functions."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


def _forget_opengl() -> None:
    """Undo a failed import: PyOpenGL settles on a platform once and for all, which would bar the next candidate."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for name in [n for n in sys.modules if n.split(".")[0] == "OpenGL" or n in ("mujoco.egl", "mujoco.osmesa")]:
        del sys.modules[name]


class Renderer:
    """Renders one model at one picture size.

    Args:
        model: The model.
        height: Picture height [px].
        width: Picture width [px].
        shadows: Cast shadows; costs most of a frame in software.

    Raises:
        SimulationError: No OpenGL back end works.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, *, shadows: bool = False) -> None:
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self.backend, self._gl = make_context(width, height)
        with _chosen(self.backend):
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._closed = False
        self._thread = threading.get_ident()
        self._busy = threading.Lock()
        _of_this_thread().add(self)
        _open_renderers.add(self)
        atexit.unregister(_close_all)
        atexit.register(_close_all)  # last in, first out: before EGL's own, registered when it was imported just above

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return what the named camera sees, uint8 [height, width, 3]."""
        picture = np.empty((self._rect.height, self._rect.width, 3), dtype=np.uint8)
        self._draw(data, camera, picture, None)
        return np.ascontiguousarray(picture[::-1])  # OpenGL counts rows from the bottom

    def depth(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return the distance along the optical axis of what the named camera sees, float32 [height, width] in metres.

        It is 0 where nothing is nearer than the far plane. The depth buffer runs from 1 at the near plane to 0 at the
        far one, which keeps float32 exact to micrometres at arm's length.
        """
        buffer = np.empty((self._rect.height, self._rect.width), dtype=np.float32)
        self._draw(data, camera, None, buffer)
        near, far = (
            float(plane) * self._model.stat.extent for plane in (self._model.vis.map.znear, self._model.vis.map.zfar)
        )
        metres = near * far / (near + buffer[::-1].astype(np.float64) * (far - near))
        return np.where(buffer[::-1] > 0, metres, 0.0).astype(np.float32)

    def _draw(self, data: mujoco.MjData, camera: str, picture: np.ndarray | None, depth: np.ndarray | None) -> None:
        """Render and read into the arrays given, bottom row first."""
        with self._busy:
            self._camera.fixedcamid = self._model.camera(camera).id
            self._gl.make_current()
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            mujoco.mjr_render(self._rect, self._scene, self._context)
            mujoco.mjr_readPixels(picture, depth, self._rect, self._context)

    def close(self) -> None:
        """Free the context. Calling it twice is allowed; the end of the thread that made it does it too.

        Raises:
            SimulationError: Another thread made it: a context can be freed only where it is current.
        """
        if self._closed:
            return
        if self._thread != threading.get_ident():
            raise SimulationError("a renderer must be closed by the thread that made it, or by that thread's end")
        self._closed = True
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def average_down(picture: np.ndarray, factor: int) -> np.ndarray:
    """Return the picture shrunk by an integer factor, each pixel the mean of a square (smooth edges without MSAA)."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    squares = picture.reshape(height, factor, width, factor, 3)
    return np.asarray(squares.mean(axis=(1, 3)).round().astype(np.uint8))


class _ThreadsRenderers:
    """The renderers of one thread. A thread's local values go when it ends, on the thread itself: these close then."""

    def __init__(self) -> None:
        self.renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()

    def __del__(self) -> None:
        for renderer in list(self.renderers):
            if renderer._thread == threading.get_ident():  # else the interpreter ends, and the thread is still at work
                renderer.close()


def _of_this_thread() -> weakref.WeakSet[Renderer]:
    if not hasattr(_local, "kept"):
        _local.kept = _ThreadsRenderers()
    kept: _ThreadsRenderers = _local.kept
    return kept.renderers


def _close_all() -> None:
    """Free contexts before EGL itself is shut down, which would complain about each one left.

    One that another thread holds cannot be freed from here. Its present picture is waited for, and it gets no further
    one; the end of the process takes the context away.
    """
    for renderer in list(_open_renderers):
        if renderer._thread == threading.get_ident():
            renderer.close()
        elif not renderer._closed:
            renderer._busy.acquire()
            _keep(renderer._gl, renderer._context)


def _keep(*things: object) -> None:
    """Let nobody destroy these any more, not even the interpreter's end: their destructors would need the context."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
