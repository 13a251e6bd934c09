"""Nothing in a file is executed, whatever it names and wherever; damaged files are named."""
import collections
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import taming_config
from published import LLAMAGEN, TAMING, Network, Shapes, draw, layout, maskgit_layout
from published_files import Hostile, write_lightning, write_llamagen, write_yaml

from tokenizer.importers.base import ImportOptions
from tokenizer.importers.files import open_source, read_settings
from tokenizer.importers.importing import import_tokenizer
from tokenizer.importers.pickles import read_pickled

NET = Network(blocks=1)
MASKGIT = Network(attention=(), middle_attention=False, z=6, code_dim=6)


def lightning(folder: Path, state: dict[str, Any], **surplus: Any) -> str:
    return write_lightning(folder / "last.ckpt", state, **surplus)


def llamagen(folder: Path, state: dict[str, Any], **surplus: Any) -> str:
    return write_llamagen(folder / "vq.pt", state, **surplus)


def plain(folder: Path, state: dict[str, Any], **surplus: Any) -> str:
    torch.save({**state, **surplus}, folder / "pytorch_model.bin")
    return str(folder / "pytorch_model.bin")


def diffusers_shapes() -> Shapes:
    """A few names that tell a diffusers model."""
    return {"encoder.down_blocks.0.resnets.0.conv1.weight": (32, 32, 3, 3),
            "decoder.conv_out.weight": (3, 32, 3, 3)}


FILES: dict[str, tuple[Callable[..., str], Shapes]] = {
    "taming": (lightning, layout(TAMING, NET)),
    "latent-diffusion": (lightning, layout(TAMING, NET)),
    "llamagen": (llamagen, layout(LLAMAGEN, NET)),
    "maskgit": (plain, maskgit_layout(MASKGIT)),
    "diffusers": (plain, diffusers_shapes())}


def test_the_hostile_object_runs_where_pickles_are_trusted(tmp_path: Path) -> None:
    file = plain(tmp_path, {}, extra=Hostile(tmp_path / "owned"))
    torch.load(file, weights_only=False)
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_object_beside_the_weights_does_not_run(tmp_path: Path, name: str) -> None:
    write, shapes = FILES[name]
    file = write(tmp_path, draw(shapes), extra=Hostile(tmp_path / "owned"))
    source = open_source(file)
    assert not (tmp_path / "owned").exists()
    assert source.tensors.keys() == shapes.keys()
    assert f"{os.mkdir.__module__}.mkdir" in source.ignored


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_weight_does_not_run(tmp_path: Path, name: str) -> None:
    write, shapes = FILES[name]
    state = {**draw(shapes), "decoder.conv_out.weight": Hostile(tmp_path / "owned")}
    file = write(tmp_path, state)
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.weight|no tensor"):
        import_tokenizer(file, str(tmp_path / "tok"), format_name=name,
                         options=ImportOptions(image_size=32))
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "tok").exists()


def test_a_hostile_object_beside_the_weights_does_not_stop_the_import(tmp_path: Path) -> None:
    file = lightning(tmp_path, draw(layout(TAMING, NET)), extra=Hostile(tmp_path / "owned"))
    report = import_tokenizer(file, str(tmp_path / "tok"), config=write_yaml(
        tmp_path / "model.yaml", taming_config(NET)))
    assert not (tmp_path / "owned").exists()
    assert f"{os.mkdir.__module__}.mkdir" in report.text()


