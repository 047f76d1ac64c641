"""A Whisper model that says one sentence whatever it hears: small, and read by the real faster-whisper.

Its layers add nothing. Each place in the sentence is encoded as the direction of the word that comes next,
and the projection is made of the words' directions, so that word is the likeliest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ctranslate2.specs import attention_spec, common_spec, transformer_spec, whisper_spec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MELS, PLACES, MOST, WIDTH, HEADS = 80, 1500, 448, 128, 2
PROMPT = ("<|startoftranscript|>", "<|notimestamps|>")  # of an English model
SPECIAL = (
    "<|endoftext|>", *PROMPT, "<|transcribe|>", "<|translate|>", "<|startoflm|>", "<|startofprev|>",
    "<|nospeech|>", "<|nocaptions|>",
)  # fmt: skip


def saying(sentence: str, folder: Path) -> Path:
    """Write the model into a folder, which has to be there; returns it."""
    words = [f"Ġ{word}" for word in sentence.split()]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *sorted(set(words)), *SPECIAL]
    spec = whisper_spec.WhisperSpec(1, HEADS, 1, HEADS)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(tokens), WIDTH)).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    places = np.zeros((MOST, WIDTH), np.float32)
    said = [*words, "<|endoftext|>"]
    for i in range(MOST - len(PROMPT)):
        places[len(PROMPT) - 1 + i] = 20 * vectors[tokens.index(said[min(i, len(said) - 1)])]
    _encoder(spec.encoder)
    decoder = spec.decoder
    decoder.embeddings.weight = 0.01 * vectors
    decoder.position_encodings.encodings = places
    decoder.projection.weight = vectors
    _norm(decoder.layer_norm)
    for layer in decoder.layer:
        _attention(layer.self_attention, 3)
        _attention(layer.attention, 1, 2)
        _feed(layer.ffn)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [], [(0, 0)]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    model = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], ignore_merges=True))
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    model.add_special_tokens(list(SPECIAL))
    model.save(str(folder / "tokenizer.json"))
    return folder


def _encoder(encoder: whisper_spec.WhisperEncoderSpec) -> None:
    for conv, inputs in ((encoder.conv1, MELS), (encoder.conv2, WIDTH)):
        conv.weight, conv.bias = _zeros(WIDTH, inputs, 3), _zeros(WIDTH)
    encoder.position_encodings.encodings = _zeros(PLACES, WIDTH)
    _norm(encoder.layer_norm)
    for layer in encoder.layer:
        _attention(layer.self_attention, 3)
        _feed(layer.ffn)


def _attention(spec: attention_spec.MultiHeadAttentionSpec, *parts: int) -> None:
    for linear, part in zip(spec.linear, [*parts, 1], strict=True):
        linear.weight, linear.bias = _zeros(part * WIDTH, WIDTH), _zeros(part * WIDTH)
    _norm(spec.layer_norm)


def _feed(spec: transformer_spec.FeedForwardSpec) -> None:
    _norm(spec.layer_norm)
    spec.linear_0.weight, spec.linear_0.bias = _zeros(4 * WIDTH, WIDTH), _zeros(4 * WIDTH)
    spec.linear_1.weight, spec.linear_1.bias = _zeros(WIDTH, 4 * WIDTH), _zeros(WIDTH)


def _norm(spec: common_spec.LayerNormSpec) -> None:
    spec.gamma, spec.beta = np.ones(WIDTH, np.float32), _zeros(WIDTH)


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)
