"""``img2tokens push``: a finished token corpus goes to the Hub."""
import click

from cli.options import reports_errors


@click.command()
@click.argument("tokens")
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make a private repository where there is none.")
@click.option("--overwrite", is_flag=True, help="Remove what else REPO holds.")
@reports_errors
def push(tokens: str, repo: str, private: bool, overwrite: bool) -> None:
    """Upload the finished corpus TOKENS to the data set REPO (USER/NAME) of the Hugging Face Hub.

    Every file is verified first; an unfinished or damaged corpus is refused. The same command goes
    on where an upload was stopped. Who you are is what `hf auth login` or HF_TOKEN says.

    \b
    Examples:
      img2tokens push tokens me/imagenet-tokens --private
    """
    from pipelines.push import PushConfig, push_corpus
    click.echo(push_corpus(PushConfig(tokens=tokens, repo=repo, private=private,
                                      overwrite=overwrite)))
