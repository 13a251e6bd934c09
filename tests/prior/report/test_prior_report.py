"""The whole evaluation of a prior: figures with their conditions, files, and what is left out."""
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_codes import CORPUS, GRID, conditions, write_corpus
from pictured_codes import SIDE, Reading, decoders
from PIL import Image

from prior.dataset import CodeRows
from prior.evaluation import held_out_bits
from prior.generate import Generation
from prior.guidance import Guidance
from prior.model import Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.report.evaluate import PriorEvaluationConfig, Sight, evaluate_prior
from prior.report.report import PICTURE, RESULTS, PriorReport, drawing_words
from prior.samplers import GreedySampler, RandomSampler
from prior.sampling import SamplingConfig, describe_generation
from prior.transformer import Transformer
from tokenizer.evaluation import inception
from tokenizer.evaluation.frechet import FeatureStatistics, frechet_distance
from tokenizer.evaluation.inception_score import inception_score
from tokenizer.evaluation.manifolds import precision_recall
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

Trained = tuple[TokenCorpus, str]

SAMPLING = SamplingConfig(num=20, seed=3, generation=Generation(
    batch_size=20, sampler=RandomSampler(temperature=0.9, top_k=4)))
CONFIG = PriorEvaluationConfig(sampling=SAMPLING)


def evaluate(prior: Prior, trained: Trained, out: Path,
             config: PriorEvaluationConfig = CONFIG, sight: Sight | None = None,
             corpus: TokenCorpus | None = None,
             training: TokenCorpus | None = None) -> PriorReport:
    return evaluate_prior(prior, trained[1], corpus or trained[0], str(out), config, sight,
                          training)


def test_every_figure_stands_with_its_conditions(prior: Prior, trained: Trained,
                                                 tmp_path: Path) -> None:
    report = evaluate(prior, trained, tmp_path)
    data = json.loads((tmp_path / RESULTS).read_text())
    assert data["figures"].keys() == report.figures.keys() and data == report.to_dict()
    for name, figure in data["figures"].items():
        conditions = figure["conditions"]
        assert conditions["prior"] == prior.fingerprint and conditions["corpus"] == CORPUS, name
        assert conditions["precision"] == "float32 without TF32, on cpu"
        assert conditions["reference"] == data["corpus"]["reference"]
        if not name.startswith(("bits", "gap")):
            assert conditions["num_images"] == 20
            assert conditions["drawing"]["seed"] == 3
            sampler = conditions["drawing"]["generation"]["sampler"]
            assert (sampler["temperature"], sampler["top_k"]) == (0.9, 4)
            assert conditions["drawing"]["generation"]["guidance"] == 1.0
    assert data["corpus"]["num_rows"] == data["figures"]["gap"]["conditions"]["num_rows"] == 10
    assert data["prior"].keys() == {"path", "fingerprint"} and "trained on" not in report.table()


def test_the_filter_of_the_training_is_told(prior: Prior, trained: Trained, tmp_path: Path) -> None:
    config = dataclasses.replace(prior.config, row_filter="label == 1")
    report = evaluate(dataclasses.replace(prior, config=config), trained, tmp_path)
    assert report.to_dict()["prior"]["filter"] == "label == 1"
    assert report.table().splitlines()[0].endswith(", trained on rows for which label == 1")
    assert report.corpus["selection"].endswith(", for which label == 1")


@pytest.mark.parametrize(("drawing", "words"), [
    ({}, "as is not known"),
    ({"seed": 0, "samples_each": 1, "conditions": [], "num_kept": 0}, "given nothing, seed 0"),
    ({"seed": 3, "samples_each": 4, "best_of": 8, "conditions": ["label", "depth"]},
     "given label and depth, seed 3, samples-each 4, best-of 8"),
    ({"seed": 0, "num_kept": 8}, "given nothing, seed 0, first 8 codes kept"),
    ({"seed": None, "conditions": 3, "hole": 7}, "given nothing, seed None"),
    ({"seed": 0, "num_kept": 64, "hole": [1, 2, 5]}, "given nothing, seed 0, a hole of 3 cells")])
def test_how_samples_were_drawn_is_told_in_words(drawing: dict[str, object], words: str) -> None:
    generation = {"generation": describe_generation(Generation())} if drawing else {}
    assert drawing_words({**drawing, **generation}) == words


@pytest.mark.parametrize(("generation", "words"), [
    (SAMPLING.generation, "temperature 0.9, top-k 4, batch-size 20"),
    (Generation(sampler=GreedySampler(), guidance=Guidance(scale=2)), "sampler greedy, guidance 2"),
    (Generation(guidance=Guidance(scales={"label": 3.0}, schedule="cosine"), passes=2),
     "guidance scales label 3, guidance schedule cosine, passes 2")])
