"""The device that computes unless something says otherwise."""

import jax


def default_device() -> jax.Device:
  """The device that `--device` chose, or JAX's first: its kind decides dtypes and batch parts.

  `jax.default_backend()` knows nothing of that choice: with `--device cpu` it still says "gpu".
  """
  chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
  return chosen if isinstance(chosen, jax.Device) else jax.local_devices()[0]
