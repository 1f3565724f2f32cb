"""The stages of `robot-rl finetune algo=rl100`, each in a folder of its own that a killed stage goes on in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from robot_rl.cli import finetune_head
from robot_rl.cli.config import build, plain
from robot_rl.cli.distill_teacher import is_head
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_flywheel_judge import Ring, told
from robot_rl.cli.finetune_offline import IMITATION, OfflineStage
from robot_rl.cli.model_card import trained_model
from robot_rl.cli.progress import bar
from robot_rl.cli.threads import numeric_threads
from robot_rl.cli.train_command import OF_THE_DATA, datasets
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import TrainingError
from robot_rl.imitation.checkpoint import read_state
from robot_rl.imitation.surroundings import InterruptFlag
from robot_rl.interfaces import Env, EpisodeSink
from robot_rl.rl.actor import Played
from robot_rl.rl.offline.gate import LOG, read_log
from robot_rl.rl.ppo.rollouts import Player
from robot_rl.rl.ppo.tunable import TunableChain
from robot_rl.rl.rounds.collection import SEEDS_OF_A_ROUND, Attempts, Composition, play_round, round_seeds
from robot_rl.rl.rounds.state import RunState, StageDone

if TYPE_CHECKING:
    from policies.chain import DenoisingChain

OFFLINE, CONTROL, ONLINE, HEAD = "offline", "control", "online", "head"


@dataclass(frozen=True)
class Work:
    """What every stage is given.

    Args:
        config: The command's configuration.
        store: The run's store.
        state: What is done so far.
        console: Where to speak.
    """

    config: DictConfig
    store: EpisodeStore
    state: RunState
    console: Console

    @property
    def algo(self) -> dict[str, Any]:
        """The `algo` node, plain values."""
        found: dict[str, Any] = plain(self.config.algo)
        return found

    @property
    def out(self) -> Path:
        """The run's folder."""
        return Path(self.config.finetune.out)

    @property
    def current(self) -> Path:
        """The policy that is gone on with: it plays, and later stages start from its weights."""
        found = self.state.policy()
        return Path(self.config.base) if found is None else found

    @property
    def standing(self) -> Path:
        """The policy that stands: the last one that a gate or a test accepted, and the base before there is one.

        Sampling with noise, to explore, costs a base success, so that the current policy may be the worse one.
        """
        taken = [stage for stage in self.state.done if stage.accepted]
        return self.state.folder / taken[-1].policy if taken else Path(self.config.base)

    @property
    def playable(self) -> bool:
        """Whether policies can be judged in a simulation."""
        return self.config.task.env is not None and not self.config.finetune.hardware

    def stage_config(self, folder: Path, *, algo: Mapping[str, Any] | None = None, **finetune: Any) -> DictConfig:
        """Return the configuration of a command that works on the current policy, with the run's data."""
        values = plain(self.config)
        if algo is not None:
            values["algo"] = dict(algo)
        values["base"] = values["run"] = str(self.current)
        values["store"] = self.store.url
        values["finetune"] |= {"out": str(folder), "demonstrations": None, **finetune}
        values["distill"] |= {"out": str(folder), "episodes": 0}
        return cast(DictConfig, OmegaConf.create(values))

    def kept(self, name: str, why: str, **facts: Any) -> StageDone:
        """Return a stage that leaves the current policy."""
        policy = self.state.done[-1].policy if self.state.done else str(Path(self.config.base).resolve())
        return StageDone(name=name, policy=policy, accepted=False, why=why, facts=facts)


def offline(work: Work, number: int) -> StageDone:
    """Improve the current policy on all data so far; its gate decides."""
    name = f"round_{number}/{OFFLINE}"
    stage = OfflineStage(work.stage_config(work.out / name, algo=work.algo["offline"]), work.console)
    with numeric_threads(int(work.config.finetune.threads)):
        stage.run()
    decisions = read_log(work.out / name / LOG)
    accepted = sum(bool(d["accepted"]) for d in decisions)
    return StageDone(
        name=name, policy=name, accepted=accepted > 0,
        why=f"the gate accepted {accepted} of {len(decisions)} candidates",
        facts={
            "data": asdict(Composition.of(work.store)), "ids": work.store.ids(), "accepted": accepted,
            "rejected": len(decisions) - accepted,
            "updates": int(read_state(work.out / name / "checkpoints" / "last")["step"]),
        },
    )  # fmt: skip


