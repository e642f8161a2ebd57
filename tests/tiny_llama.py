"""A tiny LLaMA with a byte-level tokenizer, as transformers writes it."""

import pathlib

import tokenizers
import torch
import transformers

TEXTS = ['it was good, it was great', 'it was bad and awful; 12 poor films', 'user assistant\n']


def bpe(texts=TEXTS, size=320):
  """A byte-level BPE that begins with ChatML's tokens, as SmolLM2's does."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Digits(individual_digits=True),
      tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=size,
    special_tokens=['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(texts, trainer)
  return made


def write(place: pathlib.Path) -> pathlib.Path:
  """The folder of a chat model: its texts end with <|im_end|>, and so does its padding."""
  made = bpe()
  words = transformers.PreTrainedTokenizerFast(
    tokenizer_object=made,
    bos_token='<|im_start|>',
    eos_token='<|im_end|>',
    pad_token='<|im_end|>',
    unk_token='<|endoftext|>',
  )
  config = transformers.LlamaConfig(
    vocab_size=made.get_vocab_size() + 2, hidden_size=32, intermediate_size=48,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2, rope_theta=1e4,
  )  # fmt: skip
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(config)
  with torch.no_grad():  # larger than the usual start, so that texts differ
    model.get_input_embeddings().weight.mul_(20)
  model.save_pretrained(place)
  words.save_pretrained(place)
  return place
