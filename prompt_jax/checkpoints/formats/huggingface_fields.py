"""Every field of a T5's config.json, generation_config.json and tokenizer_config.json, and what is
made of it here: those of T5, mT5, umT5 and ByT5, of transformers 3 to 5.
"""

from prompt_jax.checkpoints.formats.fields import READ, Only, Rule, Usual

_TRAINING = 'of training all weights; a run has its own'
_HEAD = 'of a classification head, which a model that writes text has not'
_OUTPUT = 'which results a call in transformers returns'
_WRITER = 'who wrote the file, and from what'
_STORED = 'the arrays themselves say their dtype'
_KERNEL = 'how transformers computes, not what'
_LENGTH = 'a run says its lengths; relative positions have no longest one'
_SEARCH = 'how transformers searches; a run has its own decoding'
_PIPELINE = 'texts and settings of pipelines; here the input is what a task writes'
_TEXT = 'how transformers cuts, pads and writes out text; ids are the same'
_FILE = 'where a file once lay'

_DECODE = 'Take it out of the file to decode without it'
_IDS = 'Every T5 of this package pads with 0, ends with 1 and begins to decode with 0'
_ADD = 'Take it out of the file if the model needs no such tokens'

# Ids that every file may tell.
_TOKENS: dict[str, Rule] = {
  'pad_token_id': Only((0,), _IDS),
  'eos_token_id': Only((1, [1]), _IDS),
  'decoder_start_token_id': Only((0, [0]), _IDS),
  'bos_token_id': READ,
}

GENERATION: dict[str, Rule] = {
  **_TOKENS,
  **dict.fromkeys(
    ('forced_bos_token_id', 'forced_eos_token_id', 'suppress_tokens', 'begin_suppress_tokens',
     'bad_words_ids', 'force_words_ids', 'forced_decoder_ids', 'constraints', 'sequence_bias',
     'stop_strings', 'watermarking_config'), Only(([],), _DECODE)
  ),
  **dict.fromkeys(('do_sample', 'early_stopping', 'renormalize_logits'), Usual((False,))),
  **dict.fromkeys(('num_beams', 'num_beam_groups', 'num_return_sequences'), Usual((1,))),
  **dict.fromkeys(
    ('temperature', 'top_p', 'typical_p', 'repetition_penalty', 'encoder_repetition_penalty',
     'length_penalty', 'guidance_scale'), Usual((1.0,))
  ),
  **dict.fromkeys(
    ('no_repeat_ngram_size', 'encoder_no_repeat_ngram_size', 'diversity_penalty', 'min_length',
     'min_new_tokens', 'epsilon_cutoff', 'eta_cutoff'), Usual((0,))
  ),
  **dict.fromkeys(
    ('min_p', 'top_h', 'penalty_alpha', 'dola_layers', 'exponential_decay_length_penalty'),
    Usual(()),
  ),
  'top_k': Usual((50,)),
  **dict.fromkeys(('max_length', 'max_new_tokens', 'max_time'), _LENGTH),
  **dict.fromkeys(
    ('use_cache', 'cache_implementation', 'cache_config', 'max_cache_len', 'use_mtp', 'low_memory',
     'compile_config', 'disable_compile', 'continuous_batching_config', 'prefill_chunk_size',
     'remove_invalid_values', 'token_healing'), _KERNEL
  ),
  **dict.fromkeys(
    ('is_assistant', 'num_assistant_tokens', 'num_assistant_tokens_schedule', 'speculation_type',
     'assistant_confidence_threshold', 'assistant_early_exit', 'assistant_lookbehind',
     'assistant_ensemble_weight', 'target_lookbehind', 'prompt_lookup_num_tokens',
     'max_matching_ngram_size', 'generation_kwargs'), _SEARCH
  ),
  **dict.fromkeys(
    ('output_attentions', 'output_hidden_states', 'output_scores', 'output_logits',
     'return_dict_in_generate'), _OUTPUT
  ),
  **dict.fromkeys(('_from_model_config', 'transformers_version'), _WRITER),
}  # fmt: skip

