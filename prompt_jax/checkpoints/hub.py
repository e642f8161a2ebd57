"""A model by its name on the Hugging Face hub, where huggingface_hub is installed (the extra
"hub") and the hub can be reached.
"""

import pathlib
import re

from prompt_jax.errors import UserError, install

# What a model needs, and nothing for other frameworks.
FILES = ('*.json', '*.safetensors', 'spiece.model')
TORCH_FILES = ('*.json', 'pytorch_model*.bin', 'spiece.model')
_NAME = re.compile(r'[\w.-]+/[\w.-]+')


def is_name(text: str) -> bool:
  """Whether it may be OWNER/NAME on the hub."""
  return bool(_NAME.fullmatch(text)) and not text.startswith('.')


# Who has published the models of the family that are often named without their owner.
OWNERS = {
  'google-t5': ('t5-small', 't5-base', 't5-large', 't5-3b', 't5-11b'),
  'google': ('t5-v1_1-', 't5-efficient-', 'flan-t5-', 'mt5-', 'umt5-', 'byt5-', 'madlad400-'),
}


def with_owner(name: str) -> str | None:
  """OWNER/NAME of a model that is named without its owner; None where nobody is known."""
  found = (owner for owner, begins in OWNERS.items() if name.lower().startswith(begins))
  return next((f'{owner}/{name}' for owner in found), None)


def download(name: str) -> pathlib.Path:
  """The local folder of a model, fetched unless the hub's cache has it.

  Raises:
    UserError: huggingface_hub is not installed, the hub is out of reach, or has no such model.
  """
  try:
    import huggingface_hub as hub
  except ImportError:
    raise UserError(
      f'No model {name!r}: there is no such folder, and for a name on the Hugging Face hub '
      f'huggingface_hub must be installed: {install("hub")}'
    ) from None
  try:
    folder = pathlib.Path(hub.snapshot_download(name, allow_patterns=list(FILES)))
    if not list(folder.glob('*.safetensors')):
      folder = pathlib.Path(hub.snapshot_download(name, allow_patterns=list(TORCH_FILES)))
  except Exception as e:  # of the hub, of its HTTP library, of the operating system
    reason = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
    raise UserError(
      f'No model {name!r}: there is no such folder, and it cannot be fetched from the Hugging Face '
      f'hub: {reason}'
    ) from None
  return folder
