"""``img2tokens retry``: the dead letters of a token corpus are encoded again."""
import click

from cli.options import keeps_records, reports_errors, takes_engine, tokenizers_of
from cli.values import ERROR_LIMIT, PLACE, TOKENIZER_FOLDER, at_least


@click.command()
@click.argument("tokens", type=PLACE)
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True, required=True,
              help="Folder of each tokenizer that made the codes.")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Processes that encode at the same time, on one core each.")
@click.option("--max-errors", type=ERROR_LIMIT, metavar="N|SHARE",
              help="End in failure when more of the dead letters fail again: a number such as 5, "
                   "or a share such as 50%.  [default: any number may]")
@takes_engine
@reports_errors
@keeps_records
def retry(tokens: str, tokenizers: tuple[tuple[str, str], ...], num_workers: int,
          max_errors: int | float | None, engine: str, beam_flags: tuple[str, ...]) -> None:
    """Encode the dead letters of TOKENS again, after what was wrong with them has been mended.

    What succeeds becomes rows in further shards; what fails stays a dead letter, with its new
    reason. Of other files only README.md and the manifest change, at the end: TOKENS can be read
    all the while. Images, maps and labels are found where the encode command found
    them. The same command goes on after a stop; what else is unfinished is made first.

    \b
    Examples:
      img2tokens retry tokens --tokenizer tok
      img2tokens retry tokens --tokenizer tok --tokenizer depth-tok
      img2tokens retry tokens --tokenizer tok --num-workers 4 --max-errors 50%
    """
    from pipelines.report import outcome, retried
    from pipelines.retry import retry_corpus
    done = retry_corpus(tokens, tokenizers_of(tokenizers), num_workers=num_workers,
                        max_errors=max_errors, engine=engine, beam_flags=beam_flags)
    click.echo(f"{tokens}: {retried(done.num_tried, done.manifest)}")
    click.echo(outcome(tokens, done.manifest))
