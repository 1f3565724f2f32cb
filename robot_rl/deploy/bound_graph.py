"""One graph at one size through I/O binding: its inputs and outputs live in buffers that are made once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from robot_rl.bundle import Graph, TensorInfo
from robot_rl.deploy.providers import CPU


class BoundGraph:
    """Runs a session with a batch of one. Not for two threads at a time: the buffers belong to the call under way.

    On the processor the buffers are numpy arrays that ONNX Runtime reads and writes in place. On a GPU they live on
    the device at fixed addresses, as a recorded CUDA graph needs them, and are copied to and fro.

    Args:
        session: The session.
        described: Its inputs and outputs; a symbolic axis counts as one.
    """

    def __init__(self, session: ort.InferenceSession, described: Graph) -> None:
        self._session, self._binding = session, session.io_binding()
        self._on_cpu = session.get_providers()[0] == CPU
        self._inputs = {tensor.name: self._buffer(tensor) for tensor in described.inputs}
        self._outputs = {tensor.name: self._buffer(tensor) for tensor in described.outputs}
        for name, (value, _) in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, (value, _) in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs [1, ...] by name; they are overwritten by the next call.

        Args:
            feed: Every input by name, of the described shape with or without the leading axis of one.
        """
        for name, (value, array) in self._inputs.items():
            np.copyto(array, feed[name])
            if not self._on_cpu:
                value.update_inplace(array)
        self._session.run_with_iobinding(self._binding)
        if self._on_cpu:
            return {name: array for name, (_, array) in self._outputs.items()}
        return {name: value.numpy() for name, (value, _) in self._outputs.items()}

    def _buffer(self, tensor: TensorInfo) -> tuple[ort.OrtValue, np.ndarray]:
        """Return a tensor where the session computes, and the array it is filled from (on the processor, the same)."""
        shape = [1 if isinstance(axis, str) else axis for axis in tensor.shape]
        array = np.zeros(shape, dtype=tensor.dtype)
        if self._on_cpu:
            return ort.OrtValue.ortvalue_from_numpy(array), array
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, array.dtype.type, "cuda", 0), array
