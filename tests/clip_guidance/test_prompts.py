"""Prompts are read as written, and their losses are those of the published VQGAN-CLIP."""
import math

import pytest
import torch

from clip_guidance.prompts import (
    Prompt,
    chapters_of,
    check_course,
    parse_prompts,
    prompt_losses,
    similarities,
    spherical_distances,
    tell_story,
)


@pytest.mark.parametrize(("text", "expected"), [
    ("a red house", [("a red house", 1.0, -math.inf)]),
    (" a red house :2", [("a red house", 2.0, -math.inf)]),
    ("a red house:2:0.4 | fog:-0.5", [("a red house", 2.0, 0.4), ("fog", -0.5, -math.inf)]),
    ("a sign: stop:1:-inf", [("a sign: stop", 1.0, -math.inf)])])
def test_prompts_read_text_weight_stop(text: str, expected: list[tuple[str, float, float]]) -> None:
    assert [(prompt.text, prompt.weight, prompt.stop) for prompt in parse_prompts(text)] == expected


@pytest.mark.parametrize("prompt", [
    Prompt(text="a house"), Prompt(text="fog", weight=-0.5), Prompt(text="a: b"),
    Prompt(text="a", weight=2, stop=-0.25)])
def test_a_described_prompt_can_be_read_again(prompt: Prompt) -> None:
    assert parse_prompts(prompt.describe()) == (prompt,)


@pytest.mark.parametrize(("text", "message"), [
    ("", "needs words"), ("  ", "needs words"), (":2", "needs words"), ("house | ", "needs words"),
    ("house:heavy", "numbers, got 'house:heavy'"), ("house:1:x", "numbers, got 'house:1:x'"),
    ("house:0", "other than 0, got 0"), ("house:nan", "got nan"), ("house:inf", "got inf"),
    ("house:1:nan", "stop of a prompt is a number"), ("house:", "numbers, got 'house:'")])
def test_a_bad_prompt_is_shown_with_the_rule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompts(text)


def test_distances_are_half_the_squared_angle() -> None:
    angles = torch.tensor([0.0, 0.5, math.pi / 2, 3.0])
    embeddings = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    found = spherical_distances(embeddings, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(found, angles.square() / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("embedding", [[1.0, 0.0], [-1.0, 0.0]])
def test_gradients_are_finite_at_the_ends(embedding: list[float]) -> None:
    embeddings = torch.tensor([embedding], requires_grad=True)
    spherical_distances(embeddings, torch.tensor([1.0, 0.0])).sum().backward()
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_negative_weights_push_away_and_stops_end_the_pull() -> None:
    embeddings = torch.tensor([[1.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0]])
    distance = (math.pi / 4) ** 2 / 2
    gradients = {}
    for prompt in (Prompt(text="a"), Prompt(text="a", weight=-2.0),
                   Prompt(text="a", stop=distance * 1.1), Prompt(text="a", stop=distance * 0.9),
                   Prompt(text="a", weight=-1, stop=-distance * 0.9)):
        loss = prompt_losses(embeddings, targets, (prompt,)).sum()
        assert loss.item() == pytest.approx(prompt.weight * distance, rel=1e-5)
        gradients[prompt.describe()], = torch.autograd.grad(loss, embeddings)
    pull, push, stopped, pulling, pushed = gradients.values()
    torch.testing.assert_close(push, -2 * pull)
    torch.testing.assert_close(pulling, pull)
    assert not stopped.any() and not pushed.any() and pull.any()


def test_similarities_are_cosines_to_every_prompt() -> None:
    found = similarities(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0], [0, 3.0]]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [half, half]]))


@pytest.mark.parametrize(("text", "file", "weight", "stop"), [
    ("@photo.jpg", "photo.jpg", 1.0, -math.inf), ("@photo.JPG:-2", "photo.JPG", -2.0, -math.inf),
    ("@a b.png:2:0.4", "a b.png", 2.0, 0.4), (r"@C:\pics\a.png", r"C:\pics\a.png", 1.0, -math.inf),
    (r"@C:\pics\a.png:0.5", r"C:\pics\a.png", 0.5, -math.inf),
    ("@1:2.png", "1:2.png", 1.0, -math.inf),
    ("@s3://bucket/1:2.png:3:-inf", "s3://bucket/1:2.png", 3.0, -math.inf)])
