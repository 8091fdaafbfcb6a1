"""Vision language models as predictors."""
