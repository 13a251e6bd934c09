"""Other programs than torch that run a tokenizer's network: ONNX files, and runtimes for them."""
