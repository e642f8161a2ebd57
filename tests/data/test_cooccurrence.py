"""Token vectors: the counts against a plain loop, the factorisation against NumPy's."""

import numpy as np

from prompt_jax.pretraining import cooccurrence


def test_counts_are_those_of_a_plain_loop(monkeypatch):
  monkeypatch.setattr(cooccurrence, 'BLOCK', 7)  # several blocks
  tokens = np.random.default_rng(0).integers(0, 6, 40)
  want = np.zeros((6, 6))
  for i, a in enumerate(tokens):
    for j, b in enumerate(tokens):
      if 0 < abs(i - j) <= 3:
        want[a, b] += 1 / np.sqrt(abs(i - j))
  np.testing.assert_allclose(cooccurrence._counts(tokens, 6, 3), want, rtol=1e-5)


def test_vectors_span_the_leading_singular_space():
  rng = np.random.default_rng(1)
  tokens = rng.integers(3, 30, 4000) // 2 * 2  # odd ids never occur
  vectors = cooccurrence.token_vectors(tokens, 32, 5, window=4)
  counts = cooccurrence._counts(tokens, 32, 4).astype(np.float64)
  counts[[0, 1, 2]] = 0
  counts[:, [0, 1, 2]] = 0
  total = counts.sum(0)
  context = total**0.75 / np.sum(total**0.75)
  with np.errstate(divide='ignore', invalid='ignore'):
    information = np.log(counts / (total[:, None] * context))
  information = np.where(np.isfinite(information), np.maximum(information, 0), 0)
  left, values, _ = np.linalg.svd(information)
  want = left[:, :5] * values[:5] ** 0.25
  # Equal up to the order and sign of the columns: compare the products of rows.
  scale = np.sqrt(np.mean(want**2, axis=1, keepdims=True))
  want = want / np.maximum(scale, 1e-9)
  occurs = total > 0
  np.testing.assert_allclose((vectors @ vectors.T)[occurs], (want @ want.T)[occurs], atol=1e-2)
  np.testing.assert_allclose(np.mean(vectors[occurs] ** 2, axis=1), 1, rtol=1e-5)
  assert not vectors[~occurs].any()


def test_tokens_that_keep_the_same_company_are_near():
  # Sentences about one of two topics; within a topic, tokens are drawn at random.
  rng = np.random.default_rng(2)
  topics = rng.integers(0, 2, 500)
  tokens = np.concatenate([rng.integers(3 + 10 * t, 13 + 10 * t, 12) for t in topics])
  vectors = cooccurrence.token_vectors(tokens, 24, 4)
  unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
  cosine = unit @ unit.T
  same = np.mean(cosine[3:13, 3:13])
  other = np.mean(cosine[3:13, 13:23])
  assert same > other + 0.5


def test_the_same_text_gives_the_same_bytes():
  tokens = np.random.default_rng(3).integers(3, 40, 3000)
  first, second = (cooccurrence.token_vectors(tokens, 40, 6) for _ in range(2))
  np.testing.assert_array_equal(first, second)
