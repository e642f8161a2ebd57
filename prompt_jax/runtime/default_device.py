"""The device that computes unless something says otherwise, and the dtype that suits a kind."""

import jax


def default_device() -> jax.Device:
  """The device that `--device` chose, or JAX's first: its kind decides dtypes and batch parts.

  `jax.default_backend()` knows nothing of that choice: with `--device cpu` it still says "gpu".
  """
  chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
  return chosen if isinstance(chosen, jax.Device) else jax.local_devices()[0]


def default_dtype(platform: str) -> str:
  """What frozen weights are kept in and activations computed in, where nothing says otherwise."""
  return 'float32' if platform == 'cpu' else 'bfloat16'
