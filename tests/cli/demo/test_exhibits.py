"""Code grids as the page shows them."""
import numpy as np

from cli.demo.exhibits import code_grids
from tokenizer.pictures import colour_codes
from tokenizer.schema import CodeSpec


def spec(depth: int) -> CodeSpec:
    return CodeSpec(modality="image", grid=(4, 8), codebook_size=16, image_size=(32, 64),
                    tokenizer="sha256:a", depth=depth)


def test_codes_are_a_grid_of_cells() -> None:
    codes = np.arange(32).reshape(4, 8) % 16
    np.testing.assert_array_equal(code_grids(spec(1), codes), colour_codes(codes, 16, (64, 64)))


def test_further_codes_of_a_cell_stand_beside_the_first() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3, 4, 8))
    found = code_grids(spec(3), codes)
    assert found.shape == (64, 3 * 64, 3)
    for depth in range(3):
        np.testing.assert_array_equal(found[:, 64 * depth:64 * (depth + 1)],
                                      colour_codes(codes[depth], 16, (64, 64)))
