"""``img2tokens demo``: the whole way once, or guidance by text, ending in a page of pictures."""
import click

from cli.options import reports_errors


@click.command()
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--quick", is_flag=True,
              help="Rehearse every step in half a minute, far too short to learn anything.")
@click.option("--guide", "guides", is_flag=True,
              help="Instead of a prior: a tiny CLIP, and ten prompts that steer pictures by it.")
@reports_errors
def demo(out: str, quick: bool, guides: bool) -> None:
    """Draw scenes, train tokenizers and a prior on them, sample, and show it all in OUT/index.html.

    Takes about ten minutes on 2 CPU cores; nothing is downloaded. Stopped, the same command goes
    on. Every step is a command of img2tokens and is shown as it runs.

    \b
    Examples:
      img2tokens demo demo-out
      img2tokens demo guide-out --guide
    """
    from pathlib import Path

    from cli.demo import guide_story, story
    if guides:
        page = guide_story.tell_guided(
            Path(out), guide_story.QUICK_GUIDE if quick else guide_story.GuideDemoSettings(),
            click.echo)
    else:
        page = story.tell(Path(out), story.QUICK if quick else story.DemoSettings(), click.echo)
    click.echo(f"\nDone. Open {page.resolve().as_uri()} in a browser.")
