"""The robot side: bundle in, actions out. Starts without torch."""
