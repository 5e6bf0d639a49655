"""Benchmarks: ours beside the rivals that are installed, in one process, results checked."""
