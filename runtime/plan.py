"""When to ask, what to commit, how many steps: the arithmetic that keeps the plan from running dry.

chunk      t0 ------------------ ask --------------- end      end = t0 + usable
request                          | latency |                  the answer must be there before the end,
ticks      |    |    |    |    |    |    |    |    |          and whoever asks waits for a tick to do it
rows       0 1 2 3 ...           0 1 2 | 3                    of the next chunk: 0 .. 3 are committed
"""

from __future__ import annotations

from math import floor

# Sums of times carry rounding, s.
_SAME = 1e-9


def ask_after(replan: float, usable: float, latency: float, period: float) -> float:
    """Seconds into a chunk after which to ask for the next one, >= 0.

    No later than the policy wants (`replan`), and early enough that an answer `latency` s after the
    request finds the chunk still running. The request itself waits up to a `period` for its tick.

    Args:
        usable: s of a chunk that may be executed, (chunk_length - 1) * dt or less.
    """
    return max(0.0, min(replan, usable - latency - period))


def delay_rows(latency: float, dt: float) -> int:
    """Rows of the next chunk that the running plan will have executed when the answer is there: the d of
    real-time chunking (arXiv 2506.07339, section 3).

    Row 0 is for the observation's own time. Until `latency` s later every row i with i * dt <= latency is
    used, and the one after it, because absolute rows interpolate (`ActionChunk.at`, which rounds a time
    just before a row up to it). Without latency nothing is committed.
    """
    return floor(latency / dt + 1e-6) + 2 if latency > 0 else 0


def steps_that_fit(time_left: float, fixed: float, step: float, least: int, most: int) -> int:
    """Denoising steps, from `least` to `most`, that end within `time_left` s; 0 when not even `least` do.

    Args:
        fixed: s of everything that is not a step.
        step: s of one step.
    """
    spare = time_left - fixed + _SAME
    if spare < least * step:
        return 0
    return most if spare >= most * step else max(least, floor(spare / step))