def test_settings_of_sampling_are_told_where_they_are_no_defaults(generation: Generation,
                                                                  words: str) -> None:
    found = drawing_words({"seed": 1, "generation": describe_generation(generation)})
    assert found == f"given nothing, seed 1, {words}"


def test_bits_are_those_of_the_held_out_rows(prior: Prior, trained: Trained,
                                             tmp_path: Path) -> None:
    figures = evaluate(prior, trained, tmp_path).figures
    rows = CodeRows.load(trained[0], ["image", "segmentation"])
    held_out = rows.select(rows.is_held_out(prior.config.split))
    bits = held_out_bits(prior.model, held_out, 10, 10, drop_each=True)
    values = {name: figure.value for name, figure in figures.items()}
    assert values["bits_per_code"] == pytest.approx(bits.matched, rel=1e-5)
    assert values["bits_per_image"] == pytest.approx(6 * bits.matched, rel=1e-5)
    assert values["bits_per_code_shuffled"] == pytest.approx(bits.shuffled, rel=1e-5)
    assert values["gap"] == pytest.approx(bits.scalars()["gap"], rel=1e-4)
    for name in ("label", "segmentation"):
        assert values[f"gap_{name}"] == pytest.approx(bits.scalars()[f"gap_{name}"], rel=1e-4)
        without = values[f"bits_per_code_without_{name}"]
        assert without == pytest.approx(bits.without_each[name], rel=1e-5)
        assert values["bits_per_code"] < without  # type: ignore[operator]


def test_the_same_evaluation_gives_equal_files_and_keeps_its_samples(
        prior: Prior, trained: Trained, tmp_path: Path) -> None:
    evaluate(prior, trained, tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in (RESULTS, PICTURE)}
    shard = next((tmp_path / "samples/data").iterdir())
    made = shard.stat().st_mtime_ns
    evaluate(prior, trained, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in first} == first
    assert shard.stat().st_mtime_ns == made
    other = dataclasses.replace(CONFIG, sampling=dataclasses.replace(SAMPLING, seed=4))
    with pytest.raises(ValueError, match="other samples"):
        evaluate(prior, trained, tmp_path, other)
    evaluate(prior, trained, tmp_path, dataclasses.replace(other, overwrite=True))
    assert (tmp_path / RESULTS).read_bytes() != first[RESULTS]


def test_samples_that_share_conditions_take_rows_from_everywhere(prior: Prior, trained: Trained,
                                                                 tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, sampling=dataclasses.replace(SAMPLING, num=6,
                                                                      samples_each=3))
    evaluate(prior, trained, tmp_path, config)
    sources = TokenCorpus.open(str(tmp_path / "samples")).read_shard(0)["source"].to_pylist()
    rows = CodeRows.load(trained[0], ["image"])
    held_out = np.flatnonzero(rows.is_held_out(prior.config.split))
    assert [int(source.rpartition("row=")[2]) for source in sources] == (
        [held_out[0]] * 3 + [held_out[5]] * 3)


def copies_of(prior: Prior, folder: Path) -> str:
    """The rows of training as if the prior had drawn them."""
    source = f"prior:{prior.fingerprint}#seed=0&index=0"
    return write_corpus(str(folder / "copies"), 200, source=source).url


def test_rows_of_training_given_as_samples_are_called_copies(prior: Prior, trained: Trained,
                                                             tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, samples=copies_of(prior, tmp_path))
    report = evaluate(prior, trained, tmp_path / "report", config)
    rows = CodeRows.load(trained[0], ["image"])
    flat, held_out = rows.codes["image"].reshape(200, -1), rows.is_held_out(prior.config.split)
    copies = (flat[:, None] == flat[~held_out]).all(-1).any(1)
    assert report.figures["memorised"].value == copies.sum() >= 190
    assert report.neighbours is not None
    assert all(pair["sample"] == pair["training"] and pair["share"] == 1.0
               for pair in report.neighbours["closest"][:1])
    assert report.samples["drawing"] == {} and "as is not known" in report.table()
    assert not (tmp_path / "report/samples").exists()


def test_another_corpus_is_measured_whole_and_rows_of_training_are_named(
        prior: Prior, trained: Trained, make_corpus: Callable[..., TokenCorpus],
        tmp_path: Path) -> None:
    other = make_corpus("other", 12, seed=9, fingerprint="sha256:other")
    report = evaluate(prior, trained, tmp_path, corpus=other)
    assert report.corpus["num_rows"] == 12 and report.neighbours is None
    assert "give the corpus that the prior was trained on" in report.left_out["memorised"]
    report = evaluate(prior, trained, tmp_path, corpus=other, training=trained[0])
    assert report.figures["memorised"].conditions["num_training"] == 190
    with pytest.raises(ValueError, match="is not a corpus that the prior was trained on"):
        evaluate(prior, trained, tmp_path, training=other)


