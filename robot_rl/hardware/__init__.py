"""Kinematics and drivers."""