def archive_of(path: Path, program: bytes, byteorder: bytes = b"little", compressed: str = "",
               **members: bytes) -> str:
    """A file of ``torch.save`` whose pickle is a hand-written program.

    Args:
        compressed: name of a member that is deflated, as torch never does.
        members: further ones, by their name in ``data``.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": program, "byteorder": byteorder,
                              **{f"data/{name}": members[name] for name in members}}.items():
            kind = zipfile.ZIP_DEFLATED if name == compressed else zipfile.ZIP_STORED
            archive.writestr(f"archive/{name}", content, kind)
    return str(path)


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory that Python held at once while ``function`` ran."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


OWN = b"(S'OWNED'\n"
PROGRAMS = {
    "a function called": b"cposix\nmkdir\n" + OWN + b"tR.",
    "a class made": b"(S'OWNED'\nios\nmkdir\n.",
    "eval": b"cbuiltins\neval\n(S'__import__(\"os\").mkdir(\"OWNED\")'\ntR.",
    "an attribute of an attribute": b"\x80\x04\x8c\x05torch\x8c\x16serialization.os.mkdir\x93"
                                    b"\x8c\x05OWNED\x85R.",
    "new object": b"\x80\x02cbuiltins\nexec\n" + OWN + b"t\x81.",
    "a state": b"cposix\nmkdir\n(S'a'\nS'OWNED'\ndb.",
    "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR" + OWN + b"tR.",
    "items of a function": b"cposix\nmkdir\n)R(S'OWNED'\nS'OWNED'\nu.",
    "a storage named by a function": b"(S'storage'\ncposix\nmkdir\nS'OWNED'\nS'cpu'\nI1\ntQ.",
    "a tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n(cposix\nmkdir\n" + OWN + b"tRtR."}


@pytest.mark.parametrize("name", PROGRAMS)
def test_hand_written_programs_name_nothing_real(tmp_path: Path, name: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = archive_of(tmp_path / "x.pt", PROGRAMS[name])
    read_pickled(file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    with pytest.raises(ValueError, match="holds no tensors by name"):
        open_source(file)


@pytest.mark.parametrize("program", [
    b"ccollections\nOrderedDict\n(S'update'\nI1\ndb.",
    b"ctorch._utils\n_rebuild_tensor_v2\n(S'__defaults__'\nI1\ndb.",
    b"ctorch\nFloatStorage\n(S'dtype'\nI1\ndb."])
def test_what_a_pickle_may_name_cannot_be_changed_by_it(tmp_path: Path, program: bytes) -> None:
    from tokenizer.importers import pickles
    before = (dict(vars(collections.OrderedDict)), dict(vars(pickles._Inert)),
              dict(vars(pickles._Mapping)), dict(vars(torch._utils._rebuild_tensor_v2)))
    try:
        read_pickled(archive_of(tmp_path / "x.pt", program))
    except ValueError as error:
        assert "is damaged" in str(error)
    assert before == (dict(vars(collections.OrderedDict)), dict(vars(pickles._Inert)),
                      dict(vars(pickles._Mapping)), dict(vars(torch._utils._rebuild_tensor_v2)))


def test_a_hostile_config_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'owned'}']\n")
    with pytest.raises(ValueError, match="cannot be read as plain settings"):
        read_settings(str(path))
    assert not (tmp_path / "owned").exists()


def test_a_target_is_looked_up_and_never_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'owned')!r})")
    file = lightning(tmp_path, draw(layout(TAMING, NET)))
    config = write_yaml(tmp_path / "model.yaml", taming_config(NET, "evil.VQModel"))
    for name in (None, "taming"):
        with pytest.raises(ValueError, match=r"evil\.VQModel"):
            import_tokenizer(file, str(tmp_path / "tok"), config=config, format_name=name)
    assert not (tmp_path / "owned").exists()


def tensor_program(offset: int = 0, shape: str = "I2\nI3\nt", stride: str = "I3\nI1\nt",
                   numel: int = 6) -> bytes:
    """A pickle of ``{"w": tensor}`` over a storage of ``numel`` numbers."""
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ" % numel
    return (b"(S'w'\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n(" % offset
            + shape.encode() + b"(" + stride.encode() + b"I00\nNtRd.")


def with_numbers(path: Path, program: bytes, numbers: bytes, **settings: Any) -> str:
    return archive_of(path, program, **{"0": numbers}, **settings)


def test_views_of_a_storage_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"whole": whole, "rows": whole[1:3], "turned": whole.T, "none": torch.zeros(0, 3),
             "number": torch.tensor(5), "half": whole.bfloat16(), "mask": whole > 3,
             "parameter": torch.nn.Parameter(whole[:, 2])}
    torch.save(state, tmp_path / "x.pt")
    found = read_pickled(str(tmp_path / "x.pt"))
    assert found.ignored == ()
    for name, tensor in state.items():
        assert found.content[name].shape == tuple(tensor.shape)
        read = found.content[name].read()
        assert read.dtype == tensor.dtype and torch.equal(read, tensor.detach()), name


@pytest.mark.parametrize("changes", [
    {"offset": 1}, {"offset": 1 << 40}, {"stride": "I4\nI1\nt"}, {"shape": "I3\nI3\nt"},
    {"numel": 5}])
def test_a_tensor_beyond_its_numbers_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = with_numbers(tmp_path / "x.pt", tensor_program(**changes), bytes(24))
    with pytest.raises(ValueError, match="reaches beyond"):
        read_pickled(file)


@pytest.mark.parametrize("changes", [
    {"offset": -1}, {"stride": "I-3\nI1\nt"}, {"shape": "I-2\nI3\nt"}, {"shape": "I2\nt"}])
def test_a_tensor_of_nonsense_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = with_numbers(tmp_path / "x.pt", tensor_program(**changes), bytes(24))
    with pytest.raises(ValueError, match="holds no tensors by name"):
        open_source(file)


def test_numbers_cut_short_are_damaged(tmp_path: Path) -> None:
    file = with_numbers(tmp_path / "x.pt", tensor_program(), bytes(20))
    with pytest.raises(ValueError, match="holds 20 bytes, expected 24"):
        read_pickled(file).content["w"].read()


@pytest.mark.parametrize("program", [b"", b"\x80", b"(((", b"I1\nI2\n", b"g5\n.", b"garbage"])
def test_a_damaged_pickle_is_named(tmp_path: Path, program: bytes) -> None:
    file = archive_of(tmp_path / "x.pt", program)
    with pytest.raises(ValueError, match=r"x\.pt"):
        open_source(file)


@pytest.mark.parametrize("program", [
    b"I1\nr\xff\xff\xff\x7f.", b"I1\np2000000000\n.", b"\x80\x05\x96" + b"\xff\xff\xff\xff\x0f"
    + bytes(3) + b".", b"\x80\x04\x8d" + b"\xff\xff\xff\xff\x0f" + bytes(3) + b"."])
def test_a_pickle_that_asks_for_much_memory_is_refused(tmp_path: Path, program: bytes) -> None:
    file = archive_of(tmp_path / "x.pt", program)
    with pytest.raises(ValueError, match="is damaged"):
        read_pickled(file)


@pytest.mark.parametrize("compressed", ["data.pkl", "byteorder", "data/0"])
def test_what_is_compressed_is_refused_before_it_grows(tmp_path: Path, compressed: str) -> None:
    grown = 4 << 20
    program = tensor_program(shape=f"I{grown // 4}\nt", stride="I1\nt", numel=grown // 4)
    contents = {"data.pkl": {"program": program + bytes(grown), "numbers": b""},
                "byteorder": {"byteorder": b"little" + bytes(grown)},
                "data/0": {"numbers": bytes(grown)}}[compressed]
    file = with_numbers(tmp_path / "x.pt", compressed=compressed, **{
        "program": program, "numbers": bytes(8), **contents})
    assert os.path.getsize(file) < 10_000

    def read() -> None:
        with pytest.raises(ValueError, match=f"archive/{compressed} in .*x.pt is compressed"):
            read_pickled(file).content["w"].read()

    read()
    assert peak_bytes(read) < grown // 8


@pytest.mark.parametrize(("byteorder", "message"), [
    (b"little" + bytes(4 << 20), "byteorder of 4194310 bytes is neither little nor big"),
    (b"middle", "byteorder of 6 bytes is neither"),
    (b"big", "written on a big-endian machine")])
def test_the_order_of_bytes_is_one_of_two_words(tmp_path: Path, byteorder: bytes,
                                                message: str) -> None:
    file = with_numbers(tmp_path / "x.pt", tensor_program(), bytes(24), byteorder=byteorder)

    def read() -> None:
        with pytest.raises(ValueError, match=message):
            read_pickled(file)

    assert peak_bytes(read) < 1 << 20


@pytest.mark.parametrize(("shape", "stride"), [
    ("I1000000\nI1000000\nt", "I0\nI0\nt"), ("I7\nt", "I0\nt"), ("I4\nI3\nt", "I1\nI1\nt")])
def test_a_tensor_that_repeats_its_numbers_is_left_unread(tmp_path: Path, shape: str,
                                                          stride: str) -> None:
    file = with_numbers(tmp_path / "x.pt", tensor_program(shape=shape, stride=stride), bytes(24))
    found = read_pickled(file).content["w"]
    with pytest.raises(ValueError, match=r"repeats the 6 numbers of its storage; .*contiguous"):
        found.read()


def test_a_view_reads_its_own_numbers_alone_and_a_storage_is_held_once(tmp_path: Path) -> None:
    whole = torch.arange(4 << 20, dtype=torch.float32)
    torch.save({"whole": whole, "start": whole[5:105].view(10, 10).T}, tmp_path / "x.pt")
    found = read_pickled(str(tmp_path / "x.pt")).content
    assert torch.equal(found["start"].read(), whole[5:105].view(10, 10).T)
    assert peak_bytes(found["start"].read) < 1 << 20
    assert peak_bytes(found["whole"].read) < 1.3 * 4 * whole.numel()


def test_an_archive_cut_short_is_damaged(tmp_path: Path) -> None:
    file = Path(lightning(tmp_path, draw(layout(TAMING, NET))))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no zip archive of torch.save"):
        open_source(str(file))


def test_files_of_before_torch_1_6_say_what_to_do(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="before 1.6; load it where you trust it"):
        open_source(str(tmp_path / "x.pt"))


def test_numbers_of_training_are_never_read(tmp_path: Path) -> None:
    file = lightning(tmp_path, draw(layout(TAMING, NET)), extra=torch.zeros(1000))
    with zipfile.ZipFile(file) as archive:
        sizes = [info.file_size for info in archive.infolist()]
    assert 4000 in sizes
    content = Path(file).read_bytes()
    damaged = bytearray(content)
    with zipfile.ZipFile(file) as archive:
        info = next(info for info in archive.infolist() if info.file_size == 4000)
    damaged[info.header_offset + 200] ^= 1  # its checksum no longer holds
    Path(file).write_bytes(damaged)
    import_tokenizer(file, str(tmp_path / "tok"), options=ImportOptions(image_size=32))
