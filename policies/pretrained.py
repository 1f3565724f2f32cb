"""A frozen ResNet-18 trunk from a local file in torchvision's format, batch norms folded into the convolutions.

Folding: BN(W x) = s W x + (beta - s mean) with s = gamma / sqrt(var + eps), exact for frozen statistics. What remains
has neither running statistics nor a training mode, so `.train()` cannot change it, and a smaller graph is exported.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPS = 1e-5  # of torchvision's batch norms
_BN = ("weight", "bias", "running_mean", "running_var")
_NOT_TRUNK = ("fc.weight", "fc.bias")


def conv_shapes(width: int) -> dict[str, tuple[int, int, int, int]]:
    """Return the shape of each convolution of a ResNet-18 by torchvision's name; `width` is 64 there."""
    shapes, c_in = {"conv1": (width, 3, 7, 7)}, width
    for stage in range(1, 5):
        c_out = width * 2 ** (stage - 1)
        for block in range(2):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1"] = (c_out, c_in, 3, 3)
            shapes[f"{name}.conv2"] = (c_out, c_out, 3, 3)
            if c_in != c_out:
                shapes[f"{name}.downsample.0"] = (c_out, c_in, 1, 1)
            c_in = c_out
    return shapes


def norm_name(conv: str) -> str:
    """Return torchvision's name of the batch norm that follows a convolution."""
    return conv[:-1] + "1" if conv.endswith("downsample.0") else conv.replace("conv", "bn")


class FrozenResNet18(nn.Module):
    """The trunk up to the last feature map, stride 32; pictures in [-1, 1] in, ImageNet's normalisation inside.

    Args:
        path: `.safetensors` file or torch state dict (`.pt`, `.pth`: read with `weights_only`) with torchvision's
            parameter names and nothing else; the classifier `fc` may be there and is left out.

    Raises:
        ConfigError: The file cannot be read, or a tensor is missing, superfluous, of another shape or not finite.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        state = read_state(path)
        if "conv1.weight" not in state:
            raise ConfigError(f"{path} is no ResNet-18: it lacks `conv1.weight`, it has {sorted(state)[:5]} ...")
        self.width = len(state["conv1.weight"])
        shapes = conv_shapes(self.width)
        _check(state, shapes, path)
        self.convs = nn.ModuleDict({_key(name): _folded(state, name) for name in shapes})
        std = torch.tensor(IMAGENET_STD)[:, None, None]
        self.register_buffer("scale", 0.5 / std, persistent=False)  # from [-1, 1] over [0, 1] to ImageNet's units
        self.register_buffer("offset", (0.5 - torch.tensor(IMAGENET_MEAN)[:, None, None]) / std, persistent=False)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C y x"]:
        """Return the last feature map, 8 * width channels."""
        x = functional.relu(self._conv("conv1", x * self.scale + self.offset))
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            for block in range(2):
                name = f"layer{stage}.{block}"
                h = functional.relu(self._conv(f"{name}.conv1", x))
                shortcut = f"{name}.downsample.0"
                x = self._conv(shortcut, x) if _key(shortcut) in self.convs else x
                x = functional.relu(self._conv(f"{name}.conv2", h) + x)
        return x

    def _conv(self, name: str, x: Tensor) -> Tensor:
        return self.convs[_key(name)](x)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a torch state dict.

    Raises:
        ConfigError: It cannot be read, or holds something else than tensors by name.
    """
    file = Path(path)
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # each reader has its own family of errors
        raise ConfigError(f"weights cannot be read from {file}: {type(error).__name__}: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{file} must hold a state dict, tensors by name, got {type(state).__name__}")
    return dict(state)


def _key(name: str) -> str:
    return name.replace(".", "_")  # a module's name has no dots


def _check(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: str | Path) -> None:
    """Raise unless `state` holds exactly the trunk's finite tensors, and perhaps the classifier."""
    wanted: dict[str, tuple[int, ...]] = {f"{conv}.weight": shape for conv, shape in shapes.items()}
    wanted |= {f"{norm_name(conv)}.{field}": shape[:1] for conv, shape in shapes.items() for field in _BN}
    given = {n for n in state if n not in _NOT_TRUNK and not n.endswith("num_batches_tracked")}
    missing, superfluous = sorted(set(wanted) - given), sorted(given - set(wanted))
    if missing or superfluous:
        raise ConfigError(
            f"{path} is no torchvision ResNet-18: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(superfluous)} superfluous {superfluous[:3]}"
        )
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape or not bool(torch.isfinite(state[name]).all()):
            raise ConfigError(f"`{name}` of {path} must be finite, {shape}, got {tuple(state[name].shape)}")


def _folded(state: Mapping[str, Tensor], name: str) -> nn.Conv2d:
    """Return a convolution with the batch norm that follows it folded in."""
    gamma, beta, mean, var = (state[f"{norm_name(name)}.{field}"].double() for field in _BN)
    weight = state[f"{name}.weight"].double()
    scale = gamma / (var + _EPS).sqrt()
    c_out, c_in, kernel, _ = weight.shape
    stride = 2 if name == "conv1" or _downsamples(name) else 1
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
    with torch.no_grad():
        conv.weight.copy_(weight * scale[:, None, None, None])
        conv.bias.copy_(beta - mean * scale)  # type: ignore[union-attr]
    return conv


def _downsamples(name: str) -> bool:
    """Whether a convolution halves the picture: the first of stages 2 to 4, and the shortcut beside it."""
    stage, block, part = name[5], name[7], name[9:]
    return stage in "234" and block == "0" and part in ("conv1", "downsample.0")
