"""Proximal policy optimisation over the denoising chain: DPPO and RL-100's online stage from one code."""
