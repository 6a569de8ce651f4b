"""Engine kind `transformers`: any checkpoint which that library loads, correct and one request after another."""
