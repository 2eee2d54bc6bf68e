"""How PyTorch's trainers split layers over pipeline stages."""

from __future__ import annotations


def split_weighted(layers: int, stages: int, first: int, last: int) -> list[int]:
    """Return the layers of each stage where embedding and head count as `first` and `last` layers.

    The stages at the begin take what does not divide; the ends have their layers less.
    """
    each, more = divmod(layers + first + last, stages)
    split = [each + (i < more) for i in range(stages)]
    split[0] -= first
    split[-1] -= last
    return split


def split_evenly(layers: int, stages: int) -> list[int]:
    """Return the layers of each stage where the first ones take what does not divide."""
    each, more = divmod(layers, stages)
    return [each + (i < more) for i in range(stages)]
