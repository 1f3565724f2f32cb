"""The teacher of a one-step head: read from its run, rebuilt with fewer steps, remembered beside the head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.cli.config import build
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec, RobotSpec

if TYPE_CHECKING:
    from policies.denoising import DenoisingModel

ORIGIN = "distillation.json"


@dataclass(frozen=True)
class Teacher:
    """A trained policy to be distilled.

    Args:
        run: Its training run's folder.
        card: Its recipe.
        model: Its model; of a chain, the model that the chain is made of.
        node: Hydra node of that model, plain values.
        id: What tells its weights from others.
    """

    run: Path
    card: ModelCard
    model: DenoisingModel
    node: Mapping[str, Any]
    id: str

    @property
    def n_steps(self) -> int:
        """K, its denoising steps."""
        return len(self.model.times) - 1

    def at_steps(self, n: int) -> DenoisingModel:
        """Return the same weights sampled in `n` steps, the baseline that needs no distillation.

        A diffusion's steps then end at the noisiest trained one (`spacing: trailing`): of few steps the usual spacing
        would leave out the noisy ones.
        """
        changed = {"n_steps": n, **({"spacing": "trailing"} if self.model.path.kind == "vp" else {})}
        model: DenoisingModel = build({**self.node, **changed}, self.card.spec, self.card.stats)
        model.load_state_dict(self.model.state_dict())
        return model.eval()


def open_teacher(run: str | Path) -> Teacher:
    """Return a training run as a teacher.

    Raises:
        ConfigError: There is no training run, or its policy does not denoise.
    """
    from policies.chain import DenoisingChain
    from policies.one_step_parts import denoising_of

    card, model = trained_model(run)
    inner = denoising_of(model)
    node = card.policy["model"] if isinstance(model, DenoisingChain) else card.policy
    node = {key: value for key, value in node.items() if key != "_partial_"}
    return Teacher(Path(run), card, inner.eval(), node, identify(run))


def remember(out: str | Path, teacher: Teacher) -> None:
    """Write into a head's run folder which teacher it is of."""
    Path(out).mkdir(parents=True, exist_ok=True)
    text = json.dumps({"teacher": str(teacher.run.resolve()), "id": teacher.id}, indent=1)
    (Path(out) / ORIGIN).write_text(text + "\n", "utf-8")


def is_head(run: str | Path) -> bool:
    """Return whether a folder is the run of a one-step head."""
    return (Path(run) / ORIGIN).is_file()


def origin(run: str | Path) -> dict[str, str]:
    """Return what a head's run says of its teacher: its folder (`teacher`) and the id of its weights (`id`)."""
    found: dict[str, str] = json.loads((Path(run) / ORIGIN).read_text("utf-8"))
    return found


def teacher_of(run: str | Path, moved: str | None = None) -> Teacher:
    """Return the teacher that a head's run is of.

    Args:
        run: The head's run.
        moved: Where the teacher's run is now; `None` for where it was.

    Raises:
        ConfigError: It is not there, or was trained further since.
    """
    said = origin(run)
    path = said["teacher"] if moved is None else moved
    if not Path(path).is_dir():
        raise ConfigError(
            f"{run} is a head of the run {path}, which is not there; name its present place: distill.teacher=<run>"
        )
    teacher = open_teacher(path)
    if teacher.id != said["id"]:
        raise ConfigError(
            f"{run} was distilled from {said['id']}, and {path} now holds {teacher.id}; distil the head anew"
        )
    return teacher


def check_data(robot: RobotSpec, card: ModelCard) -> None:
    """Raise unless a store holds what a teacher reads and gives; bounds may differ.

    Raises:
        ConfigError: Names the first disagreement.
    """
    if missing := sorted(set(card.spec.obs) - set(robot.obs)):
        raise ConfigError(f"the teacher reads {missing}, the store has {sorted(robot.obs)}; give its own store=...")
    pairs: list[tuple[ArraySpec, ArraySpec]] = [(spec, robot.obs[name]) for name, spec in card.spec.obs.items()]
    for mine, theirs in [*pairs, (card.spec.action, robot.action)]:
        a, b = ({k: v for k, v in one.to_dict().items() if k not in ("low", "high")} for one in (mine, theirs))
        if a != b:
            raise ConfigError(f"`{mine.name}` is {a} for the teacher and {b} in the store; give its own store=...")
    if robot.control_hz != card.spec.control_hz:
        raise ConfigError(
            f"`control_hz` is {card.spec.control_hz:g} for the teacher and {robot.control_hz:g} in the store"
        )
