"""Tests of the guarded load and of `safepickle.inspect`, and the corpus that they share with the benchmark."""
