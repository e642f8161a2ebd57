"""Prompts added, replaced and removed over HTTP, by who knows a token of its own."""

import asyncio
import dataclasses
from typing import Any

from prompt_jax import named_prompts
from prompt_jax.errors import UserError
from prompt_jax.serving import uploads
from prompt_jax.serving.engine import Changeable
from prompt_jax.serving.refused import Refused, no_prompt

MOST_CHARACTERS = 200  # of a name, which is that of a file for a while

Done = tuple[dict[str, Any], int]  # the JSON of the answer, and its status


@dataclasses.dataclass
class Admin:
  """What those may do who know the token.

  Attributes:
    engine: whose prompts are changed.
    token: that they must know.
    most_bytes: of a prompt file.
    seconds: that one who adds a prompt waits for others who do.
  """

  engine: Changeable
  token: str
  most_bytes: int
  seconds: float = 30.0
  _one: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

  async def add(self, name: str, data: bytes) -> Done:
    """Adds a prompt, or replaces the one of that name.

    Args:
      name: of the prompt.
      data: a prompt file.

    Raises:
      Refused: no name, no prompt file of this model, or another is being compiled.
    """
    if not named_prompts.is_name(name) or len(name) > MOST_CHARACTERS:
      raise Refused(400, 'invalid_name', 'A name has letters, digits, "_", "." and "-".', 'name')
    try:
      await asyncio.wait_for(self._one.acquire(), self.seconds)
    except TimeoutError:
      raise Refused(503, 'busy', 'Another prompt is being compiled.', None,
                    {'Retry-After': '10'}) from None  # fmt: skip
    try:
      known = name in self.engine.names
      await asyncio.to_thread(uploads.add, self.engine, name, data)
    except UserError as e:
      raise Refused(400, 'invalid_prompt', str(e)) from None
    finally:
      self._one.release()
    labels = next((p.labels for p in self.engine.prompts if p.name == name), ())
    about = {'id': name, 'object': 'model', 'labels': list(labels) or None}
    return about, 200 if known else 201

  async def remove(self, name: str) -> Done:
    """Takes a prompt out.

    Raises:
      Refused: there is none of that name.
    """
    try:
      await asyncio.to_thread(self.engine.remove, name)
    except UserError:
      raise no_prompt(name) from None
    return {'id': name, 'object': 'model', 'deleted': True}, 200
