"""``img2tokens demo``: the whole way once, on drawn scenes, ending in a page of pictures."""
import click

from cli.options import reports_errors


@click.command()
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--quick", is_flag=True,
              help="Rehearse every step in half a minute, far too short to learn anything.")
@reports_errors
def demo(out: str, quick: bool) -> None:
    """Draw scenes, train tokenizers and a prior on them, sample, and show it all in OUT/index.html.

    Takes about ten minutes on 2 CPU cores; nothing is downloaded. Stopped, the same command goes
    on. Every step is a command of img2tokens and is shown as it runs.

    \b
    Examples:
      img2tokens demo demo-out
    """
    from pathlib import Path

    from cli.demo.story import QUICK, DemoSettings, tell
    page = tell(Path(out), QUICK if quick else DemoSettings(), click.echo)
    click.echo(f"\nDone. Open {page.resolve().as_uri()} in a browser.")
