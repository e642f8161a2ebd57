"""What a model answers."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the model made of one example.

  Attributes:
    input: the text.
    target: the right text.
    prediction: the label's word ("rank", "constrained"), or the decoded text ("generate").
    correct: whether it is right, as the metrics compare; None where the target is not known.
    scores: log-probabilities in nats: of each label by its word ("rank"; divided by its tokens if
      so asked), or {"log_prob"} of what was decoded.
    confidence: the prediction's probability among the labels: softmax of the scores ("rank"), or
      what decoding gave it among the tokens it could take ("constrained"); None for text.
    task: which of several tasks the example is of; None where there is but one.
    answers: all right texts, where there are several; else None.
    group: of examples that are judged together, if there are any.
  """

  input: str
  target: str
  prediction: str
  correct: bool | None
  scores: dict[str, float]
  confidence: float | None = None
  task: str | None = None
  answers: list[str] | None = None
  group: Any = None
