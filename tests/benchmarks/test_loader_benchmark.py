"""The contest of loaders: each goes over the same codes, and its speed is told beside ours."""
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(os, "environ", {**os.environ})  # to which it adds
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import loader
    return loader


def test_every_loader_gives_each_row_once_an_epoch_in_another_order(loader: ModuleType,
                                                                    tmp_path: Path) -> None:
    corpus = loader.write_corpus(str(tmp_path / "tokens"), 256)
    stored = torch.tensor([row for table in corpus.tables(["image_codes"])
                           for row in table["image_codes"].to_pylist()])
    found = loader.contenders(corpus, str(tmp_path))
    assert {"windows", "cache", "datasets stream numpy", "datasets arrow torch"} <= found.keys()
    for name, epoch in found.items():
        loader.warm_up(name, epoch(), int(stored.sum()))
        first, second = (list(epoch()) for _ in range(2))
        assert [tuple(batch.shape) for batch in first] == 4 * [(64, 256)], name
        orders = [torch.cat(batches) for batches in (first, second)]
        assert not torch.equal(*orders) and not torch.equal(orders[0], stored), name
        for order in orders:
            assert sorted(order.tolist()) == sorted(stored.tolist()), name


def test_codes_of_another_sum_or_type_stop_the_contest(loader: ModuleType) -> None:
    codes = torch.ones(2, 256, dtype=torch.int64)
    loader.warm_up("sound", [codes], 512)
    with pytest.raises(SystemExit, match="codes of short add up to 256, those of the corpus to 5"):
        loader.warm_up("short", [codes[:1]], 512)
    with pytest.raises(SystemExit, match=r"narrow gives torch.int16 of shape \(2, 256\)"):
        loader.warm_up("narrow", [codes.short()], 512)


def test_packages_that_are_not_installed_are_named_with_the_way_to_install_them(
        loader: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    peers = loader.PEERS
    absent = type(peers["datasets"])("no_such_module", {}, ("--no-deps it", "what it needs"))
    monkeypatch.setitem(peers, "its-package", absent)
    for package in peers.keys() - {"its-package"}:
        monkeypatch.delitem(peers, package)
    assert loader.others(None, str(tmp_path)) == {}
    assert capsys.readouterr().out == ("left out: its-package is not installed; pip install "
                                       "--no-deps it && pip install what it needs\n")


def test_ratios_are_to_the_fastest_way_of_each_package(
        loader: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0

    def taking(seconds: float) -> Iterator[Tensor]:
        nonlocal now
        now += seconds
        yield torch.zeros(64, 256, dtype=torch.int64)
    seconds = {"windows": 2.0, "cache": 0.5, "litdata parquet": 8.0, "litdata tokens": 4.0}
    epochs = {name: (lambda value=value: taking(value)) for name, value in seconds.items()}
    loader.measure(epochs, 64, 0, 1, lambda: now)
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "beside the fastest way of litdata: windows 2.00x, cache 8.00x"
    assert told[1].split() == ["windows", "32", "1.00x", "4.00x"]
