"""Jobs killed with SIGKILL and run again, a few of the many of ``make test-faults``."""
import random
from collections.abc import Iterator

import pytest
from clusters import DaskCluster
from faults import BUCKETS, KINDS, NUM_SHARDS, Kind, Moment, Outcome, Scene, report


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, dask: DaskCluster) -> Iterator[Scene]:
    yield Scene(tmp_path_factory.mktemp("faults"), dask)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [
    Kind("local", 2, "worker"), Kind("local", 1, "driver", BUCKETS),
    Kind("dask", 1, "all", BUCKETS)], ids=str)
def test_what_is_killed_and_run_again_ends_in_the_same_bytes(scene: Scene, kind: Kind) -> None:
    outcome = scene.run(kind, random.Random(7))
    assert outcome.wrong == "" and 0 <= outcome.num_done < NUM_SHARDS


def test_moments_are_drawn_from_the_seed_alone() -> None:
    first, again = ([Moment.drawn(random.Random(3)) for _ in range(2)] for _ in range(2))
    assert first == again and 0 <= first[0].num_done < NUM_SHARDS


def test_the_table_counts_what_differs() -> None:
    outcomes = [(KINDS[0], Outcome(3, ""), 1.0), (KINDS[0], Outcome(9, "1 files differ"), 2.0)]
    assert report(outcomes).splitlines()[2:] == [
        f"| local, 1 | driver | 2 | 3 to 9 of {NUM_SHARDS} | 1 of 2 | 1.5 |"]
