"""Importers: priors that other programs published become checkpoints of this one.

One module a format; `prior.importers.formats` holds the table. To add a format, write a module with
a subclass of `prior.importers.base.PriorImporter` and list it there. Files are read as data by
`tokenizer.importers`: nothing in them is executed, and what they call their classes is looked up in
fixed tables.
"""
