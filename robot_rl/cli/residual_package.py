"""`robot-rl package run=<folder of a fine-tuning run>`: base and correction as one bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle, base_of
from robot_rl.cli.finetune_card import FILE, FinetuneCard
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import BundleError, ConfigError
from robot_rl.evaluation.inheritance import inherit
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.publication import Publication, newest


def is_finetuned(run: str | Path) -> bool:
    """Return whether a folder is that of a fine-tuning run."""
    return (Path(run) / FILE).is_file()


Export = Callable[[str, str], PolicyBundle]
"""Makes a bundle of a training run at a path: (run, path) -> bundle."""


def package_finetuned(config: DictConfig, console: Console, export: Export) -> PolicyBundle:
    """Export the newest correction of `run` beside its frozen base and check its parity with torch.

    Args:
        config: `run`, `bundle`, and `package.base`, `package.parent`.
        console: Where to say what was done.
        export: For a base that is no bundle yet.

    Raises:
        ConfigError: The run has no base, published nothing, or learned something else than a correction.
        BundleError: `package.base` is not the run's base, or `export_residual` refuses.
    """
    from policies.residual_export import export_residual
    from robot_rl.rl.steps import ResidualStep

    card = FinetuneCard.load(config.run)
    step = card.build_algorithm(0).policy
    if card.base is None or not isinstance(step, ResidualStep):
        raise ConfigError(
            f"{config.run} was learned by algo={card.algo['name']}; a bundle holds a base and a correction at each "
            "tick, as `residual` and `rlif` learn it"
        )
    found = _newest(config.run, card)
    step.load_state_dict(dict(found.tensors))
    parent = None if config.package.parent is None else PolicyBundle.open(config.package.parent)
    with tempfile.TemporaryDirectory(prefix="robot_rl_base_") as folder:
        base = _base(config.package.base, card, parent, lambda run: export(run, f"{folder}/bundle"))
        bundle = export_residual(
            step, base, config.bundle, spec=card.spec, stats=card.stats, delay_steps=card.delay_steps,
            config={"task": card.task, "algo": dict(card.algo), "version": found.version, "run": card.id},
            data_digest=_digest(config.run), parent="" if parent is None else parent.id,
        )  # fmt: skip
    console.print(
        f"bundle {bundle.id} in {config.bundle}: base {base.id} and version {found.version} of the correction; ONNX "
        f"against torch: max |difference| {bundle.manifest.parity.max_abs_normalised:.1e} of the agent's unit"
    )
    if parent is not None:
        console.print(f"it inherits what attests {parent.id}, at reduced speed: {inherit(bundle, parent)}")
    return bundle


def _newest(run: str, card: FinetuneCard) -> Publication:
    found = newest(Path(run) / PUBLISHED, belongs_to=card.id)
    if found is None:
        raise ConfigError(f"{run} holds no published weights; run `robot-rl finetune` first")
    return found


def _digest(run: str) -> str:
    """Return the digest of the episodes that were played."""
    return EpisodeStore.open(Path(run) / "store").digest()


def _base(
    named: str | None, card: FinetuneCard, parent: PolicyBundle | None, export: Callable[[str], PolicyBundle]
) -> PolicyBundle:
    """Return the base's bundle: the one named, the parent's, the base itself, or one exported from its run.

    Raises:
        BundleError: The one named is not this run's base, or the base is a corrected policy itself.
    """
    base = card.checked_base()
    is_bundle = (Path(base) / "manifest.json").is_file()
    if named is None and parent is not None:
        named = str(parent.path)
    if named is None and not is_bundle:
        return export(base)
    given = base_of(PolicyBundle.open(base if named is None else named))
    if is_bundle:
        fits = given.id == card.base_id
    else:
        mine, wanted = given.weights(), export(base).weights()
        fits = set(mine) == set(wanted) and all(np.array_equal(mine[name], wanted[name]) for name in wanted)
    if not fits:
        raise BundleError(
            f"the base {given.id} of {named if named else base} is not the one that this run was fine-tuned on "
            f"({card.base_id}): give `package.base` its bundle, or leave `package.base` and `package.parent` out. A "
            "correction of a policy that is corrected itself cannot be packaged"
        )
    return given
