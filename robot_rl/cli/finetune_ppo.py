"""`robot-rl finetune` by policy gradients through the base's own denoising steps: `algo=dppo`, `algo=rl100_online`.

The run's folder is that of a training run as well: `evaluate`, `package` and `finetune` itself take it as a base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.chain_card import explore, exploring_policy, run_card, still, tuned_chain
from robot_rl.cli.config import build, plain
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_card import demonstrations
from robot_rl.cli.finetune_checks import check_online
from robot_rl.cli.finetune_head import HEAD, leave_head, make_companion
from robot_rl.cli.finetune_judge import Subject, judge_all, write_outcome
from robot_rl.cli.finetune_report import sections
from robot_rl.cli.model_card import ModelCard, torch_policy
from robot_rl.cli.progress import bar
from robot_rl.cli.threads import numeric_threads
from robot_rl.data.loader import BatchLoader
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError
from robot_rl.evaluation.lockstep import run_lockstep
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.imitation.checkpoint import read_state
from robot_rl.imitation.surroundings import InterruptFlag
from robot_rl.interfaces import Env
from robot_rl.rl.learner import CHECKPOINTS
from robot_rl.rl.ppo.online import PpoOnline
from robot_rl.rl.ppo.rollouts import Player, chain_extras
from robot_rl.rl.ppo.run import OnlineRun, RunSettings

if TYPE_CHECKING:
    from policies.chain import DenoisingChain
    from robot_rl.rl.actor import Played

EPISODES = "store"


def is_ppo(config: DictConfig) -> bool:
    """Whether `algo` is one of those here."""
    return "ppo" in config.algo


def run_constants(config: DictConfig) -> dict[str, Any]:
    """Return what must not change when a run is resumed."""
    return {
        "base": identify(config.base), "algo": plain(config.algo), "seed": int(config.seed),
        "env": environment(config, config.finetune.latency)[0], "first_seed": int(config.finetune.first_seed),
        "max_steps": config.finetune.max_steps, **({} if config.algo.head_lr is None else {"head": plain(config.head)}),
    }  # fmt: skip


def make_ppo(config: DictConfig, chain: DenoisingChain, card: ModelCard) -> PpoOnline:
    """Return the learner of a chain, with a critic drawn from the run's seed."""
    import torch

    torch.manual_seed(int(config.seed))
    critic = build(config.algo.critic, chain.encoder)
    settings = build(config.algo.ppo, n_execute=card.n_execute)
    companion = make_companion(config, chain)
    return PpoOnline(chain, critic, settings, seed=int(config.seed), companion=companion)


def make_envs(config: DictConfig) -> list[Env]:
    """Return the environments that play side by side."""
    make_env = environment(config, config.finetune.latency)[1]
    return [make_env() for _ in range(int(config.algo.lanes))]


def make_run(config: DictConfig, envs: list[Env]) -> OnlineRun:
    """Return the run in `finetune.out`, where it stopped if it had begun.

    Raises:
        ConfigError: No training run at `base`, or the folder holds a run with other settings.
    """
    f, algo, out = config.finetune, plain(config.algo), Path(config.finetune.out)
    base = ModelCard.load(config.base)
    chain = tuned_chain(config.base, algo["chain"])
    constants = run_constants(config)
    ppo = make_ppo(config, chain, base)
    folder = out / EPISODES
    there = EpisodeStore.exists(folder)
    store = (
        EpisodeStore.open(folder)
        if there
        else EpisodeStore.create(folder, envs[0].spec, extra=chain_extras(chain), codecs=plain(config.task.codecs))
    )
    player = Player(
        envs, chain, base.spec, n_execute=base.n_execute, sink=store, seed=int(config.seed),
        task=config.task.description, max_steps=f.max_steps,
    )  # fmt: skip
    settings = RunSettings(
        total_steps=f.steps, episodes=algo["episodes"], first_seed=f.first_seed, eval_every=f.eval_every
    )
    run = OnlineRun(
        ppo, player, store, out, settings, belongs_to=run_id(constants), constants=constants,
        demonstrations=_demonstrations(config, chain, base), evaluate=partial(_success, config, envs, chain, base),
    )  # fmt: skip
    run_card(base, algo["chain"], chain).save(out)
    return run


def run_id(constants: Mapping[str, Any]) -> str:
    """Return the name of what a run's weights fit."""
    return "ppo-" + hashlib.sha256(json.dumps(constants, sort_keys=True).encode()).hexdigest()[:16]


