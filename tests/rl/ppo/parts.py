"""A small chain for the point on a line of `tests.rl.reach`, and all that fine-tuning it needs."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from policies.chain import DenoisingChain
from policies.diffusion import DiffusionModel
from policies.encoders import StateEncoder
from policies.mlp import ResidualMLP
from robot_rl.chain_step import ChainNoise
from robot_rl.data.memory import MemorySink
from robot_rl.data.store import EpisodeStore
from robot_rl.rl.ppo.objective import ChainClip
from robot_rl.rl.ppo.online import PpoOnline
from robot_rl.rl.ppo.rollouts import Player, chain_extras
from robot_rl.rl.ppo.run import OnlineRun, RunSettings
from robot_rl.rl.ppo.settings import PpoSettings
from robot_rl.rl.ppo.value import StateValue
from tests.policies.helpers import field_stats
from tests.rl.reach import SPEC, Reach

STATS = {"x": field_stats([-1], [1]), "action": field_stats([-1], [1])}
N_STEPS, HORIZON, N_EXECUTE = 5, 3, 2


def make_chain(*, n_tuned=None, horizon=HORIZON, std_min=0.05, std_max=0.2, seed=0) -> DenoisingChain:
    torch.manual_seed(seed)
    denoiser = partial(ResidualMLP, width=32, n_blocks=1, time_dim=8, context_dim=16)
    model = partial(DiffusionModel, encoder=StateEncoder, denoiser=denoiser, n_obs=2, horizon=horizon, n_steps=N_STEPS)
    noise = ChainNoise(std_min=std_min, std_max=std_max)
    return DenoisingChain(SPEC, STATS, model=model, noise=noise, n_tuned=n_tuned).eval()


def make_ppo(chain=None, **settings) -> PpoOnline:
    chain = make_chain() if chain is None else chain
    torch.manual_seed(1)
    given = {"n_execute": N_EXECUTE, "minibatch": 16, "epochs": 2, "gamma": 0.9, "actor_lr": 1e-3, "critic_lr": 1e-3}
    chosen = PpoSettings(**{**given, "clip": ChainClip(), "kl_stop": 1e9, "warm_up_updates": 0, **settings})
    return PpoOnline(chain, StateValue(chain.encoder, hidden=(16,)), chosen)


def make_sink(chain) -> MemorySink:
    return MemorySink(SPEC, extra=chain_extras(chain))


def make_player(chain, sink=None, *, envs=None, n_execute=N_EXECUTE, **settings) -> Player:
    envs = [Reach(), Reach(), Reach()] if envs is None else envs
    sink = make_sink(chain) if sink is None else sink
    return Player(envs, chain, SPEC, n_execute=n_execute, sink=sink, **settings)


def make_run(folder, *, episodes=4, total_steps=60, evaluate=None, **settings) -> OnlineRun:
    ppo = make_ppo(**settings)
    place = folder / "store"
    store = (
        EpisodeStore.open(place)
        if EpisodeStore.exists(place)
        else EpisodeStore.create(place, SPEC, extra=chain_extras(ppo.chain))
    )
    return OnlineRun(
        ppo, make_player(ppo.chain, store), store, folder, RunSettings(total_steps=total_steps, episodes=episodes),
        belongs_to="reach", constants={"lr": ppo.settings.actor_lr}, evaluate=evaluate,
    )  # fmt: skip


def weights(module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
