#!/usr/bin/env bash
# Guess: optax, which is written for JAX, works where JAX is told to refuse implicit dtype promotion
# (jax_numpy_dtype_promotion = 'strict'), float32 parameters and gradients throughout.
# Seen (jax 0.10.2, optax 0.2.8, Python 3.11): half of it does. SGD, momentum, Adafactor, Lion,
# RMSProp, Adagrad, linear schedules and global-norm clipping do; Adam, AdamW, LAMB, ema and the
# cosine and warm-up schedules raise TypePromotionError, because they compute decay ** step with a
# Python float and an int32 step; apply_every mixes float32 with bool, MultiSteps with int32.
# So strict dtypes can hold for a model, and not for a training step with Adam.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'jax==0.10.2' 'jaxlib==0.10.2' 'optax==0.2.8'
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

jax.config.update('jax_numpy_dtype_promotion', 'strict')
params = {'w': jnp.ones((4, 4), jnp.float32)}
sgd = optax.sgd(0.1)
transforms = {
  'sgd': sgd,
  'momentum': optax.sgd(0.1, momentum=0.9),
  'adafactor': optax.adafactor(0.1),
  'lion': optax.lion(0.1),
  'rmsprop': optax.rmsprop(0.1),
  'adagrad': optax.adagrad(0.1),
  'linear_schedule': optax.sgd(optax.linear_schedule(0.0, 1.0, 10)),
  'clip_by_global_norm': optax.chain(optax.clip_by_global_norm(1.0), sgd),
  'adam': optax.adam(0.1),
  'adamw': optax.adamw(0.1),
  'lamb': optax.lamb(0.1),
  'ema': optax.chain(optax.ema(0.9), sgd),
  'cosine_decay_schedule': optax.sgd(optax.cosine_decay_schedule(1.0, 10)),
  'warmup_cosine': optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 1.0, 5, 10)),
  'apply_every': optax.chain(sgd, optax.apply_every(2)),
  'MultiSteps': optax.MultiSteps(sgd, 2),
}
works, raises = [], []
for name, transform in transforms.items():
  state = transform.init(params)
  try:
    for _ in range(2):
      updates, state = transform.update(params, state, params)
  except jax.dtypes.TypePromotionError as error:
    raises.append(name)
    print(f'{name}: {str(error)[:80]}')
  else:
    works.append(name)
print('works:', *works)
print('raises:', *raises)
assert raises == ['adam', 'adamw', 'lamb', 'ema', 'cosine_decay_schedule', 'warmup_cosine',
                  'apply_every', 'MultiSteps'], raises
PYTHON