def ids_before(work: Work, number: int) -> set[str]:
    """Return the episodes that a round found in the store."""
    found = work.state.find(f"round_{number}/{OFFLINE}")
    assert found is not None
    return set(found.facts["ids"])


def play(work: Work, number: int) -> StageDone:
    """Play the current policy, with its noise, into the run's store."""
    rounds, f = work.algo["rounds"], work.config.finetune
    seeds = round_seeds(int(f.first_seed), number, int(rounds["episodes"]))
    card, model = trained_model(work.current)
    make_env = environment(work.config, f.latency)[1]
    with InterruptFlag() as interrupt, bar(work.console) as progress, numeric_threads(int(f.threads)):
        task = progress.add_task(f"round {number}: playing", total=len(seeds))
        envs: list[Env] = []

        def player(sink: EpisodeSink, attempt: int) -> Player:
            envs.extend(make_env() for _ in range(int(rounds["lanes"]) - len(envs)))
            return Player(
                envs, cast(TunableChain, model), card.spec, n_execute=card.n_execute, sink=sink,
                seed=int(work.config.seed), draw=attempt, task=work.config.task.description, max_steps=f.max_steps,
            )  # fmt: skip

        def begun(attempt: int, n: int) -> None:
            again = f" again, attempt {attempt + 1}" if attempt else ""
            progress.reset(task, total=n, description=f"round {number}: playing{again}")

        def shown(played: Played) -> None:
            progress.advance(task)

        try:
            attempts = play_round(
                player, work.store, seeds, f"rl100-round-{number}", before=ids_before(work, number),
                again=int(rounds["again"]), stop=lambda: interrupt.raised, on_attempt=begun, on_done=shown,
            )  # fmt: skip
        finally:
            for env in envs:
                env.close()
        if interrupt.raised:
            raise KeyboardInterrupt
    return _collected(work, number, attempts)


def collected(work: Work, number: int) -> StageDone | None:
    """Return the stage of playing if somebody else has played enough episodes into the store since; else `None`."""
    new = sorted(set(work.store.ids()) - ids_before(work, number))
    wanted = int(work.algo["rounds"]["episodes"])
    if len(new) >= wanted:
        return _collected(work, number, Attempts(tuple(new), ()))
    work.console.print(
        f"round {number}: play {wanted} episodes of {work.current} (`robot-rl package run={work.current}`), label "
        f"successes and failures, and append them to {work.store.url}, where {len(new)} new ones are so far: record "
        f"into it, or `robot-rl mend merge store={work.store.url} mend.other=<store> mend.apply=true`. Then run this "
        "command again; a lower algo.rounds.episodes goes on with fewer"
    )
    return None


def _collected(work: Work, number: int, attempts: Attempts) -> StageDone:
    made, again = (Composition.of(work.store, set(ids)) for ids in (attempts.first, attempts.again))
    why = f"{made.successes} of {made.episodes} episodes succeeded"
    if again.episodes:
        why += f"; {again.successes} of {again.episodes} further attempts at the scenes that failed"
    return work.kept(f"round_{number}/play", why, data=asdict(made), again=asdict(again))


def imitation(work: Work, number: int) -> StageDone:
    """Train the current policy by imitation on all data so far, and take it if it is shown to be not worse."""
    name, how = f"round_{number}/{IMITATION}", work.algo["rounds"]["imitate"]
    if how == "none":
        return work.kept(name, "left out: algo.rounds.imitate=none", updates=0)
    if not work.playable and work.algo["judge"]["without_simulation"] == "keep":
        return work.kept(name, "left out: no simulation to judge it in (algo.judge.without_simulation=keep)", updates=0)
    steps = int(work.algo["rounds"]["imitation"]["steps"])
    facts = {"updates": steps, "episodes": len(_imitated(work))}
    try:
        train(work, work.out / name, work.current, steps)
    except TrainingError as error:
        return work.kept(name, str(error), **facts)
    return judged(work, name, facts)


