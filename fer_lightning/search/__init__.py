"""Search for settings with Optuna: a sweeper of Hydra, its study on disk, and a callback that prunes."""
