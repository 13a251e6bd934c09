"""The VQGAN: autoencoder, quantizers, and the model that joins them."""
