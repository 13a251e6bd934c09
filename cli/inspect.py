"""``img2tokens inspect``: what a token corpus holds, and whether it is sound."""
import json

import click

from cli.options import reports_errors


@click.command()
@click.argument("tokens")
@click.option("--verify", is_flag=True, help="Check every file: size, SHA-256, rows, codes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def inspect(tokens: str, verify: bool, as_json: bool) -> None:
    """Show what TOKENS holds: spec, counts, codebook usage, classes, dead letters by reason.

    With --verify, exit code 1 says that a shard is damaged, missing or surplus; each is named.

    \b
    Examples:
      img2tokens inspect tokens
      img2tokens inspect tokens --verify
      img2tokens inspect tokens --json | jq .usage
    """
    from pipelines.report import count, describe, summary
    from tokenizer.audit import verify as verify_files
    from tokenizer.tokens import TokenCorpus
    corpus = TokenCorpus.open(tokens)
    problems = [found for found in verify_files(corpus) if found] if verify else []
    if as_json:
        checked = {"verified": verify, "problems": problems}
        click.echo(json.dumps(summary(corpus) | checked, indent=1, ensure_ascii=False))
    else:
        click.echo(describe(corpus))
        for problem in problems:
            click.echo(f"problem: {problem}")
        if verify and not problems:
            click.echo("verified: every file is as the manifest says")
    if problems:
        raise click.ClickException(f"{count(len(problems), 'problem')} in {tokens}; to make "
                                   "damaged and missing shards anew, run its encode command again")
