"""The base layer: the token format, the codec, image corpora, and the VQGAN with its training."""
