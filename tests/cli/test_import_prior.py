"""``img2tokens import-prior``: a report, a prior that samples, and refusals in one line."""
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from published_files import write_lightning
from random_tokenizers import save_tokenizer, tree

from cli.main import main
from prior.layouts import TamingLayout
from prior.model import Prior
from prior.sequence import LABEL, Segment
from prior.transformer import Transformer, TransformerConfig
from tokenizer.codec import Codec
from tokenizer.tokens import TokenCorpus

CLASSES = ("cat", "dog", "fish")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A run's folder of a class-conditional taming prior, beside its random tokenizer."""
    spec = Codec.load(save_tokenizer(tmp_path / "tok")).spec
    vocabulary = max(spec.codebook_size, len(CLASSES))
    layout = TamingLayout((Segment(name=LABEL, grid=(1, 1), vocabulary=len(CLASSES)),),
                          Segment(name="image", grid=spec.grid, vocabulary=vocabulary))
    shape = TransformerConfig(num_layers=1, width=16, num_heads=2, qk_norm=False, rotary=False,
                              blocks="mingpt")
    torch.manual_seed(0)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "configs").mkdir()
    write_lightning(folder / "checkpoints/last.ckpt", as_published(Transformer(shape, layout)))
    (folder / "configs/2021-project.yaml").write_text(yaml.safe_dump({"model": {
        "target": "taming.models.cond_transformer.Net2NetTransformer", "params": {
            "cond_stage_key": "class_label", "first_stage_config": {},
            "cond_stage_config": {"target": "taming.modules.util.Labelator",
                                  "params": {"n_classes": len(CLASSES)}},
            "transformer_config": {"params": {"n_head": 2}}}}}))
    return folder


def as_published(model: Transformer) -> dict[str, torch.Tensor]:
    """The tensors of a model under the published names."""
    rename = {"norm_attention": "ln1", "norm_feed_forward": "ln2", "attention.out": "attn.proj",
              "feed_forward.up": "mlp.0", "feed_forward.down": "mlp.2"}
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in rename.items():
            name = name.replace(ours, theirs)
        if "qkv" in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace("attention.qkv", f"attn.{part}")] = rows
        elif name == "positions.weight":
            state["pos_emb"] = torch.randn(1, *tensor.shape)
        else:
            state[name.replace("codes.", "tok_emb.") if name.startswith("codes.") else
                  name.replace("norm.", "ln_f.") if name.startswith("norm.") else name] = tensor
    return {f"transformer.{name}": tensor for name, tensor in state.items()}


def test_an_imported_prior_samples_images_of_named_classes(published: Path,
                                                           tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    done = run("import-prior", published, tmp_path / "prior", "--tokenizer", tmp_path / "tok",
               "--class-names", tmp_path / "classes.txt")
    assert done.exit_code == 0, done.output
    assert "taming-transformers" in done.output and f"prior in {tmp_path / 'prior'}" in done.output
    assert set(tree(tmp_path / "prior")) == {"config.json", "import.json", "model.safetensors"}
    assert Prior.load(str(tmp_path / "prior")).config.classes == CLASSES
    drawn = run("sample", tmp_path / "prior", tmp_path / "samples", "--tokenizer",
                tmp_path / "tok", "--label", "dog", "--num", 2, "--batch-size", 2)
    assert drawn.exit_code == 0, drawn.output
    assert TokenCorpus.open(str(tmp_path / "samples")).manifest.num_rows == 2
    needs = run("sample", tmp_path / "prior", tmp_path / "none", "--num", 2)
    assert needs.exit_code == 1 and "always given label" in needs.output


def test_an_import_replaces_a_prior_only_when_told_to(published: Path, tmp_path: Path) -> None:
    command = ("import-prior", published, tmp_path / "prior", "--tokenizer", tmp_path / "tok")
    assert run(*command).exit_code == 0
    before = tree(tmp_path / "prior")
    again = run(*command)
    assert again.exit_code == 1 and "--overwrite" in again.output
    assert run(*command, "--overwrite").exit_code == 0
    assert tree(tmp_path / "prior") == before


def test_a_tokenizer_that_the_prior_does_not_use_is_refused(published: Path,
                                                            tmp_path: Path) -> None:
    depth = save_tokenizer(tmp_path / "tok-depth", modality="depth")
    command = ("import-prior", published, tmp_path / "prior", "--tokenizer", tmp_path / "tok")
    unused = run(*command, "--tokenizer", depth)
    assert unused.exit_code == 1 and "this prior has codes of image alone" in unused.output
    wrong = run("import-prior", published, tmp_path / "prior", "--tokenizer", f"image={depth}")
    assert wrong.exit_code == 2 and "is a tokenizer of depth" in wrong.output
    twice = run(*command, "--tokenizer", f"image={tmp_path / 'tok'}")
    assert twice.exit_code == 2 and not (tmp_path / "prior").exists()


def test_names_of_classes_differ(published: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ncrane\ncrane\n")
    done = run("import-prior", published, tmp_path / "prior", "--tokenizer", tmp_path / "tok",
               "--class-names", tmp_path / "classes.txt")
    assert done.exit_code == 1 and "holds 'crane' twice" in done.output
