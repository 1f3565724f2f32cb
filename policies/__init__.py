"""Encoders, denoisers and chunk models."""
