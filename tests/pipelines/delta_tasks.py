"""A whole job in a process of its own, on a slow fake codec and without Beam; see `test_together`.

    python delta_tasks.py encode|extend|retry CORPUS OUTPUT SECONDS_A_BATCH
"""
import sys

from array_tasks import SlowCodec
from job_fakes import run_inline

from pipelines import codecs
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.engines import BeamEngine
from pipelines.retry import retry_corpus
from tokenizer.corpus.modalities import RGB


def main() -> None:
    """Run the job; ends with 1 and one line where it fails as expected."""
    what, corpus, output, seconds = sys.argv[1:]
    SlowCodec.seconds = float(seconds)
    codecs.open_codec = lambda url, batch_size: SlowCodec(RGB(), batch_size=batch_size)
    BeamEngine.__call__ = lambda engine, task, shards: run_inline(task, shards)  # type: ignore
    try:
        if what == "retry":
            retry_corpus(output, {"image": "tok"})
        else:
            encode_corpus(EncodeConfig(corpus=corpus, output=output, tokenizers={"image": "tok"},
                                       shard_size=2, batch_size=4, extend=what == "extend"))
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
