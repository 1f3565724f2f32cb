"""Reinforcement learning from the episode store: off-policy residuals, interventions as reward, learner and actor."""
