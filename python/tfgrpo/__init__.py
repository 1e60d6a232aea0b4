"""Training-Free GRPO: a frozen language model learns a library of experiences instead of weights."""
