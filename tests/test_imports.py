"""Who may import whom, read from the source with `ast`; and what may not load at start."""
import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tokenizer", "pipelines", "prior", "clip_guidance", "cli")
FORBIDDEN = {
    "tokenizer": {"apache_beam", "click", "pipelines", "prior", "clip_guidance", "cli"},
    "pipelines": {"torch", "click", "prior", "clip_guidance", "cli", "tokenizer.vqgan",
                  "tokenizer.training"},
    "prior": {"apache_beam", "click", "pipelines", "clip_guidance", "cli", "tokenizer.vqgan",
              "tokenizer.codec", "tokenizer.corpus", "tokenizer.recipes"},
    "clip_guidance": {"apache_beam", "click", "pipelines", "cli", "tokenizer.training",
                      "prior.training", "prior.sampling", "prior.loading"},
    "cli": set(),
}
"""For each package, the modules (with all below them) that no file of it imports, not even late."""

WITHOUT_TORCH = ("storage", "configs", "schema", "code_spec", "buckets", "grids", "usage",
                 "one_bucket", "card", "audit", "census", "deltas", "receipts",
                 "tokens", "claims", "checkpoints", "filters", "quality", "code_statistics",
                 "distributions", "duplicates", "pictures",
                 "corpus/images", "corpus/limits", "corpus/colours", "corpus/augment",
                 "corpus/crops",
                 *(f"corpus/sources/{name}" for name in (
                     "__init__", "base", "columns", "folder", "huggingface", "joined", "listed",
                     "lists", "ondisk", "parquet", "tables", "tar_members", "tars", "urls", "web")),
                 *(f"corpus/modalities/{name}" for name in (
                     "__init__", "base", "depth", "edges", "image", "low_res", "normals",
                     "segmentation")))
"""Modules of ``tokenizer`` that load without torch: reading a corpus takes pyarrow alone."""


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Full names that a file imports; with ``from a import b`` both ``a`` and ``a.b``."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrows(package: str) -> None:
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for path in files_of(package)
             for name in imports(path) for rule in FORBIDDEN[package]
             if name == rule or name.startswith(rule + ".")]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_what_has_no_cpu_build(package: str) -> None:
    for path in files_of(package):
        assert not {"torchvision", "torchaudio"} & {name.split(".")[0] for name in imports(path)}


def test_imports_between_modules_have_no_cycle() -> None:
    paths = [path for package in PACKAGES for path in files_of(package)]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    modules = {name.removesuffix(".__init__"): path
               for name, path in zip(names, paths, strict=True)}
    edges = {name: {target for target in imports(path) if target in modules and target != name}
             for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in edges[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_reading_modules_do_not_load_torch(name: str) -> None:
    path = ROOT / "tokenizer" / f"{name}.py"
    assert "torch" not in {found.split(".")[0] for found in imports(path, top_level_only=True)}


def test_commands_load_heavy_libraries_only_when_used() -> None:
    for path in files_of("cli"):
        heavy = {"torch", "apache_beam", "pyarrow", "datasets", "accelerate", "transformers"}
        assert not heavy & {name.split(".")[0] for name in imports(path, top_level_only=True)}, path


def test_help_loads_neither_torch_nor_beam() -> None:
    script = ("import sys; from cli.main import main; main(['--help'], standalone_mode=False); "
              "print(sorted({'torch', 'apache_beam', 'pyarrow', 'numpy'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script],
                          capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
