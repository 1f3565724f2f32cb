"""A success classifier as the folder that the robot's side reads: ONNX graph and card, compared with torch first."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import uuid
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.deploy.success import CARD, GRAPH, ClassifierCard, SuccessClassifier
from robot_rl.errors import BundleError
from robot_rl.imitation.summary import write_json
from robot_rl.rl.success_classifier import SuccessNetwork, frame_probabilities
from robot_rl.rl.success_frames import LabelledEpisode

OPSET = 20
TOLERANCE = 1e-4


class _Probability(nn.Module):
    def __init__(self, model: SuccessNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.sigmoid(self.model(obs))


def export_classifier(
    model: SuccessNetwork, folder: str | Path, card: ClassifierCard, probe: LabelledEpisode
) -> SuccessClassifier:
    """Write a classifier's folder and return it opened; files that are there are replaced.

    Args:
        model: The trained network.
        folder: Where.
        card: What it reads and how it is used; its `sha256` is filled in.
        probe: An episode on whose frames the graph must agree with torch.

    Raises:
        BundleError: The graph differs from torch by more than 1e-4; nothing was written.
    """
    frozen = copy.deepcopy(model).cpu().float().eval()
    example = {name: torch.from_numpy(probe.frames[name][:2])[:, None] for name in card.obs}
    content = _to_onnx(_Probability(frozen), example)
    root = Path(folder)
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    trial = root / f".{uuid.uuid4().hex}"
    trial.mkdir(parents=True)
    try:
        (trial / GRAPH).write_bytes(content)
        write_json(trial / CARD, card.to_dict())
        told = SuccessClassifier(trial).probabilities({name: probe.frames[name] for name in card.obs})
        worst = float(np.abs(told - frame_probabilities(frozen, probe)).max())
        if not worst <= TOLERANCE:
            raise BundleError(f"the graph differs from torch by {worst:.3g}, at most {TOLERANCE} is allowed")
        for name in (GRAPH, CARD):
            os.replace(trial / name, root / name)
    finally:
        for file in trial.iterdir():
            file.unlink()
        trial.rmdir()
    return SuccessClassifier(root)


def _to_onnx(part: nn.Module, example: dict[str, Tensor]) -> bytes:
    batch = torch.export.Dim("B")
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own internals
            program = torch.onnx.export(
                part, (), kwargs={"obs": example}, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=[f"obs.{name}" for name in example], output_names=["probability"],
                dynamic_shapes={"obs": {name: {0: batch} for name in example}},
            )  # fmt: skip
    finally:
        registry.setLevel(level)
    if program is None:
        raise BundleError("torch.onnx.export returned no program; update torch")
    return bytes(program.model_proto.SerializeToString())
