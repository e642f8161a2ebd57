"""What settings are called elsewhere: in PEFT, in transformers, in other trainers."""

import difflib
from collections.abc import Collection

_EPOCHS = (
  'training is counted in steps; an epoch of N examples takes N / {batch_size} steps, such as 32 '
  'steps for 1024 examples in batches of 32'
)
# Our name, and what to know beside it.
OTHER_NAMES: dict[str, tuple[str, str]] = {
  'lr': ('learning_rate', ''),
  'rate': ('learning_rate', ''),
  'learning_rate_init': ('learning_rate', ''),
  'epochs': ('steps', _EPOCHS),
  'num_epochs': ('steps', _EPOCHS),
  'num_train_epochs': ('steps', _EPOCHS),
  'max_epochs': ('steps', _EPOCHS),
  'max_steps': ('steps', ''),
  'train_steps': ('steps', ''),
  'num_steps': ('steps', ''),
  'num_train_steps': ('steps', ''),
  'output_dir': ('output', ''),
  'out': ('output', ''),
  'save_dir': ('output', ''),
  'model_dir': ('output', ''),
  'resume_from_checkpoint': ('output', 'the same command resumes in its output folder'),
  'resume': ('output', 'the same command resumes in its output folder'),
  'overwrite_output_dir': ('output', 'give another folder for another run'),
  'per_device_train_batch_size': ('batch_size', 'of all devices together'),
  'per_device_eval_batch_size': ('batch_size', 'of all devices together'),
  'train_batch_size': ('batch_size', ''),
  'eval_batch_size': ('batch_size', ''),
  'gradient_accumulation_steps': (
    'microbatches', 'parts of a batch; {batch_size} counts all of them'),
  'grad_accum': ('microbatches', 'parts of a batch; {batch_size} counts all of them'),
  'num_virtual_tokens': ('length', ''),
  'num_tokens': ('length', ''),
  'prompt_len': ('length', ''),
  'prefix_length': ('length', ''),
  'peft_type': ('prompt', ''),
  'prompt_method': ('prompt', ''),
  'prompt_tuning_init': ('init', ''),
  'prompt_tuning_init_text': ('init', 'text, with its words in a gin file: see gin/inits/text.gin'),
  'prompt_init': ('init', ''),
  'initializer': ('init', ''),
  'model_name_or_path': ('model', ''),
  'model_name': ('model', ''),
  'pretrained_model_name_or_path': ('model', ''),
  'base_model_name_or_path': ('model', ''),
  'checkpoint': ('model', ''),
  'tokenizer': ('vocabulary', ''),
  'tokenizer_name': ('vocabulary', ''),
  'peft_model': ('prompt_file', ''),
  'adapter': ('prompt_file', ''),
  'dataset': ('task', 'or {data} for a file'),
  'dataset_name': ('task', 'or {data} for a file'),
  'task_name': ('task', ''),
  'train_file': ('data', ''),
  'file': ('data', ''),
  'validation_file': ('validation', ''),
  'eval_file': ('validation', ''),
  'dev': ('validation', ''),
  'dev_file': ('validation', ''),
  'test_file': ('test', ''),
  'data_dir': ('folder', ''),
  'text_column': ('text', ''),
  'label_column': ('label', ''),
  'max_length': ('input_length', ''),
  'max_seq_length': ('input_length', ''),
  'max_source_length': ('input_length', ''),
  'max_input_length': ('input_length', ''),
  'max_target_length': ('target_length', ''),
  'max_tokens': ('max_new_tokens', ''),
  'eval_steps': ('eval_every', ''),
  'evaluation_strategy': ('eval_every', 'in steps'),
  'eval_strategy': ('eval_every', 'in steps'),
  'save_steps': ('save_every', ''),
  'save_strategy': ('save_every', 'in steps'),
  'early_stopping': ('patience', ''),
  'early_stopping_patience': ('patience', ''),
  'metric_for_best_model': ('metric', ''),
  'num_warmup_steps': ('warmup_steps', ''),
  'warmup': ('warmup_steps', ''),
  'warmup_ratio': ('warmup_steps', 'in steps'),
  'num_shots': ('shots', ''),
  'few_shot': ('shots', ''),
  'num_beams': ('beams', ''),
  'beam_size': ('beams', ''),
  'do_sample': ('temperature', 'above 0 it samples'),
  'bf16': ('dtype', 'bfloat16'),
  'fp16': ('dtype', 'bfloat16 or float32; T5 overflows in float16'),
  'precision': ('dtype', ''),
  'torch_dtype': ('dtype', ''),
  'load_in_8bit': ('weights', 'int8'),
  'attn_implementation': ('attention', ''),
  'gradient_checkpointing': ('remat', ''),
  'use_cpu': ('device', 'cpu'),
  'no_cuda': ('device', 'cpu'),
}  # fmt: skip


def hint(got: str, known: Collection[str], mark: str = '') -> str:
  """What a user may have meant by a name that does not exist; '' or a sentence after a space.

  Args:
    got: the name.
    known: the names that exist.
    mark: what stands before a name, such as "--" of a flag.
  """
  name, note = OTHER_NAMES.get(got, ('', ''))
  if name in known:
    named = {n: f'{mark}{n}' for n in ('batch_size', 'data')}
    return f' Did you mean {mark + name!r}?' + (f' Here {note.format(**named)}.' if note else '')
  near = difflib.get_close_matches(got, sorted(known), n=3, cutoff=0.6)
  return f' Did you mean {" or ".join(repr(mark + n) for n in near)}?' if near else ''
