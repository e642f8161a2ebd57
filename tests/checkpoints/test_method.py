"""A prompt method survives the way through JSON."""

import dataclasses
import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  build_method,
  describe_method,
  load_prompt,
  save_prompt,
)
from prompt_jax.errors import UserError
from prompt_jax.prompts.initializers import Uniform
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import LowRank


def test_a_method_with_a_table_and_an_initialiser_comes_back_equal():
  method = InputPrompt(length=7, table=LowRank(rank=3, initializer=Uniform(0.25)), decoder=True)
  back = build_method(json.loads(json.dumps(describe_method(method))))
  assert type(back) is InputPrompt
  assert back == method
  assert back.table.initializer.limit == 0.25


@dataclasses.dataclass(frozen=True)
class Held:
  rows: np.ndarray
  names: tuple = ('a', 'b')


def test_arrays_keep_their_shape_and_sequences_become_tuples():
  back = build_method(json.loads(json.dumps(describe_method(Held(np.ones((2, 3)))))))
  assert back.rows.shape == (2, 3)
  assert not back.rows.any()
  assert back.names == ('a', 'b')


def test_something_else_is_refused():
  with pytest.raises(UserError, match='function'):
    describe_method(Held(rows=np.sum))


@pytest.mark.parametrize(
  'name', ['no.such.Thing', 'prompt_jax.prompts.methods.input.input_prompt.Gone']
)
def test_a_missing_class_is_named(name):
  with pytest.raises(UserError, match=name):
    build_method({'class': name, 'fields': {}})


def test_a_file_cannot_call_what_is_no_part_of_a_method():
  with pytest.raises(UserError, match='none'):
    build_method({'class': 'subprocess.Popen', 'fields': {'args': ['true']}})


@pytest.mark.parametrize(
  ('old', 'kind'),
  [
    ('adept.ADePT', ADePT),
    ('deep_prompt.DeepPrompt', DeepPrompt),
    ('input_prompt.InputPrompt', InputPrompt),
    ('prefix_tuning.PrefixTuning', PrefixTuning),
    ('task_prompts.TaskPrompts', TaskPrompts),
  ],
)
def test_prompt_files_of_version_0_1_name_modules_that_have_moved(old, kind, tmp_path):
  fields = describe_method(kind(length=3))['fields']
  description = {'class': f'prompt_jax.prompts.{old}', 'fields': fields}
  file, metadata = tmp_path / 'prompt.safetensors', {'method_config': description}
  metadata |= {'base_model': 'b', 'fingerprint': 'f', 'method': kind.__name__, 'width': 2}
  save_prompt(file, Prompt({'encoder': {'prompt': np.ones((3, 2), np.float32)}}, {}, metadata))
  assert build_method(load_prompt(file).metadata['method_config']) == kind(length=3)


def test_fields_of_another_version_are_told():
  description = describe_method(InputPrompt())
  description['fields']['gone'] = 1
  with pytest.raises(UserError, match='gone'):
    build_method(description)
