"""Probabilities of labels from their scores."""

import numpy as np


def label_probabilities(scores: np.ndarray) -> np.ndarray:
  """float64[..., C]: softmax over the labels of log-probabilities in nats, float[..., C]."""
  x = np.asarray(scores, np.float64)
  x = np.exp(x - np.amax(x, axis=-1, keepdims=True))
  return x / np.sum(x, axis=-1, keepdims=True)
