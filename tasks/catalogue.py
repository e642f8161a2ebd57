"""Every data set by name, and the task that a name stands for."""

from collections.abc import Mapping

from prompt_jax.tasks import classification, cross_lingual, generation, glue_files, qa
from prompt_jax.tasks.data_set import DataSet

SUITES: Mapping[str, Mapping[str, DataSet]] = {
  'classification': classification.SETS,
  'qa': qa.SETS,
  'cross_lingual': cross_lingual.SETS,
  'generation': generation.SETS,
  'glue': glue_files.SETS,
}
SETS: Mapping[str, DataSet] = {
  name: found for suite in SUITES.values() for name, found in suite.items()
}
