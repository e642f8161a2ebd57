"""LoRA and (IA)^3 in folders of Hugging Face PEFT: arrays beside the matrices of a T5.

Read in PEFT's code (0.21, `tuners/lora/layer.py`, `tuners/ia3/layer.py`), and run by the tests. A
module of PEFT is a matrix of torch's T5; a point here is what it computes. (IA)^3 multiplies what
goes into `feedforward_modules`, and what comes out of the others.
"""

import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats.fields import READ, Only, Rule, check
from prompt_jax.checkpoints.leaf import safetensors_leaves
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.injections import POINTS
from prompt_jax.prompt_formats.foreign import Trained
from prompt_jax.prompts.methods.inside.ia3 import IA3
from prompt_jax.prompts.methods.inside.lora import LoRA

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
LORA, IA3_KIND = 'LORA', 'IA3'
KINDS = (LORA, IA3_KIND)
METHODS = (LoRA, IA3)
_OTHERWISE = 'Its layers then compute something else than LoRA'
_IN_TRAINING = 'how the numbers began or were trained; they are in the file'
_WHO = 'who wrote the file, where, and with what'
_COMMON: dict[str, Rule] = {
  **dict.fromkeys(('peft_type', 'task_type', 'base_model_name_or_path'), READ),
  **dict.fromkeys(('auto_mapping', 'revision', 'peft_version', 'inference_mode'), _WHO),
  **dict.fromkeys(
    ('target_modules', 'exclude_modules', 'layers_to_transform', 'layers_pattern'),
    'which matrices it has; their names in the file say so',
  ),
  'fan_in_fan_out': Only((False,), 'No matrix of a T5 is stored so'),
  'modules_to_save': Only(([],), 'It trained parts of the model too: train the adapter alone'),
}
FIELDS: dict[str, dict[str, Rule]] = {
  LORA: {
    **_COMMON,
    **dict.fromkeys(('r', 'lora_alpha'), READ),
    **dict.fromkeys(
      ('lora_dropout', 'loftq_config', 'eva_config', 'corda_config',
       'lora_ga_config', 'megatron_config', 'megatron_core', 'qalora_group_size',
       'monteclora_config', 'ensure_weight_tying'), _IN_TRAINING
    ),
    'use_rslora': Only((False, True)),
    # The others change the model itself, and again whenever PEFT reads the folder.
    'init_lora_weights': Only(
      (True, False, 'gaussian', 'orthogonal', 'eva', 'mica'),
      'Its numbers are beside a changed model: convert the adapter in PEFT by save_pretrained(..., '
      'path_initial_model_for_weight_conversion=...)'
    ),
    'bias': Only(('none',), 'It trained biases, which a T5 does not have'),
    **dict.fromkeys(('rank_pattern', 'alpha_pattern'), Only(({},), 'Give all matrices one rank')),
    **dict.fromkeys(('use_dora', 'use_qalora', 'lora_bias'), Only((False,), _OTHERWISE)),
    **dict.fromkeys(
      ('layer_replication', 'trainable_token_indices', 'target_parameters', 'velora_config',
       'alora_invocation_tokens', 'use_bdlora', 'arrow_config', 'kasa_config'), Only((), _OTHERWISE)
    ),
  },
  IA3_KIND: {**_COMMON, 'feedforward_modules': READ, 'init_ia3_weights': _IN_TRAINING},
}  # fmt: skip

# Modules of torch's T5 by our stack and point.
_ATTENTIONS = {
  'encoder': ('encoder', 0, 'SelfAttention'),
  'decoder': ('decoder', 0, 'SelfAttention'),
  'cross': ('decoder', 1, 'EncDecAttention'),
}
_MATRICES = {'query': 'q', 'key': 'k', 'value': 'v', 'attention': 'o'}
_MLP_LAYER = {'encoder': 1, 'decoder': 2}
_KEY = re.compile(
  r'base_model\.model\.(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(\w+)\.(\w+)'
  r'\.(?:lora_(A|B)\.weight|(ia3_l))'
)
# By (stack, point, "A", "B" or "ia3_l"), and then by layer.
_Arrays = dict[tuple[str, str, str], dict[int, np.ndarray]]


