"""The watch names a trouble once when it begins, with the setting to change."""
import json

import pytest
from drawn_codes import conditions, tiny_training

from prior.model import PriorConfig
from prior.watch import MEASUREMENTS, WINDOW, Watch
from tokenizer.tokens import TokenCorpus

USED = {"gap_label": 0.5, "gap_segmentation": 0.8}


@pytest.fixture
def watch(corpus: TokenCorpus) -> Watch:
    return Watch(PriorConfig.of(corpus, conditions=conditions("label", "segmentation")),
                 tiny_training("steps=9"))


def looks(watch: Watch, *figures: dict[str, float]) -> list[str]:
    return [line for each in figures for line in watch.look(each)]


def test_conditions_that_are_used_are_no_trouble(watch: Watch) -> None:
    assert looks(watch, *[USED] * 9) == []


def test_an_ignored_condition_is_named_after_several_measurements_and_once(watch: Watch) -> None:
    ignored = {**USED, "gap_segmentation": 0.0001}
    assert looks(watch, *[ignored] * (MEASUREMENTS - 1)) == []
    line, = looks(watch, ignored)
    assert line.startswith("the condition segmentation is ignored: with that of another row an "
                           "image costs 0.0006 bits more, where it could tell 12;")
    assert looks(watch, *[ignored] * 5) == []


def test_it_is_named_again_only_after_it_had_ended(watch: Watch) -> None:
    ignored = {**USED, "gap_label": -0.01}
    assert len(looks(watch, *[ignored] * MEASUREMENTS, USED, *[ignored] * MEASUREMENTS)) == 2


def test_a_second_ignored_condition_is_named_too(watch: Watch) -> None:
    looks(watch, *[{**USED, "gap_label": 0.0}] * MEASUREMENTS)
    line, = looks(watch, *[{"gap_label": 0.0, "gap_segmentation": 0.0}] * MEASUREMENTS)
    assert "segmentation" in line and "label" not in line


def test_a_little_is_much_for_a_label_and_little_for_a_map(watch: Watch) -> None:
    # 0.03 bits an image: of the one bit of a label enough, of the twelve of a map not.
    figures = {"gap_label": 0.005, "gap_segmentation": 0.005}
    line, = looks(watch, *[figures] * MEASUREMENTS)
    assert "segmentation" in line


def test_coordinates_tell_no_more_than_two_of_their_codes(corpus: TokenCorpus) -> None:
    config = PriorConfig.of(corpus, conditions=conditions("coordinates"))  # six codes of 10 bits
    for gap, lines in ((0.04, 0), (0.03, 1)):
        watch = Watch(config, tiny_training("steps=9"))
        found = looks(watch, *[{"gap_coordinates": gap}] * MEASUREMENTS)
        assert len(found) == lines and all("it could tell 20;" in line for line in found)


def test_a_loss_that_rises_is_named_with_the_rate(watch: Watch) -> None:
    assert looks(watch, *[{"bits": 2.0}] * (2 * WINDOW)) == []
    lines = looks(watch, *[{"bits": 2.6}] * WINDOW)
    assert len(lines) == 1 and "from 2.000; lower training.optimizer.learning_rate (now 0.005)" in \
        lines[0]


def test_a_loss_that_falls_is_no_trouble(watch: Watch) -> None:
    assert looks(watch, *[{"bits": 3.0 - step / 20} for step in range(40)]) == []


def test_a_continued_watch_says_the_same(watch: Watch) -> None:
    figures = [{**USED, "gap_label": 0.0, "bits": 2.0 + step} for step in range(12)]
    straight = Watch(watch.config, watch.training)
    expected = looks(straight, *figures)
    said = looks(watch, *figures[:5])
    again = Watch(watch.config, watch.training)
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert said + looks(again, *figures[5:]) == expected and len(expected) == 2
