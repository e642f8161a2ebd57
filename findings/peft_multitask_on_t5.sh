#!/usr/bin/env bash
# Guess: a T5 with a multitask prompt of PEFT (MultitaskPromptTuning, defaults) writes what its forward
# pass, with which it was trained, says is most probable.
# Seen (peft 0.21.2, transformers 5.23.0, torch 2.13.0, Python 3.11): it does not. By default such a
# prompt has rows for two stacks. The forward pass with labels puts the second half before the
# decoder's input, so it returns 4 + U logits of a prompt of 4 rows; `generate` leaves that half out,
# and the logits of its first token are others. With num_transformer_submodules=1 both agree.
# The forward pass with decoder_input_ids in place of labels raises a TypeError with two, and a
# ValueError with one, where they are dropped.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'peft==0.21.2' 'transformers==5.23.0' 'torch==2.13.0' 'numpy<3'
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import peft
import torch
import transformers

ROWS = 4
INPUTS, LABELS, TASK = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[9, 1]]), torch.tensor([0])


def prompted(**settings):
  torch.manual_seed(0)
  config = transformers.T5Config(
    vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2,
    decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
  )
  model = transformers.T5ForConditionalGeneration(config)
  model = peft.get_peft_model(model, peft.MultitaskPromptTuningConfig(
    task_type='SEQ_2_SEQ_LM', num_virtual_tokens=ROWS, num_tasks=2,
    prompt_tuning_init='RANDOM', **settings,
  )).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(torch.randn_like(parameter))
  return model


def decoder_input_ids(model):
  try:
    model(input_ids=INPUTS, decoder_input_ids=torch.tensor([[0]]), task_ids=TASK)
  except Exception as error:
    return type(error).__name__
  return 'no error'


seen = {}
for submodules, model in ((2, prompted()), (1, prompted(num_transformer_submodules=1))):
  assert model.peft_config['default'].num_transformer_submodules == submodules
  with torch.no_grad():
    forward = model(input_ids=INPUTS, labels=LABELS, task_ids=TASK).logits[0]
    written = model.generate(
      input_ids=INPUTS, task_ids=TASK, max_new_tokens=1, do_sample=False, output_logits=True,
      return_dict_in_generate=True,
    ).logits[0][0]
    first = forward[len(forward) - LABELS.shape[1]]
    difference = (first - written).abs().max().item()
    seen[submodules] = (len(forward), difference, decoder_input_ids(model))
  print(f'{submodules} submodules: {len(forward)} logits of {LABELS.shape[1]} labels, the first token '
        f'of generate differs by {difference:.2g}, decoder_input_ids: {seen[submodules][2]}')

assert seen[2][0] == ROWS + LABELS.shape[1]
assert seen[2][1] > 0.01
assert seen[2][2] == 'TypeError'
assert seen[1][0] == LABELS.shape[1]
assert seen[1][1] < 1e-4
assert seen[1][2] == 'ValueError'
PYTHON
