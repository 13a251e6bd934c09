"""The Python of the README, as it is written there."""
from pathlib import Path
from typing import Any

import numpy as np
import pytest

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_python_of_the_readme_runs(tokenized: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tok").symlink_to(tokenized / "image")
    (tmp_path / "tokens").symlink_to(tokenized / "tokens")
    monkeypatch.chdir(tmp_path)
    example = README.read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["codes"].shape == names["again"].shape == (names["table"].num_rows, 4, 4)
    assert names["images"].shape[1:] == (32, 32, 3) and names["images"].dtype == np.uint8
