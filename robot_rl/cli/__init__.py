"""Composition roots, one per command."""