def _demonstrations(config: DictConfig, chain: DenoisingChain, base: ModelCard) -> BatchLoader | None:
    if not config.algo.ppo.bc_weight > 0:
        return None
    window = WindowSpec(n_obs=chain.n_obs, horizon=chain.horizon, action_offset=chain.action_offset)
    dataset = WindowDataset(demonstrations(config), window, obs_names=list(base.spec.obs))
    return BatchLoader(dataset, int(config.algo.demonstration_batch), seed=int(config.seed), prefetch=0)


def _success(config: DictConfig, envs: list[Env], chain: DenoisingChain, base: ModelCard) -> dict[str, float]:
    """Return the success of the chain on the evaluation seeds, without its noise and with it."""
    from policies.torch_policy import TorchBatchPolicy

    first, n = int(config.search.first_seed), int(config.finetune.eval_episodes)
    policy = TorchBatchPolicy(chain, base.spec, n_execute=base.n_execute)
    found = {}
    for name, how in (("eval/success", still), ("eval/success_exploring", explore)):
        with how(chain):
            results = run_lockstep(envs, policy, range(first, first + n), max_steps=config.finetune.max_steps)
        found[name] = sum(result.success for result in results) / n
    return found


def train(config: DictConfig, console: Console) -> None:
    """Play and learn to the end of the run; the same command goes on where it stopped.

    Raises:
        TrainingError: A loss is not finite; the weights of the last whole iteration stand.
    """
    with numeric_threads(int(config.finetune.threads)), InterruptFlag() as interrupt, bar(console) as progress:
        task = progress.add_task("fine-tuning", total=int(config.finetune.steps))
        recent: list[bool] = []

        def watch(run: OnlineRun, played: Played | None) -> None:
            recent.extend([] if played is None else [played.success])
            share = 100 * sum(recent[-20:]) / max(1, len(recent[-20:]))
            done = min(run.played, int(config.finetune.steps))  # the last iteration is played to its end
            progress.update(task, completed=done, description=f"fine-tuning, last episodes {share:.0f} %")

        envs = make_envs(config)
        try:
            run = make_run(config, envs)
            try:
                run.run(stop=lambda: interrupt.raised, watch=watch)
                head = leave_head(config, run.ppo) if run.finished else None
            finally:
                run.close()
        finally:
            for env in envs:
                env.close()
        if interrupt.raised:
            raise KeyboardInterrupt
        if head is not None:
            console.print(f"its one-step head: {head}")
        if recent and not any(recent):
            console.print(
                f"[yellow]none of the {len(recent)} episodes succeeded, so that nothing was learned[/yellow]: this "
                "needs a base that succeeds now and then with its noise; train it on more, or make the task easier"
            )


def judge(config: DictConfig, console: Console) -> dict[str, EvaluationSummary]:
    """Evaluate the tuned policy without its noise and with it, its head, and the base, on the same unseen seeds."""
    out = str(config.finetune.out)
    digest = read_state(Path(out) / CHECKPOINTS / "last")["files"]["ema.safetensors"][:12]
    id = f"{run_id(run_constants(config))}@{digest}"
    subjects = {
        "fine-tuned": Subject(id, partial(torch_policy, out), videos=True),
        "exploring": Subject(f"{id}-exploring", partial(exploring_policy, out, plain(config.algo.chain))),
        "base": Subject(identify(config.base), partial(torch_policy, str(config.base))),
    }
    if config.algo.head_lr is not None:
        subjects["one-step head"] = Subject(f"{id}-head", partial(torch_policy, f"{out}/{HEAD}"))
    return judge_all(config, subjects, Path(out), console)


def run(config: DictConfig, console: Console) -> dict[str, EvaluationSummary]:
    """Fine-tune, evaluate, and write summary.json and report.html; the same command continues a run.

    Raises:
        ConfigError: A role of its own is asked for: playing and learning take turns here.
    """
    if config.finetune.role != "both":
        raise ConfigError(
            f"algo={config.algo.name} learns only from what its present weights played, so one process does both by "
            f"turns; leave finetune.role=both, got {config.finetune.role!r}"
        )
    check_online(config)
    train(config, console)
    summaries = judge(config, console)
    out = Path(config.finetune.out)
    write_outcome(
        out, summaries, console, facts={"base": identify(config.base), "finetune": plain(config.finetune)},
        title=f"Fine-tuning of {config.task.name} by {config.algo.name}", subtitle=summaries["fine-tuned"].headline(),
        sections=sections(out, summaries, config),
    )  # fmt: skip
    return summaries
