"""The records of the runs behind README and docs, and the tables made from them: ``python -m results``."""
