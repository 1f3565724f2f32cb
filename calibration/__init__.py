"""Calibration of cameras, hand-eye and latency."""
