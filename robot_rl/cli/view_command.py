"""`robot-rl view`: an episode in Rerun, beside another one or with a policy's predicted chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.data.schema import StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import Recording
from robot_rl.view.episode import Scene, log_episode
from robot_rl.view.layout import blueprint
from robot_rl.view.prediction import Prediction, predict
from robot_rl.view.prediction_log import log_prediction
from robot_rl.view.show import check_display, new_log, save, serve_data, serve_page, wait_for_interrupt
from robot_rl.view.timelines import try_align

ROOTS = ("A", "B")


def episode_id(ids: Sequence[str], wanted: object) -> str:
    """Return the id of the episode that is asked for: an id, a number in the order of ids, or `None` for the newest.

    Raises:
        ConfigError: There is none such; says what there is.
    """
    if not ids:
        raise ConfigError("the store is empty; there is nothing to show")
    if wanted is None:
        return ids[-1]
    if str(wanted) in ids:
        return str(wanted)
    if isinstance(wanted, int) and -len(ids) <= wanted < len(ids):
        return ids[wanted]
    raise ConfigError(f"no episode {wanted!r}; give a number from 0 to {len(ids) - 1} or an id such as {ids[0]}")


def load_policy(path: str) -> tuple[Policy, Sequence[str]]:
    """Return the policy of a bundle or a training run, and the names of the observations that it reads.

    Raises:
        ConfigError: `path` is neither.
    """
    if (Path(path) / "manifest.json").is_file():
        from robot_rl.bundle import PolicyBundle, base_of
        from robot_rl.deploy.onnx_policy import OnnxPolicy

        policy = OnnxPolicy(base_of(PolicyBundle.open(path)))  # chunks are drawn, and these are the base's
        return policy, list(policy.spec.obs)
    from robot_rl.cli.model_card import FILE, ModelCard, torch_policy

    if (Path(path) / FILE).is_file():
        return torch_policy(path), list(ModelCard.load(path).spec.obs)
    raise ConfigError(f"`view.policy` must be a bundle or a training run, {path} has neither manifest.json nor {FILE}")


def run(config: DictConfig, console: Console) -> None:
    """Show `episode` of `store`: in the browser (`--web`), in a file (`view.save`), or in a window."""
    view, store = config.view, EpisodeStore.open(config.store)
    ids = store.ids()
    shown = [episode_id(ids, config.episode)]
    if view.compare is not None:
        shown.append(episode_id(ids, view.compare))
    if view.save is None and not view.web:
        check_display()
    log = new_log(" and ".join(shown))
    source = _attach(log, view)
    began = time.monotonic()
    _log_all(log, store, shown, config, console)
    log.flush()
    console.print(f"{' and '.join(shown)} logged in {time.monotonic() - began:.1f} s")
    if source is not None:
        url = serve_page(source, port=view.port, open_browser=bool(view.open_browser))
        console.print(f"open {url}\nCtrl-C ends it", soft_wrap=True)
        wait_for_interrupt()
    elif view.save is not None:
        console.print(f"saved {view.save}; open it with: rerun {view.save}", soft_wrap=True)
    log.disconnect()


def _attach(log: Any, view: DictConfig) -> str | None:
    """Say where `log` goes: a file, viewers that connect to the address returned, or a window."""
    if view.save is not None:
        save(log, view.save)
        return None
    if view.web:
        return serve_data(log, memory=str(view.memory))
    log.spawn(memory_limit=str(view.memory))
    return None


def _log_all(log: Any, store: EpisodeStore, ids: Sequence[str], config: DictConfig, console: Console) -> None:
    """Log the episodes, the predicted chunks of each if there is a policy, and the layout."""
    policy = None if config.view.policy is None else load_policy(str(config.view.policy))
    scenes = []
    for id, root in zip(ids, ("/",) if len(ids) == 1 else ROOTS, strict=False):
        recording = store.read(id)
        scene = log_episode(log, id, recording, store.schema, root=root)
        if policy is not None:
            prediction = _predict(log, scene, recording, store.schema, policy, config)
            _print_error(console, scene, prediction)
        scenes.append(scene)
    log.send_blueprint(blueprint(scenes))


def _predict(
    log: Any, scene: Scene, recording: Recording, schema: StoreSchema, policy: tuple[Policy, Sequence[str]],
    config: DictConfig,
) -> Prediction:  # fmt: skip
    episode, trouble = try_align(recording, schema.spec, scene.id)
    if episode is None:
        raise SpecError(f"episode {scene.id} cannot be predicted from: {trouble}")
    driver, obs_names = policy
    every = None if config.view.every is None else int(config.view.every)
    prediction = predict(driver, episode, obs_names=obs_names, every=every, seed=int(config.seed))
    log_prediction(log, scene, recording, episode, prediction, name=str(config.view.policy))
    return prediction


def _print_error(console: Console, scene: Scene, prediction: Prediction) -> None:
    table = Table(title=f"{scene.id}: {len(prediction.chunks)} predicted chunks", title_justify="left")
    for column in ("action", "mean absolute error", "unit"):
        table.add_column(column, justify="right" if column.startswith("mean") else "left")
    for curve, error in zip(scene.action, prediction.mean_error, strict=True):
        table.add_row(curve.name, f"{error:.4g}", curve.unit)
    console.print(table)
