"""Tasks that come with the project, one file a suite; installed as `prompt_jax.tasks`."""
