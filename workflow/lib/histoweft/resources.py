"""What a job asks of a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def memory(base: float, per_input_mb: float = 0.0) -> Callable[..., int]:
    """Return a mem_mb function: a base plus a factor of the input size, doubled at each further attempt.

    Parameters
    ----------
    base
        MB that the rule takes on the smallest input. Snakemake's own two processes in a cluster job take about 280.
    per_input_mb
        MB for each MB of input files.
    """

    def mem_mb(wildcards: Any, input: Any, attempt: int) -> int:
        return int((base + per_input_mb * input.size_mb) * 2 ** (attempt - 1))

    return mem_mb
