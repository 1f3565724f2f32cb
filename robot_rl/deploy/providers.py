"""Where ONNX Runtime computes, and how: processor, CUDA or TensorRT, each with the settings that matter to a robot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.errors import ConfigError

log = logging.getLogger(__name__)

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PREFERRED = (TENSORRT, CUDA, CPU)
SHORT = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


@dataclass(frozen=True, kw_only=True)
class Providers:
    """Execution providers in order of preference, and their settings.

    Names are ONNX Runtime's own or `cpu`, `cuda`, `tensorrt`. One that this installation lacks is passed over: quietly
    if nothing was asked for, with a warning if it was named, and with an error if no named one is left.

    Args:
        names: In order of preference; `None` takes the fastest there is. Without `cpu` among them, a graph that ONNX
            Runtime would quietly compute on the processor instead is refused.
        cuda_graph: Record the kernels of the first call and replay them afterwards. Needs `cuda` or `tensorrt`.
        engine_cache: Folder where TensorRT keeps built engines; without one it builds them anew at each start, which
            takes minutes. An engine fits one graph, one GPU and one version of TensorRT; others are built beside it.
        fp16: Let TensorRT compute in half precision. Parity was proven in single precision, so try the bundle again.
        spinning: Let ONNX Runtime's threads wait for work by spinning. They answer a few microseconds sooner and take
            their cores from everything else.

    Raises:
        ConfigError: An empty list, or a setting of a provider that is not among the names.
    """

    names: Sequence[str] | None = None
    cuda_graph: bool = False
    engine_cache: str | None = None
    fp16: bool = False
    spinning: bool = False

    def __post_init__(self) -> None:
        if self.names is not None and not self.names:
            raise ConfigError("`providers.names` must name at least one provider, or be null for the fastest there is")
        wanted = self.wanted
        if self.cuda_graph and not {CUDA, TENSORRT} & set(wanted):
            raise ConfigError(f"`providers.cuda_graph` needs cuda or tensorrt among the names, got {list(wanted)}")
        for field in ("engine_cache", "fp16"):
            if getattr(self, field) and TENSORRT not in wanted:
                raise ConfigError(f"`providers.{field}` needs tensorrt among the names, got {list(wanted)}")

    @classmethod
    def of(cls, providers: Sequence[str] | Providers) -> Providers:
        """Return what a bare list of names means."""
        if isinstance(providers, Providers):
            return providers
        return cls(names=None if tuple(providers) == PREFERRED else tuple(providers))

    @property
    def wanted(self) -> tuple[str, ...]:
        """Full names in order of preference."""
        return PREFERRED if self.names is None else tuple(SHORT.get(name, name) for name in self.names)

    def choose(self, available: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """Return the providers to ask for, with their options.

        Raises:
            ConfigError: None of them is available, or `cuda_graph` is asked for where no GPU provider is.
        """
        usable = [name for name in self.wanted if name in available]
        if not usable:
            raise ConfigError(
                f"none of the providers {list(self.wanted)} is available here; there are {list(available)}; "
                "for a GPU, install onnxruntime-gpu in place of onnxruntime (extra `gpu`)"
            )
        if self.names is not None and (lacking := [name for name in self.wanted if name not in available]):
            log.warning("ONNX Runtime here lacks %s; taking %s", ", ".join(lacking), usable[0])
        if self.cuda_graph and not {CUDA, TENSORRT} & set(usable):
            raise ConfigError(
                f"`providers.cuda_graph` needs CUDA or TensorRT, but there are {list(available)}; switch it off"
            )
        return [(name, self._options(name)) for name in usable]

    def check(self, got: Sequence[str], asked: Sequence[str]) -> None:
        """Hold what a session runs on against what it was asked to run on.

        Raises:
            ConfigError: ONNX Runtime fell back to the processor, which was not among the names given.
        """
        if got[0] == asked[0]:
            return
        text = f"`{asked[0]}` was asked for, but ONNX Runtime could not start it and took `{got[0]}`"
        if self.names is not None and got[0] not in self.wanted:
            raise ConfigError(f"{text}; mend the driver or its libraries, or add cpu to `providers.names`")
        log.warning("%s", text)

    def _options(self, name: str) -> dict[str, Any]:
        if name == CUDA:
            return {"enable_cuda_graph": "1"} if self.cuda_graph else {}
        if name != TENSORRT:
            return {}
        options: dict[str, Any] = {"trt_fp16_enable": "1"} if self.fp16 else {}
        if self.cuda_graph:
            options["trt_cuda_graph_enable"] = "1"
        if self.engine_cache is not None:
            folder = Path(self.engine_cache)
            folder.mkdir(parents=True, exist_ok=True)
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        return options
