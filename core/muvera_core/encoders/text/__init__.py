"""What encoders of text share: names in warnings, tokens up to a limit, windows, unknown words, inputs of a model."""