def read_layers(folder: pathlib.Path, config: Mapping[str, Any]) -> Trained:
  """LoRA or (IA)^3 of a PEFT folder.

  Raises:
    UserError: the adapter has something that this package has no place for.
  """
  where, kind = str(folder / CONFIG), config['peft_type']
  check(config, FIELDS[kind], where)
  arrays = _arrays(folder / WEIGHTS, config)
  stacks = {stack: tuple(p for s, p, _ in arrays if s == stack) for stack in _ATTENTIONS}
  points = tuple(p for p in POINTS if p in stacks['encoder'])
  expected = {'encoder': set(points), 'decoder': set(points)}
  expected['cross'] = set() if kind == LORA and not stacks['cross'] else set(points) & {*_MATRICES}
  for stack, own in stacks.items():
    if set(own) != expected[stack] or not points:
      raise UserError(
        f'{where}: the {stack} has an adapter at {", ".join(sorted(set(own))) or "nothing"}, and '
        f'the encoder at {", ".join(sorted(points)) or "nothing"}; expected the same matrices in '
        'all attentions. Train the adapter with target_modules such as ["q", "v"].'
      )
  if kind == IA3_KIND:
    params = {f'{s}_{p}': _stacked(found, where)[..., 0] for (s, p, _), found in arrays.items()}
    return Trained(IA3(points=points), params)
  method = LoRA(_rank(config, where), _alpha(config, where), points, bool(stacks['cross']))
  names = {'A': 'down', 'B': 'up'}
  params = {
    f'{s}_{p}_{names[half]}': np.ascontiguousarray(_stacked(found, where).swapaxes(1, 2))
    for (s, p, half), found in arrays.items()
  }
  return Trained(method, params)


def _arrays(path: pathlib.Path, config: Mapping[str, Any]) -> _Arrays:
  """The file's arrays by where they belong; those of (IA)^3 as columns."""
  inner = config.get('feedforward_modules')
  inner = [inner] if isinstance(inner, str) else inner or ()
  if not isinstance(inner, list | tuple):
    raise UserError(
      f'{str(path.parent / CONFIG)!r} has feedforward_modules {inner!r}; expected '
      'a list of names, such as ["wo"].'
    )
  found: _Arrays = {}
  for name, leaf in sorted(safetensors_leaves(path).items()):
    place = _place(name, inner)
    if place is None:
      raise UserError(
        f'{str(path)!r} holds {name!r}, which is no matrix of the attention of a T5, nor the '
        'hidden units of its mlp: this package has no place for it. Train the adapter on q, k, v '
        'and o, (IA)^3 also on wo.'
      )
    stack, point, layer, part = place
    if len(leaf.shape) != 2:
      raise UserError(f'{leaf.where} has shape {list(leaf.shape)}; expected two axes.')
    value = leaf.read().astype(np.float32)
    value = value.reshape(-1, 1) if part == 'ia3_l' else value
    found.setdefault((stack, point, part), {})[layer] = value
  return found


def _place(name: str, inner: Any) -> tuple[str, str, int, str] | None:
  """(stack, point, layer, part) of an array."""
  match = _KEY.fullmatch(name)
  if match is None:
    return None
  tree, layer, index, block, matrix, half, vector = match.groups()
  part = half or vector
  for stack, (of, at, attention) in _ATTENTIONS.items():
    points = {m: p for p, m in _MATRICES.items()}
    if (tree, int(index), block) == (of, at, attention) and matrix in points:
      return (stack, points[matrix], int(layer), part) if matrix not in inner else None
  if vector and matrix == 'wo' and int(index) == _MLP_LAYER[tree]:
    return tree, 'mlp_hidden' if matrix in inner else 'mlp', int(layer), part
  return None


def _stacked(by_layer: Mapping[int, np.ndarray], where: str) -> np.ndarray:
  """[L, ...]; the layers are 0, 1, 2, ... and of one shape."""
  shapes = {value.shape for value in by_layer.values()}
  if sorted(by_layer) != list(range(len(by_layer))) or len(shapes) != 1:
    raise UserError(
      f'{where}: layers {sorted(by_layer)} have an adapter; expected all of them, of one shape. '
      'Train it without layers_to_transform.'
    )
  return np.stack([by_layer[i] for i in sorted(by_layer)])


