"""How the threads of a training wait for each other: decided here, before torch loads.

By default each waits in a busy loop, which a machine of one's own rewards. Beside any other work
it keeps the cores from those that are waited for, and two trainings slow each other ten times and
more. A variable that the user has set stands.
"""
import os

SPIN_COUNT = 1000
"""Turns of the busy loop after which a waiting thread sleeps until it is woken."""

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables in which a user may have chosen; the second one outweighs the first."""


def share_cores() -> None:
    """Let waiting threads give up their core soon; to be called before torch is imported.

    OpenMP reads the variable once, when it is loaded. It is that of the GNU library, which torch
    brings along on Linux; others take no notice.
    """
    if not any(name in os.environ for name in CHOICES):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
