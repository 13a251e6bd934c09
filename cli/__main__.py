"""``python -m cli`` is ``img2tokens``."""
from cli.main import main

main(prog_name="img2tokens")
