"""``img2tokens inspect``: what a token corpus holds, and whether it is sound."""
import json

import click

from cli.options import filters_rows, reports_errors
from cli.values import PLACE, PNG, at_least


@click.command()
@click.argument("tokens", type=PLACE)
@click.option("--verify", is_flag=True, help="Check every file: size, SHA-256, rows, codes.")
@filters_rows
@click.option("--stats", is_flag=True,
              help="How the quality columns of encode --stats are distributed, also by class.")
@click.option("--worst", type=at_least(0), default=0, metavar="N",
              help="List the N rows that came back worst, by the figure of each modality.")
@click.option("--codes", is_flag=True,
              help="Usage and dead codes, codes that are typical of a class, entropy by place.")
@click.option("--entropy-map", type=PNG, metavar="FILE",
              help="PNG of the entropy by place of the first modality: blue 0, yellow log2 K bits.")
@click.option("--duplicates", type=at_least(0), metavar="T",
              help="Rows whose codes of the first modality are equal, and those that differ in at "
                   "most T places.")
@click.option("--dead-letters", type=at_least(0), default=0, metavar="N",
              help="List the first N inputs that failed: key, source, stage and reason.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def inspect(tokens: str, verify: bool, row_filter: str | None, stats: bool, worst: int,
            codes: bool, entropy_map: str | None, duplicates: int | None, dead_letters: int,
            as_json: bool) -> None:
    """Show what TOKENS holds: spec, counts, codebook usage, classes, dead letters by reason.

    With --verify, exit code 1 says that a shard is damaged, missing or surplus; each is named.
    Other options read the rows, shard by shard, or those that --filter takes; memory does not grow
    with their number.

    \b
    Examples:
      img2tokens inspect tokens
      img2tokens inspect tokens --verify
      img2tokens inspect tokens --dead-letters 20
      img2tokens inspect tokens --json | jq .usage
      img2tokens inspect tokens --stats --worst 20
      img2tokens inspect tokens --codes --filter 'class_name == "sky"' --entropy-map sky.png
      img2tokens inspect tokens --duplicates 8 --json | jq .duplicates.near
    """
    from pipelines import statistics
    from pipelines.report import count, describe, summary
    from tokenizer.audit import verify as verify_files
    from tokenizer.tokens import TokenCorpus
    corpus = TokenCorpus.open(tokens)
    problems = [found for found in verify_files(corpus) if found] if verify else []
    found = statistics.gather(corpus, statistics.Asked(
        filter=row_filter, stats=stats, worst=worst, codes=codes, entropy_map=entropy_map,
        duplicates=duplicates, dead_letters=dead_letters))
    if as_json:
        checked = {"verified": verify, "problems": problems}
        click.echo(json.dumps(summary(corpus) | found | checked, indent=1, ensure_ascii=False))
    else:
        click.echo(describe(corpus))
        if found:
            click.echo(statistics.describe(corpus, found))
        for problem in problems:
            click.echo(f"problem: {problem}")
        if verify and not problems:
            click.echo("verified: every file is as the manifest says")
    if problems:
        raise click.ClickException(f"{count(len(problems), 'problem')} in {tokens}; to make "
                                   "damaged and missing shards anew, run its encode command again")
