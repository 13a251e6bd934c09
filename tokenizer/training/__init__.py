"""Training: losses, discriminator, optimisers, and the parts shared with the prior's training."""