def test_a_picture_is_a_prompt_whatever_colons_its_name_has(text: str, file: str, weight: float,
                                                            stop: float) -> None:
    prompt, = parse_prompts(text)
    assert (prompt.file, prompt.weight, prompt.stop) == (file, weight, stop)
    assert parse_prompts(prompt.describe()) == (prompt,)


@pytest.mark.parametrize(("text", "message"), [
    ("@", "names an image file, as in '@photo.jpg:0.5', got '@'"),
    ("@notes.txt", "got '@notes.txt'"),
    ("@photo.jpg:heavy", "numbers, got '@photo.jpg:heavy'"), ("@photo.jpg:0", "other than 0"),
    ("@photo.jpg:1:2:3", "got '@photo.jpg:1'"), ("@photo.jpg:nan", "got nan")])
def test_a_prompt_that_is_no_picture_is_shown_with_the_rule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompts(text)


def spans(prompts: tuple[Prompt, ...]) -> list[tuple[str, int, int | None]]:
    return [(prompt.text, prompt.begin, prompt.end) for prompt in prompts]


def test_chapters_of_a_story_follow_one_another_and_the_last_stays() -> None:
    told = tell_story(["a | b:2", "c", "d"], 100, every=20)
    assert spans(told) == [("a", 0, 20), ("b", 0, 20), ("c", 20, 40), ("d", 40, None)]
    assert [told[2].acts_at(step) for step in (19, 20, 39, 40)] == [False, True, True, False]
    assert chapters_of(told) == {0: "a | b:2", 20: "c", 40: "d"}


def test_chapters_have_equal_parts_of_the_steps_unless_said_otherwise() -> None:
    assert spans(tell_story(["a", "b", "c"], 100)) == [("a", 0, 33), ("b", 33, 66), ("c", 66, None)]
    assert tell_story(["a:2"], 100) == parse_prompts("a:2")
    assert chapters_of(parse_prompts("a | b:-1")) == {0: "a | b:-1"}


@pytest.mark.parametrize(("chapters", "steps", "every"), [(3, 2, None), (3, 100, 50), (2, 9, 9)])
def test_a_story_that_would_not_end_is_refused(chapters: int, steps: int,
                                               every: int | None) -> None:
    with pytest.raises(ValueError, match=f"{chapters} prompts, one every .* the {steps} steps"):
        tell_story(["a"] * chapters, steps, every)


@pytest.mark.parametrize(("prompts", "message"), [
    ((), "none acts at step 0"), ((Prompt(text="a", begin=5),), "none acts at step 0"),
    ((Prompt(text="a", end=5), Prompt(text="b", begin=6)), "none acts at step 5"),
    ((Prompt(text="a", end=11),), "none acts at step 11"),
    ((Prompt(text="a"), Prompt(text="b", begin=10)), "begin at step 10 of 10.*let 'b' begin")])
def test_steps_without_a_prompt_and_prompts_without_a_step_are_refused(
        prompts: tuple[Prompt, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_course(prompts, 10)


@pytest.mark.parametrize(("begin", "end"), [(-1, None), (3, 3), (3, 1)])
def test_a_prompt_acts_from_a_step_to_a_later_one(begin: int, end: int | None) -> None:
    with pytest.raises(ValueError, match=f"got {begin} to {end} for 'a'"):
        Prompt(text="a", begin=begin, end=end)


@pytest.mark.parametrize(("text", "shown"), [
    ("fog:0.5", "fog:0.5"), ("fog:2:-inf", "fog:2"), ("fog:0.1234567", "fog:0.1234567"),
    ("fog:-0.10000001:-0.123456789", "fog:-0.10000001:-0.123456789")])
def test_prompts_are_described_by_as_many_digits_as_they_need(text: str, shown: str) -> None:
    prompt, = parse_prompts(text)
    assert prompt.describe() == shown and parse_prompts(shown) == (prompt,)