def _rank(config: Mapping[str, Any], where: str) -> int:
  rank = config.get('r')
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise UserError(f'{where} has r {rank!r}; expected a whole number of at least 1.')
  return rank


def _alpha(config: Mapping[str, Any], where: str) -> float:
  """Ours, by which PEFT's scaling is alpha / rank."""
  alpha = config.get('lora_alpha')
  if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
    raise UserError(f'{where} has lora_alpha {alpha!r}; expected a finite number.')
  return float(alpha) * math.sqrt(config['r']) if config.get('use_rslora') else float(alpha)


def write_layers(folder: pathlib.Path, layers: Trained, base_model: str | None) -> None:
  """Writes a folder for `peft.PeftModel.from_pretrained`.

  Args:
    folder: is made.
    layers: `LoRA` or `IA3`.
    base_model: what the configuration calls the model.

  Raises:
    UserError: PEFT has no such method, or no such points.
  """
  method, params = layers.method, layers.params
  if isinstance(method, LoRA):
    config, tensors = _lora(method, params)
  elif isinstance(method, IA3):
    config, tensors = _ia3(method, params)
  else:
    raise UserError(
      f'PEFT has no {type(method).__name__}; of what changes layers, it can be given LoRA '
      'and IA3. Export it to stablehlo.',
      ['to'],
    )
  about = {'task_type': 'SEQ_2_SEQ_LM', 'inference_mode': True}
  write_atomically(folder / WEIGHTS, safetensors.numpy.save(tensors, {'format': 'pt'}))
  on_disk.write_json(folder / CONFIG, {**config, **about, 'base_model_name_or_path': base_model})


def _lora(
  method: LoRA, params: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  matrices = [_MATRICES[point] for point in method.points]
  own = rf'.*SelfAttention\.({"|".join(matrices)})'
  config = {
    'peft_type': LORA, 'r': method.rank, 'lora_alpha': method.alpha, 'lora_dropout': 0.0,
    'bias': 'none', 'target_modules': matrices if method.cross else own,
  }  # fmt: skip
  halves = {'down': 'lora_A.weight', 'up': 'lora_B.weight'}

  def names(path: str) -> tuple[str, str, str]:
    stack, point, half = path.split('_')
    return stack, point, halves[half]

  return config, _tensors(params, names, lambda x: x.T)


def _ia3(
  method: IA3, params: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  other = sorted({*method.points} - {*_MATRICES, 'mlp_hidden', 'mlp'})
  if other or {'mlp', 'mlp_hidden'} <= {*method.points}:
    raise UserError(
      f'IA3 has factors at {", ".join(other or ("mlp and mlp_hidden",))}, which PEFT cannot have. '
      'Export it to stablehlo.',
      ['to'],
    )
  inner = ['wo'] if 'mlp_hidden' in method.points else []
  modules = sorted({_MATRICES.get(point, 'wo') for point in method.points})
  config = {'peft_type': IA3_KIND, 'target_modules': modules, 'feedforward_modules': inner}

  def names(path: str) -> tuple[str, str, str]:
    stack, _, point = path.partition('_')
    return stack, point, 'ia3_l'

  tensors = _tensors(params, names, lambda x: x[:, None])
  return config, {
    n: np.ascontiguousarray(x.T) if inner and '.wo.' in n else x for n, x in tensors.items()
  }


def _tensors(
  params: dict[str, np.ndarray],
  names: Callable[[str], tuple[str, str, str]],
  turned: Callable[[np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
  """PEFT's arrays: one for each layer."""
  found = {}
  for path, stacked in params.items():
    stack, point, part = names(path)
    tree, index, block = _ATTENTIONS[stack]
    if point not in _MATRICES:
      index, block = _MLP_LAYER[stack], 'DenseReluDense'
    for i, value in enumerate(np.asarray(stacked, np.float32)):
      module = f'{tree}.block.{i}.layer.{index}.{block}.{_MATRICES.get(point, "wo")}'
      found[f'base_model.model.{module}.{part}'] = np.ascontiguousarray(turned(value))
  return found
