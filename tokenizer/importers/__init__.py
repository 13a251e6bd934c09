"""Importers: tokenizers that other programs published become checkpoints of this one, and back.

One module a format; `tokenizer.importers.formats` holds the table. To add a format, write a module
with a subclass of `tokenizer.importers.base.TokenizerImporter` and list it there; the command, the
parity report and the tests over the table find it by name. No code of a file is ever executed: what
a file may contain is read by `pickles`, and what it calls its classes is looked up in fixed tables.
"""
