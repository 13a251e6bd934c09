"""Image corpora: where images and maps come from, and how their bytes become pixels."""
