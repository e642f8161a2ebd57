"""Token vectors from co-occurrence counts: initial embeddings for short pretraining runs.

A language model has to learn the meaning of each token from scratch, which for rare tokens takes
most of a short run. Factorising the co-occurrence matrix of the same text gives it in a minute
(Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with Lessons Learned from Word
Embeddings").
"""

import numpy as np

# Levy et al., section 3: contexts are smoothed by a power, singular values enter by a power.
CONTEXT_POWER = 0.75
VALUE_POWER = 0.25
# Pairs counted at a time; bounds the memory of the sort.
BLOCK = 4_000_000


def token_vectors(
  tokens: np.ndarray, size: int, width: int, *, window: int = 8, skip: tuple[int, ...] = (0, 1, 2)
) -> np.ndarray:
  """Rows U S^0.25 of the truncated SVD of the positive pointwise mutual information.

  PPMI_ij = max(0, log(n_ij / (n_i p_j))), where n_ij counts i and j within `window` tokens of
  each other, a pair at distance d as 1/sqrt(d), and p_j is proportional to n_j^0.75.

  Args:
    tokens: int[n] the text.
    size: V, ids; a V x V float32 matrix is held.
    width: H, length of a vector, less than V.
    window: largest distance of a pair.
    skip: ids that are not words (padding, end, unknown).

  Returns:
    float32[V, H], every row of mean square 1; 0 for tokens that do not occur.
  """
  # Imported here because it takes a second, which only pretraining has to wait for.
  import scipy.sparse
  import scipy.sparse.linalg

  counts = _counts(tokens.astype(np.int64), size, window)
  counts[list(skip)] = 0
  counts[:, list(skip)] = 0
  total = counts.sum(axis=0, dtype=np.float64)
  context = total**CONTEXT_POWER
  context /= context.sum()
  rows, columns = np.nonzero(counts)
  information = np.log(counts[rows, columns] / (total[rows] * context[columns]))
  kept = information > 0
  matrix = scipy.sparse.csr_matrix(
    (information[kept].astype(np.float32), (rows[kept], columns[kept])), shape=(size, size)
  )
  # ARPACK starts from a random vector; a fixed one gives the same vectors each time.
  left, values, _ = scipy.sparse.linalg.svds(matrix, k=width, v0=np.ones(size, np.float32))
  vectors = left * values**VALUE_POWER
  scale = np.sqrt(np.mean(np.square(vectors), axis=1, keepdims=True))
  # A row of zeros comes back as rounding noise, which must not be scaled up.
  occurs = np.asarray(matrix.sum(axis=1)) > 0
  return np.where(occurs, vectors / np.maximum(scale, 1e-9), 0).astype(np.float32)


def _counts(tokens: np.ndarray, size: int, window: int) -> np.ndarray:
  """float32[V, V] symmetric weighted counts of pairs within the window."""
  counts = np.zeros(size * size, np.float32)
  for distance in range(1, window + 1):
    for start in range(0, len(tokens) - distance, BLOCK):
      first = tokens[start : min(start + BLOCK, len(tokens) - distance)]
      second = tokens[start + distance : start + distance + len(first)]
      pairs, times = np.unique(first * size + second, return_counts=True)
      counts[pairs] += times / np.sqrt(distance)
  square = counts.reshape(size, size)
  return square + square.T
