"""Operative configurations read as text."""

import pytest

from prompt_jax.configuration import description

TEXT = """from __gin__ import dynamic_registration

# Macros:
# = = =
LEARNING_RATE = %RATE
RATE = 0.3
STEPS = 100
TASK = ['rte', 'cb']
NONE = None
OPTIMIZER = @optim.adafactor()
LONG = \\
    {'a': [0, 100],
     'b': 1}
ROUND = %AROUND
AROUND = %ROUND
DANGLING = %NOWHERE

# Parameters for optim.adafactor:
optim.adafactor.learning_rate = %LEARNING_RATE
"""


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('STEPS', 100),
    ('LEARNING_RATE', 0.3),
    ('optim.adafactor.learning_rate', 0.3),
    ('TASK', ['rte', 'cb']),
    ('NONE', None),
    ('OPTIMIZER', '@optim.adafactor()'),
    ('LONG', {'a': [0, 100], 'b': 1}),
    ('ROUND', None),
    ('DANGLING', None),
    ('MISSING', None),
  ],
)
def test_values(name, value):
  assert description.value_of(description.settings_of_text(TEXT), name) == value


def test_comments_are_no_settings():
  assert not any(name.startswith('#') for name in description.settings_of_text(TEXT))
