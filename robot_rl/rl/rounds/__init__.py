"""Rounds of offline improvement, playing and imitation, what a run of them remembers and collects."""
