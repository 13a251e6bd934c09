"""The jobs: an image corpus becomes a token corpus, and a token corpus becomes images."""
