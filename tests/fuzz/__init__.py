"""Coverage-guided fuzzing of the guard: ``make fuzz``, or ``python -m fuzz --help`` with ``tests`` on the path.

`targets` says what is held, `programs` how inputs are changed, `watching` what an input may cost, `worker` is one
process of libFuzzer, and `__main__` takes the targets in turns and keeps what they find.

``python -m fuzz.replay pickles FILE`` (or ``torch_files``) runs one input again. Once what it found is mended, the line
that this prints before, without the rest, goes to ``corpus/pickles.mended.txt``, which the tests hold for ever.
"""
