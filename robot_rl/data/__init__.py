"""Episodes on disk and in memory: store, alignment, windows, foreign formats."""