CONFIG: dict[str, Rule] = {
  **GENERATION,
  **dict.fromkeys(
    ('model_type', 'vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_decoder_layers',
     'num_heads', 'hidden_size', 'head_dim', 'num_hidden_layers', 'num_attention_heads',
     'relative_attention_num_buckets', 'relative_attention_max_distance', 'feed_forward_proj',
     'dense_act_fn', 'is_gated_act', 'tie_word_embeddings', 'scale_decoder_outputs',
     'architectures', 'tokenizer_class'), READ
  ),
  'layer_norm_epsilon': Only((1e-6,)),
  'is_encoder_decoder': Only((True,)),
  **dict.fromkeys(('is_decoder', 'add_cross_attention', 'tie_encoder_decoder'), Only((False,))),
  **dict.fromkeys(('pruned_heads', 'adapters', 'auto_map', 'cross_attention_hidden_size'),
                  Only(({},))),
  'quantization_config': Only((), 'Take the model that it was made from'),
  **dict.fromkeys(('dropout_rate', 'initializer_factor', 'gradient_checkpointing'), _TRAINING),
  **dict.fromkeys(
    ('classifier_dropout', 'id2label', 'label2id', 'num_labels', '_num_labels', 'problem_type',
     'finetuning_task'), _HEAD
  ),
  **dict.fromkeys(('return_dict', 'use_return_dict', 'output_past'), _OUTPUT),
  **dict.fromkeys(('_name_or_path', 'name_or_path', '_commit_hash'), _WRITER),
  **dict.fromkeys(('dtype', 'torch_dtype'), _STORED),
  **dict.fromkeys(
    ('torchscript', 'use_bfloat16', 'tf_legacy_loss', 'chunk_size_feed_forward',
     '_attn_implementation', 'attn_implementation', '_attn_implementation_autoset'), _KERNEL
  ),
  **dict.fromkeys(('n_positions', 'max_position_embeddings'), _LENGTH),
  **dict.fromkeys(('task_specific_params', 'prefix'), _PIPELINE),
  **dict.fromkeys(('sep_token_id', 'cls_token_id', 'mask_token_id', 'unk_token_id'),
                  'a T5 is fed what the tokenizer says'),
}  # fmt: skip

_SPECIAL = ('eos_token', 'unk_token', 'pad_token', 'bos_token', 'sep_token', 'cls_token',
            'mask_token')  # fmt: skip

TOKENIZER: dict[str, Rule] = {
  **dict.fromkeys(
    (*_SPECIAL, 'tokenizer_class', 'extra_ids', 'additional_special_tokens', 'added_tokens_decoder',
     'extra_special_tokens', 'unk_id'), READ
  ),
  **dict.fromkeys(('split_special_tokens', 'do_lower_case', 'add_bos_token'), Only((False,), _ADD)),
  **dict.fromkeys(('add_eos_token', 'add_prefix_space'), Only((True,), _ADD)),
  **dict.fromkeys(('sp_model_kwargs', 'auto_map'), Only(({},))),
  **dict.fromkeys(
    ('padding_side', 'truncation_side', 'padding', 'truncation', 'truncation_strategy',
     'max_length', 'stride', 'pad_to_multiple_of', 'pad_token_type_id',
     'clean_up_tokenization_spaces',
     'spaces_between_special_tokens', 'return_token_type_ids', 'verbose', 'errors'), _TEXT
  ),
  'model_max_length': _LENGTH,
  'legacy': 'whether a space is put behind a sentinel; ids here are those of SentencePiece',
  'chat_template': 'a T5 is fed plain text',
  **dict.fromkeys(('model_input_names', 'processor_class', 'response_schema'), _OUTPUT),
  **dict.fromkeys(
    ('name_or_path', 'special_tokens_map_file', 'tokenizer_file', 'vocab_file', '_commit_hash',
     'local_files_only', 'is_local', 'cache_dir'), _FILE
  ),
  **dict.fromkeys(('backend', 'use_fast', 'from_slow', 'tokenizer_type'),
                  'which of its tokenizers transformers takes'),
  'transformers_version': _WRITER,
}  # fmt: skip

SPECIAL_TOKENS_MAP: dict[str, Rule] = dict.fromkeys(
  (*_SPECIAL, 'additional_special_tokens', 'extra_special_tokens'), READ
)