def test_maps_read_off_samples_are_compared_with_those_given(prior: Prior, trained: Trained,
                                                             tmp_path: Path) -> None:
    sight = Sight(decoders=decoders(prior), estimators={"segmentation": Reading()})
    report = evaluate(prior, trained, tmp_path, sight=sight)
    figures = report.figures
    held_out, found = figures["segmentation_miou_held_out"], figures["segmentation_miou_samples"]
    assert held_out.value == 1.0 and held_out.conditions["num_images"] == 10
    samples = CodeRows.load(TokenCorpus.open(str(tmp_path / "samples")), ["image", "segmentation"])
    exact = (samples.codes["image"] // 2 == samples.codes["segmentation"]).mean()
    assert figures["segmentation_pixel_accuracy_samples"].value == pytest.approx(exact)
    assert found.value is not None and 0.5 < found.value <= 1.0
    others = figures["segmentation_miou_others"]
    assert others.value is not None and others.value < 0.5
    assert found.conditions["estimator"] == others.conditions["estimator"] == "drawn:reading"
    assert "fid" in report.left_out and report.left_out["fid"].startswith("no weights: give")


def test_an_estimator_of_another_size_is_refused(prior: Prior, trained: Trained,
                                                 tmp_path: Path) -> None:
    class Small(Reading):
        def __call__(self, pictures: np.ndarray) -> np.ndarray:
            return super().__call__(pictures)[:, ::2]

    sight = Sight(decoders=decoders(prior), estimators={"segmentation": Small()})
    with pytest.raises(ValueError, match=r"must be of shape \(20, 12, 8\), got \(20, 6, 8\)"):
        evaluate(prior, trained, tmp_path, sight=sight)


class Coarse(torch.nn.Module):
    """Twelve features of a picture: its colours in 2 x 2 parts."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1) / 255


def features(codes: np.ndarray, prior: Prior) -> np.ndarray:
    pixels = torch.from_numpy(decoders(prior)["image"].decode(codes)).permute(0, 3, 1, 2)
    return Coarse()(pixels).numpy()


def test_figures_over_features_are_those_of_their_functions(
        prior: Prior, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(inception, "load_inception", lambda place: Coarse())
    monkeypatch.setattr(inception, "load_head", lambda place: head)
    (tmp_path / "weights.pth").write_bytes(b"weights")
    report = evaluate(prior, trained, tmp_path, sight=Sight(
        decoders=decoders(prior), inception=str(tmp_path / "weights.pth")))
    samples = CodeRows.load(TokenCorpus.open(str(tmp_path / "samples")), ["image"])
    rows = CodeRows.load(trained[0], ["image"])
    sets = [features(codes.codes["image"], prior) for codes in (
        samples, rows.select(rows.is_held_out(prior.config.split)))]
    statistics = [FeatureStatistics(12), FeatureStatistics(12)]
    for found, part in zip(statistics, sets, strict=True):
        found.add(part)
    figures = report.figures
    assert figures["fid"].value == pytest.approx(frechet_distance(*statistics), rel=1e-4)
    assert "10 images leave covariances" in figures["fid"].conditions["caution"]
    assert figures["fid"].conditions["num_reference"] == 10
    score = inception_score(sets[0] @ head.numpy().T, 1)[0]
    assert figures["inception_score"].value == pytest.approx(score, rel=1e-5)
    both = precision_recall(*map(torch.from_numpy, sets))
    assert (figures["precision"].value, figures["recall"].value) == both


def test_pictures_given_for_fid_take_the_place_of_held_out_rows(
        prior: Prior, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "load_inception", lambda place: Coarse())
    monkeypatch.setattr(inception, "load_head", lambda place: (_ for _ in ()).throw(
        ValueError("should hold fc.weight")))
    (tmp_path / "weights.pth").write_bytes(b"weights")
    given = np.random.default_rng(0).integers(0, 256, (6, 12, 8, 3)).astype(np.uint8)
    batches = iter([([f"p{row}" for row in range(6)], given)])
    report = evaluate(prior, trained, tmp_path, sight=Sight(
        decoders=decoders(prior), inception=str(tmp_path / "weights.pth"),
        reference=(batches, "images of photos")))
    conditions = report.figures["fid"].conditions
    assert (conditions["num_reference"], conditions["reference_images"]) == (6, "images of photos")
    assert report.left_out["inception_score"] == "should hold fc.weight"


def test_weights_that_are_not_there_are_told_before_anything_is_drawn(
        prior: Prior, trained: Trained, tmp_path: Path) -> None:
    sight = Sight(decoders=decoders(prior), inception=str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        evaluate(prior, trained, tmp_path, sight=sight)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_samples_beside_maps_and_nearest_rows(prior: Prior, trained: Trained,
                                                                tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, samples=copies_of(prior, tmp_path))
    evaluate(prior, trained, tmp_path, config, Sight(decoders=decoders(prior)))
    sheet = np.asarray(Image.open(tmp_path / PICTURE))
    factor = -(-96 // (GRID[1] * SIDE))
    height, width = GRID[0] * SIDE * factor, GRID[1] * SIDE * factor
    top, across = 4 + 14, width + 4
    sample, given, near = (sheet[top:top + height, 4 + place * across:4 + place * across + width]
                           for place in range(3))
    np.testing.assert_array_equal(sample, near)  # of a row of training given as a sample
    assert len(np.unique(given.reshape(-1, 3), axis=0)) <= 4
    assert sheet.shape[:2] == (4 * (height + 14 + 4) + 4 + 220, 800)  # two blocks of four


def test_without_decoders_codes_are_shown_as_cells(prior: Prior, trained: Trained,
                                                   tmp_path: Path) -> None:
    report = evaluate(prior, trained, tmp_path)
    assert Image.open(tmp_path / PICTURE).size[0] == 800
    assert report.left_out["fid"] == "no tokenizer to decode the images: give --tokenizer"
    assert report.left_out["segmentation_agreement"] == report.left_out["fid"]
    seen = evaluate(prior, trained, tmp_path, sight=Sight(decoders=decoders(prior)))
    assert seen.left_out["segmentation_agreement"].startswith("nothing reads this map")
    assert seen.left_out["fid"].startswith("no weights: give --inception")
    lines = report.table().splitlines()
    assert any(line.startswith("bits per code") and line.endswith("lower is better")
               for line in lines)


def test_of_one_sample_and_one_row_what_can_be_measured_is(
        prior: Prior, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "load_inception", lambda place: Coarse())
    monkeypatch.setattr(inception, "load_head", lambda place: torch.ones(5, 12))
    (tmp_path / "weights.pth").write_bytes(b"weights")
    config = dataclasses.replace(CONFIG, limit=1,
                                 sampling=dataclasses.replace(SAMPLING, num=1))
    report = evaluate(prior, trained, tmp_path, config, Sight(
        decoders=decoders(prior), estimators={"segmentation": Reading()},
        inception=str(tmp_path / "weights.pth")))
    assert report.left_out == {
        **dict.fromkeys(("bits_per_code_shuffled", "gap"), "one image is measured, and there are "
                        "no conditions of others: hold out or give more"),
        "segmentation_others": "all samples were given one segmentation map",
        "fid": "a covariance needs at least 2 images, got 1",
        **dict.fromkeys(("precision", "recall"),
                        "precision and recall need more than 3 images, got 1")}
    assert report.figures["inception_score"].value == pytest.approx(1.0)
    names = set(report.figures)
    assert "bits_per_code" in names and not names & {"gap", "segmentation_miou_others"}


def test_a_prior_told_of_coordinates_is_measured_without_them_too(
        trained: Trained, tmp_path: Path) -> None:
    config = PriorConfig.of(trained[0], conditions=conditions("label", "coordinates"),
                            split=Split(held_out=4), transformer=tiny().transformer)
    model = Transformer(config.transformer, config.layout).eval()
    report = evaluate(Prior(config, model, "sha256:untrained"), trained, tmp_path)
    assert report.figures["bits_per_code"].value == pytest.approx(3.0, abs=1e-4)
    assert {"gap_coordinates", "bits_per_code_without_coordinates"} <= report.figures.keys()
    assert not [name for name in report.left_out if "coordinates" in name]


def test_a_prior_without_a_code_for_nothing_tells_what_is_left_out(trained: Trained,
                                                                   tmp_path: Path) -> None:
    config = PriorConfig.of(trained[0], conditions=[Condition(name="label", dropout=0.0)],
                            drop_all=0.0, split=Split(held_out=4), sequence="taming",
                            transformer=tiny().transformer)
    model = Transformer(config.transformer, config.layout).eval()
    report = evaluate(Prior(config, model, "sha256:untrained"), trained, tmp_path)
    assert report.left_out["bits_per_code_without"] == (
        "the prior has no code for what is not given")


def test_a_report_is_not_written_into_a_corpus(prior: Prior, trained: Trained, tmp_path: Path,
                                                make_corpus: Callable[..., TokenCorpus]) -> None:
    other = make_corpus("other", 12, seed=9, fingerprint="sha256:other")
    of_samples = dataclasses.replace(CONFIG, samples=other.url)
    for settings in ({"corpus": other}, {"training": other}, {"config": of_samples}):
        with pytest.raises(ValueError, match="lies in the token corpus .*/other; choose another"):
            evaluate(prior, trained, Path(other.url) / "report", **settings)
    assert not (Path(other.url) / "report").exists()


@pytest.mark.parametrize("name", ["limit", "num_compared", "batch_size"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        PriorEvaluationConfig(**{name: 0})
