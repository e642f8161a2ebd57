"""The settings of the verbs: one table, read from gin/runs as text."""

import argparse

import pytest
from gin import config as gin_config

from prompt_jax.cli.usage import VERBS
from prompt_jax.configuration import other_names, run_files
from prompt_jax.configuration.run_files import folder, settings_of

CONFIGURED = [verb for verb in VERBS if run_files.is_configured(verb)]
# Macros that only a gin file sets: objects, and what another file chooses.
NO_FLAG = {
  'train': {'SCHEDULE', 'OPTIMIZER', 'LOSS'},
  'population': {'SCHEDULE', 'OPTIMIZER', 'LOSS', 'TRAINABLE'},
  'pretrain': {
    'ARCHITECTURE', 'SCHEDULE', 'ADAPT_SCHEDULE', 'OPTIMIZER', 'ADAPT_OPTIMIZER', 'LOSS',
  },
  'infer': {'DECODING'},
  'convert': {'ARCHITECTURE'},
  'plan': {'ARCHITECTURE', 'MODEL'},
}  # fmt: skip


def test_a_file_says_name_type_default_help_and_heading(tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs/part.gin').write_text("""# A part
DEVICE = 'auto'  # a|b: what computes
""")
  (tmp_path / 'runs/bake.gin').write_text("""# prompt-jax bake: a cake.
# In two lines.
from __gin__ import dynamic_registration

# How long

STEPS = 10  # N: steps; 3 # 4
# about the rate, which has no flag of another kind
RATE = %METHOD_RATE  # --speed X: how fast; default: the method's
NOTE = None  # an object
  # that is described in two lines
UNREAD = 1  # N: of another verb
GONE = 1  # N: first a flag
GONE = 2  # no flag: it has one value here
FILES = ()  # FILE...: files,
  # several
FLAG = False  # switch: on

# Where

include 'runs/part.gin'
DEVICE = 'cpu'

other.thing.note = %NOTE
scope/other.thing:
  rate = %RATE
  gone = %GONE

bake.bake:
  steps = %STEPS
  things = [@scope/other.thing(), @x/y.z]
  files = %FILES
  flag = %FLAG
  device = %DEVICE
""")
  monkeypatch.setattr(run_files, 'folder', lambda: tmp_path)
  found = settings_of('bake')
  assert list(found) == ['steps', 'speed', 'rate', 'files', 'flag', 'device']
  steps = found['steps']
  assert (steps.macro, steps.default, steps.help) == ('STEPS', 10, 'steps; 3 # 4')
  assert (steps.kind, steps.several, steps.section) == ('N', False, 'How long')
  assert steps.type('3') == 3
  with pytest.raises(argparse.ArgumentTypeError, match="'0'"):
    steps.type('0')
  assert found['speed'] is found['rate']
  assert found['rate'].default == '%METHOD_RATE'
  files = found['files']
  assert (files.default, files.help, files.several) == ((), 'files, several', True)
  assert files.value(['a']) == ['a']
  assert found['flag'].switch
  assert (found['device'].default, found['device'].section) == ('cpu', 'Where')
  assert settings_of('nothing') == {}


@pytest.mark.parametrize('verb', CONFIGURED)
def test_every_macro_of_a_run_is_a_flag_and_gin_has_the_same_defaults(verb):
  gin_config.clear_config()
  gin_config._LOCATION_PREFIXES[:] = [str(folder())]
  gin_config.parse_config_file(str(folder() / f'runs/{verb}.gin'))
  macros = {
    scope: bound['value']
    for (scope, selector), bound in gin_config._CONFIG.items()
    if selector == 'gin.macro'
  }
  gin_config.clear_config()
  found = {s.macro: s for s in settings_of(verb).values()}
  ours = {name for name in macros if not name.startswith('PROMPT_') or name == 'PROMPT_FILE'}
  ours |= {'PROMPT_LENGTH'} & found.keys()
  unread = {'SEED', 'PACK', 'ROW_LENGTH', 'LOOK_AHEAD'} if verb == 'population' else set()
  assert ours - {'PROMPT'} - found.keys() == NO_FLAG.get(verb, set()) | unread
  for name, setting in found.items():
    if not str(setting.default).startswith(('%', '@')):
      assert setting.default == macros[name], name


@pytest.mark.parametrize('verb', CONFIGURED)
def test_no_name_means_two_macros_and_every_help_is_one_sentence(verb):
  found = settings_of(verb)
  for name, setting in found.items():
    assert name in setting.names
    assert setting.macro.lower() in setting.names
    assert setting.help == setting.help.strip().rstrip('.')
  assert len({id(s) for s in found.values()}) == len({s.macro for s in found.values()})


def test_names_of_other_libraries_lead_to_ours():
  known = {name for verb in CONFIGURED for name in settings_of(verb)} | {'prompt', 'init'}
  for other, (name, _) in other_names.OTHER_NAMES.items():
    assert name in known, f'{other} leads to {name}, which is no setting'
    assert other not in settings_of('train'), other
    assert repr(name) in other_names.hint(other, known)
  assert other_names.hint('lr', settings_of('train')) == " Did you mean 'learning_rate'?"
  assert 'N / batch_size' in other_names.hint('epochs', settings_of('train'))
  assert 'N / --batch_size' in other_names.hint('epochs', settings_of('train'), '--')
