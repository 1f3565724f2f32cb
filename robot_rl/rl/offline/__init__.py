"""Improvement of a denoising policy from stored episodes alone, behind a gate that reverts what it cannot prove."""
