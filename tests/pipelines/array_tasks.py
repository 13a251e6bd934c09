"""One task of an array in a process of its own, on a slow fake codec; see `test_array`.

    python array_tasks.py CORPUS OUTPUT INDEX SIZE SECONDS_A_BATCH

With SIZE 0 it is the whole job, on Beam.
"""
import sys
import time

import numpy as np
from job_fakes import FakeCodec

from pipelines import codecs
from pipelines.array import Part, Unfinished
from pipelines.encode import EncodeConfig, encode_corpus, encode_part
from tokenizer.corpus.modalities import RGB


class SlowCodec(FakeCodec):
    """Takes its time for each batch."""
    seconds = 0.0

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return super().encode(pixels)


def main() -> None:
    """Run the task; prints ``complete`` or what is left."""
    corpus, output, index, size, seconds = sys.argv[1:]
    SlowCodec.seconds = float(seconds)
    codecs.open_codec = lambda url, batch_size: SlowCodec(RGB(), batch_size=batch_size)
    config = EncodeConfig(corpus=corpus, output=output, tokenizers={"image": "tok"}, shard_size=2,
                          batch_size=4)
    done = (encode_part(config, Part(index=int(index), size=int(size))) if int(size)
            else encode_corpus(config))
    print(done if isinstance(done, Unfinished) else "complete")


if __name__ == "__main__":
    main()
