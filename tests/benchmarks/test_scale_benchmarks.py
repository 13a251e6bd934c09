"""The benchmarks of scale run, at toy size, and what they say of files is so."""
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from written_corpora import write_corpus

from benchmarks import file_sizes, job_memory, plan_scale
from benchmarks.plan_scale import PHASES, Scale, run_phase
from tokenizer import receipts
from tokenizer.tokens import TokenCorpus


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    return Scale(url=str(tmp_path / "tokens"), num_keys=60, num_shards=6, receipts=2)


def test_every_phase_of_a_toy_corpus_finds_what_it_should(
        scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "FEWEST_SHARDS_TO_PACK", 6)
    figures = {name: run_phase(name, scale) for name in PHASES}
    assert all(found["peak_mib"] > 0 and found["seconds"] >= 0 for found in figures.values())
    assert figures["plan"]["keys"] == 60 and figures["plan"]["files"] == 2
    assert figures["resume"]["pending"] == 4
    assert figures["audit"]["rows"] == 60
    assert figures["again"]["receipts"] == 6
    assert figures["open"]["shards"] == 6
    corpus = TokenCorpus.open(scale.url)
    keys = [key for table in corpus.tables(["key"]) for key in table["key"].to_pylist()]
    assert keys == [entry.key for entry in plan_scale.entries(60)]


def test_a_phase_runs_in_a_process_of_its_own(scale: Scale,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    plan_scale.main(["--folder", scale.url, "--num-keys", "60", "--num-shards", "6",
                     "--receipts", "2", "--phase", "plan"])
    assert json.loads(capsys.readouterr().out)["keys"] == 60


@pytest.mark.parametrize(("keys", "shards", "done"), [(61, 6, 2), (60, 6, 6), (60, 6, 0)])
def test_sizes_that_do_not_fit_are_refused(keys: int, shards: int, done: int) -> None:
    with pytest.raises(ValueError, match="--num-keys must be a multiple"):
        Scale(url="tokens", num_keys=keys, num_shards=shards, receipts=done)


@pytest.mark.parametrize(("codebook_size", "rows", "limit"),
                         [(1024, 2048, 1.01), (16384, 8192, 1.02)])
def test_uniform_codes_take_little_more_than_their_bits(codebook_size: int, rows: int,
                                                        limit: float) -> None:
    codes = file_sizes.drawn(rows, 16, codebook_size)
    content = file_sizes.shard(codes, codebook_size)
    ratio = file_sizes.column_bytes(content) / codes.size / (np.log2(codebook_size) / 8)
    assert 1 < ratio <= limit


@pytest.mark.parametrize(("codebook_size", "best"), [(1024, "dictionary"),
                                                     (16384, "byte stream split")])
def test_shards_are_compared_with_other_encodings_of_their_codes(codebook_size: int,
                                                                 best: str) -> None:
    codes = file_sizes.drawn(512, 16, codebook_size)
    ratios = file_sizes.encoded(codes, codebook_size)
    assert min(ratios, key=ratios.__getitem__) == best
    content = file_sizes.shard(codes, codebook_size)
    least = codes.size * np.log2(codebook_size) / 8
    assert ratios["dictionary"] == round(file_sizes.column_bytes(content) / least, 4)


def test_codes_of_a_corpus_are_compared_in_the_same_way(tmp_path: Path) -> None:
    codes = file_sizes.drawn(9, 4, 1024)
    write_corpus(tmp_path, codes, 1024)
    sorted((tmp_path / "data").iterdir())[2].unlink()  # no more shards are read than are needed
    assert file_sizes.stored(str(tmp_path), 6) == {"image": file_sizes.encoded(codes[:6], 1024)}


def test_other_formats_hold_the_same_rows() -> None:
    codes = file_sizes.drawn(5, 4, 1024)
    assert np.array_equal(np.load(io.BytesIO(file_sizes.npy(codes))), codes)
    with tarfile.open(fileobj=io.BytesIO(file_sizes.webdataset(codes))) as archive:
        assert archive.getnames() == [f"{file_sizes.key(row)}.npy" for row in range(5)]
        grids = [np.load(io.BytesIO(archive.extractfile(member).read()))
                 for member in archive.getmembers()]
    assert np.array_equal(grids, codes)
    shard = file_sizes.mds(codes)
    offsets = np.frombuffer(shard, np.uint32, 6, 4)
    assert offsets[-1] == len(shard)
    row = shard[offsets[3]:offsets[4]]
    assert np.array_equal(np.frombuffer(row, np.uint16, 16, 4).reshape(4, 4), codes[3])
    assert row[36:].decode() == file_sizes.key(3) and len(row) == 36 + row[0]


def test_the_job_for_its_memory_encodes_every_image(tmp_path: Path) -> None:
    figures = job_memory.measure(tmp_path, [3, 6], per_folder=4)
    assert [job["images"] for job in figures["jobs"]] == [3, 6]
    assert 0.5 < figures["ratio"] < 1.5
    assert sorted(path.name for path in (tmp_path / "images-6").iterdir()) == ["00000", "00001"]
