"""Benchmarks: ours beside the rivals that are installed, in one process, results checked."""

from gpunet.extras import need

need("a benchmark", "msgspec")
