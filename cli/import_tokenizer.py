"""``img2tokens import-tokenizer``: a tokenizer published elsewhere becomes one of ours."""
import click

from cli.options import reports_errors

FORMATS = ("taming", "latent-diffusion", "llamagen", "maskgit", "diffusers")
"""Names in `tokenizer.importers.formats.IMPORTERS`, written out so that help need not load torch.
"""

ROUTES = ("stored", "srgb", "turbo")
"""Names in `tokenizer.corpus.images.ROUTES`, likewise."""


@click.command("import-tokenizer")
@click.argument("file")
@click.argument("out")
@click.option("--config", help="YAML or JSON config of the model, where FILE is not its folder.")
@click.option("--format", "format_name", type=click.Choice(FORMATS),
              help="Which program wrote FILE; found out from its tensors where not given.")
@click.option("--image-size", type=click.IntRange(min=1),
              help="Side of the images in pixels, in place of the config's, or else 256.")
@click.option("--input-range", type=float, nargs=2, default=None, metavar="LOW HIGH",
              help="What black and white are to the model, in place of the format's.")
@click.option("--stage", type=click.Choice(["first", "condition"]), default="first",
              show_default=True, help="Which tokenizer of a prior's checkpoint.")
@click.option("--route", type=click.Choice(ROUTES), default="stored", show_default=True,
              help="How image files become pixels: as the published programs read them, or with "
                   "colour profiles converted to sRGB; see docs/images.md.")
@click.option("--overwrite", is_flag=True, help="Replace a tokenizer in OUT.")
@reports_errors
def import_tokenizer(file: str, out: str, config: str | None, format_name: str | None,
                     image_size: int | None, input_range: tuple[float, float] | None, stage: str,
                     route: str, overwrite: bool) -> None:
    """Turn the published tokenizer FILE, or the folder that holds it, into a tokenizer in OUT.

    Codes equal those of the program that FILE is of. Nothing in it is executed. A report says what
    was found, what was left out, and what became of a test pattern; docs/importing.md lists what
    can be imported.

    \b
    Examples:
      img2tokens import-tokenizer last.ckpt tok --config model.yaml
      img2tokens import-tokenizer vq_ds16_c2i.pt tok
      img2tokens import-tokenizer vqvae-folder tok --input-range 0 1 --image-size 256
      img2tokens import-tokenizer prior.ckpt tok-depth --config project.yaml --stage condition
    """
    from tokenizer.importers.base import ImportOptions
    from tokenizer.importers.importing import import_tokenizer as import_files
    options = ImportOptions(image_size=image_size, input_range=input_range, stage=stage,
                            route=route)
    report = import_files(file, out, config=config, format_name=format_name, options=options,
                          overwrite=overwrite)
    click.echo(report.text())
    click.echo(f"tokenizer in {out}")
