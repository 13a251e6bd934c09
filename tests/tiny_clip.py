"""A CLIP of a few thousand random weights, with a tokenizer of letters, as files."""
import json
from pathlib import Path

SIDE = 32
MEAN, DEVIATION = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def save_clip(folder: Path, seed: int = 0) -> Path:
    """Write model, tokenizer and preprocessor config; returns the folder."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast
    letters = [chr(number) for number in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    tokenizer = CLIPTokenizerFast(vocab=vocab, merges=[])
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
              "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**layers, "vocab_size": len(vocab), "max_position_embeddings": 24,
                     "bos_token_id": start, "eos_token_id": end, "pad_token_id": end},
        vision_config={**layers, "image_size": SIDE, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": DEVIATION, "size": SIDE}))
    return folder
