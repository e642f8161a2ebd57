"""Requests that are not answered, as JSON."""

from collections.abc import Mapping
from typing import Any


class Refused(Exception):
  """A request that is not answered.

  Attributes:
    status: of HTTP.
    code: a short name that programs read.
    parameter: the field that is wrong, if it is one.
    headers: of the answer.
  """

  def __init__(
    self,
    status: int,
    code: str,
    message: str,
    parameter: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.code, self.parameter = status, code, parameter
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    """The JSON of the answer."""
    kind = 'server_error' if self.status >= 500 else 'invalid_request_error'
    about = {'message': str(self), 'type': kind, 'param': self.parameter, 'code': self.code}
    return {'error': about}


def wrong(message: str, parameter: str | None) -> Refused:
  """A field that is wrong."""
  return Refused(400, 'invalid_request', message, parameter)


def no_prompt(name: str) -> Refused:
  """There is no prompt of that name, or none any more."""
  return Refused(404, 'model_not_found', f'There is no prompt {name[:80]!r}.', 'model')