def _imitated(work: Work) -> list[str]:
    """Return the ids of the episodes to imitate."""
    successes = work.algo["rounds"]["imitate"] == "successes"
    return [entry.id for entry in work.store.entries() if not successes or entry.outcome == "success"]


def train(work: Work, folder: Path, start: Path, steps: int) -> None:
    """Train a chain by imitation of the run's data from where it is; its normaliser stays, bit by bit.

    Args:
        work: What there is.
        folder: The training run to leave.
        start: The training run to start from, whose policy is a chain.
        steps: Gradient steps.

    Raises:
        TrainingError: The loss is not finite.
    """
    from robot_rl.imitation.trainer import Trainer

    card, model = trained_model(start)
    chain, ids = cast("DenoisingChain", model), _imitated(work)
    window = {"n_obs": chain.n_obs, "horizon": chain.horizon, "obs": list(card.spec.obs)}
    config = cast(DictConfig, OmegaConf.merge(work.stage_config(folder), {"task": window}))
    data, held_out = datasets(config, work.store, ids)
    settings = {key: value for key, value in plain(config.train).items() if key not in OF_THE_DATA}
    settings |= {**work.algo["rounds"]["imitation"], "steps": steps}
    trainer = Trainer(
        chain.model, data, held_out, run_dir=folder, seed=int(config.seed), config={"policy": card.policy}, **settings
    )
    trainer.check_folder()
    replace(card, data_digest=work.store.digest()).save(folder)
    summary = trainer.fit(resume="auto")
    if summary.status == "interrupted":
        raise KeyboardInterrupt


def control(work: Work) -> StageDone:
    """Train the first policy by imitation alone, on the data of all rounds and for as many updates as they made."""
    if not work.playable:
        return work.kept(CONTROL, "left out: no simulation to compare in", updates=0)
    updates = sum(int(stage.facts.get("updates", 0)) for stage in work.state.done)
    train(work, work.out / CONTROL, work.out / f"round_0/{OFFLINE}" / IMITATION, updates)
    return work.kept(CONTROL, "a control: compared with, never taken", updates=updates, episodes=len(_imitated(work)))


def online(work: Work) -> StageDone:
    """Fine-tune the current policy by playing, and take the result if it is shown to be not worse."""
    from robot_rl.cli import finetune_ppo

    first = int(work.config.finetune.first_seed) + int(work.algo["rounds"]["n"]) * SEEDS_OF_A_ROUND
    config = work.stage_config(work.out / ONLINE, algo=work.algo["online"], first_seed=first)
    facts = {"steps": int(config.finetune.steps)}
    try:
        finetune_ppo.train(config, work.console)
    except TrainingError as error:
        return work.kept(ONLINE, str(error), **facts)
    return judged(work, ONLINE, facts)


def head(work: Work) -> StageDone:
    """Distil the policy that stands into a one-step head beside it, from the head that followed it, if there is one."""
    from robot_rl.cli import distill_command

    config, followed = work.stage_config(work.out / HEAD), work.standing / finetune_head.HEAD
    config.base = config.run = str(work.standing)
    if is_head(followed):
        config.distill.start = str(followed)
    summary = distill_command.run(config, work.console)
    if summary.status == "interrupted":
        raise KeyboardInterrupt
    return work.kept(HEAD, "beside the policy; `robot-rl package` certifies it", teacher=str(work.standing))


def judged(work: Work, name: str, facts: Mapping[str, Any]) -> StageDone:
    """Return a stage with the verdict on the policy in its folder against the one that stands."""
    taken = StageDone(name=name, policy=name, accepted=True, why="taken unjudged: there is no simulation", facts=facts)
    if not work.playable:
        return taken
    how = work.algo["judge"]
    ring = Ring(work.config, work.out / "judge", int(how["lanes"]), work.console)
    try:
        found = ring.duel(
            work.out / name, work.standing, build(how["test"]), first_seed=int(how["first_seed"]),
            block=int(how["block"]),
        )  # fmt: skip
    finally:
        ring.close()
    facts = {**facts, "judge": found.to_dict()}
    if found.verdict == "accept":
        return replace(taken, why=told(found), facts=facts)
    return work.kept(name, told(found), **facts)
