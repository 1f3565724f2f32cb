"""Seeded rollouts, exact statistics, reports."""
