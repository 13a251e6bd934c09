"""The prior: an autoregressive transformer over the codes of a token corpus."""
