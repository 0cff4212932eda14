"""A batch that does not fit into memory: noticed, and one that does is found by trying."""

from collections.abc import Callable


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of jax or numpy says so; jax has no class of its own for it."""
    says = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in says)


def find_fitting_batch(step: Callable[[int], object], size: int, multiple: int) -> int | None:
    """The first half, quarter, ... of `size` whose step has memory enough; None if none has.

    Args:
        step: does a step with so many examples.
        size: what was too much.
        multiple: the number of devices, which divides the result.
    """
    while size := size // 2 // multiple * multiple:
        try:
            step(size)
            return size
        except (MemoryError, RuntimeError):  # a library within XLA may say only that it failed
            continue
    return None
